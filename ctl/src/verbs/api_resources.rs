//! `api-resources` and `api-versions`: what the server serves.

use anyhow::bail;
use clap::Args;

use crate::output::table::Layout;
use crate::resources::Resource;
use crate::session::Session;

/// The flags of `api-resources`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Of one group only; empty for core
    #[arg(long, value_name = "GROUP")]
    pub api_group: Option<String>,
    /// Only those with, or without, namespaces
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub namespaced: Option<bool>,
    /// Only those that know all of these verbs
    #[arg(long, value_delimiter = ',', value_name = "VERBS")]
    pub verbs: Vec<String>,
    /// Only those in all of these categories
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub categories: Vec<String>,
    /// wide or name
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<String>,
    /// name or kind
    #[arg(long, value_name = "COLUMN")]
    pub sort_by: Option<String>,
    /// No heading
    #[arg(long)]
    pub no_headers: bool,
    /// Accepted for compatibility; the server is always asked
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub cached: Option<bool>,
}

/// Runs `api-resources`.
pub fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let all = session.resources.all();
    let mut shown: Vec<&Resource> = Vec::new();
    for resource in all {
        // Only the version that is preferred.
        let seen = shown.iter().any(|other| other.group == resource.group && other.plural == resource.plural);
        if !seen {
            shown.push(resource);
        }
    }
    shown.retain(|resource| {
        options.api_group.as_ref().is_none_or(|group| *group == resource.group)
            && options.namespaced.is_none_or(|namespaced| namespaced == resource.namespaced)
            && options.verbs.iter().all(|verb| resource.verbs.contains(verb))
            && options.categories.iter().all(|category| resource.categories.contains(category))
    });
    match options.sort_by.as_deref() {
        None => shown.sort_by(|a, b| (&a.group, &a.plural).cmp(&(&b.group, &b.plural))),
        Some("name") => shown.sort_by(|a, b| a.plural.cmp(&b.plural)),
        Some("kind") => shown.sort_by(|a, b| a.kind.cmp(&b.kind)),
        Some(other) => bail!("error: --sort-by accepts only name or kind, not {other:?}"),
    }
    match options.output.as_deref() {
        None | Some("") => print!("{}", layout(&shown, false).render(options.no_headers)),
        Some("wide") => print!("{}", layout(&shown, true).render(options.no_headers)),
        Some("name") => {
            for resource in shown {
                let dot = if resource.group.is_empty() { "" } else { "." };
                println!("{}{dot}{}", resource.plural, resource.group);
            }
        }
        Some(other) => bail!("error: --output {other} is not available; there are wide and name"),
    }
    Ok(())
}

fn layout(shown: &[&Resource], wide: bool) -> Layout {
    let mut headings = vec!["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"];
    if wide {
        headings.extend(["VERBS", "CATEGORIES"]);
    }
    let mut layout = Layout::new(&headings);
    for resource in shown {
        let mut cells = vec![
            resource.plural.clone(),
            resource.short_names.join(","),
            resource.api_version(),
            resource.namespaced.to_string(),
            resource.kind.clone(),
        ];
        if wide {
            let mut verbs = resource.verbs.clone();
            verbs.sort();
            cells.extend([verbs.join(","), resource.categories.join(",")]);
        }
        layout.row(cells);
    }
    layout
}

/// Runs `api-versions`.
pub fn versions(session: &Session) {
    let mut versions: Vec<String> = session.resources.all().iter().map(Resource::api_version).collect();
    versions.sort();
    versions.dedup();
    versions.iter().for_each(|version| println!("{version}"));
}
