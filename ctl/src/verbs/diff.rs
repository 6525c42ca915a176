//! `diff`: what `apply` would change, found out by the server without storing anything.
//!
//! The exit code is 0 without a difference, 1 with one, and 2 when something failed. The texts are compared here:
//! `$KUBECTL_EXTERNAL_DIFF` is deliberately not asked.

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use similar::TextDiff;

use crate::AlreadyTold;
use crate::api::{PatchKind, is_not_found};
use crate::manifest::{self, Document};
use crate::output::{hide_managed_fields, to_yaml};
use crate::session::Session;
use crate::verbs::apply::{MANAGER, explain};

/// The flags of `diff`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Files and directories with manifests; `-` is standard input
    #[arg(short, long, value_delimiter = ',', required = true, value_name = "FILE")]
    pub filename: Vec<String>,
    /// Directories with everything below them
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Tell conflicts with fields that others set, rather than winning
    #[arg(long)]
    pub server_side: bool,
    /// With --server-side: win conflicts
    #[arg(long)]
    pub force_conflicts: bool,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let failed = |error: anyhow::Error| {
        eprintln!("{error:#}");
        anyhow::Error::new(AlreadyTold(2))
    };
    let documents = manifest::read_all(&options.filename, options.recursive).map_err(failed)?;
    let (mut different, mut failures) = (false, false);
    for document in &documents {
        match compare(session, options, document).await {
            Ok(None) => {}
            Ok(Some(text)) => {
                print!("{text}");
                different = true;
            }
            Err(error) => {
                eprintln!("{}", explain(document, &error));
                failures = true;
            }
        }
    }
    match (failures, different) {
        (true, _) => Err(AlreadyTold(2).into()),
        (false, true) => Err(AlreadyTold(1).into()),
        (false, false) => Ok(()),
    }
}

async fn compare(
    session: &Session,
    options: &Options,
    document: &Document,
) -> anyhow::Result<Option<String>> {
    let resource = session.resources.of_object(&document.object)?;
    let namespace = session.namespace_of(resource, &document.object)?;
    let Some(name) = document.object.pointer("/metadata/name").and_then(Value::as_str) else {
        bail!("the object has no metadata.name");
    };
    let path = resource.object(namespace.as_deref(), name);
    let mut live = match session.api.get(&path).await {
        Ok(live) => live,
        Err(error) if is_not_found(&error) => Value::Null,
        Err(error) => return Err(error),
    };
    let force = if options.server_side && !options.force_conflicts { "" } else { "&force=true" };
    let query = format!("fieldManager={MANAGER}&fieldValidation=Strict&dryRun=All{force}");
    let (mut merged, _) =
        session.api.patch(&format!("{path}?{query}"), PatchKind::Apply, &document.object).await?;
    for object in [&mut live, &mut merged] {
        if object.is_object() {
            hide_managed_fields(object);
        }
    }
    if resource.kind == "Secret" {
        mask(&mut live, &mut merged);
    }
    let name = [
        resource.group.as_str(),
        &resource.version,
        &resource.kind,
        namespace.as_deref().unwrap_or_default(),
        name,
    ];
    let name: Vec<&str> = name
        .into_iter()
        .enumerate()
        .filter(|(at, part)| *at == 3 || !part.is_empty())
        .map(|(_, part)| part)
        .collect();
    let before = if live.is_null() { String::new() } else { to_yaml(&live)? };
    Ok(unified(&name.join("."), &before, &to_yaml(&merged)?))
}

/// The difference as patch programs read it.
fn unified(name: &str, before: &str, after: &str) -> Option<String> {
    if before == after {
        return None;
    }
    let difference = TextDiff::from_lines(before, after);
    let mut unified = difference.unified_diff();
    let text =
        unified.context_radius(3).header(&format!("LIVE/{name}"), &format!("MERGED/{name}")).to_string();
    Some(format!("diff -u -N LIVE/{name} MERGED/{name}\n{text}"))
}

/// Replaces what a secret keeps by stars, other ones where it differs.
fn mask(live: &mut Value, merged: &mut Value) {
    for field in ["data", "stringData"] {
        let before = live[field].as_object().cloned().unwrap_or_default();
        let after = merged[field].as_object().cloned().unwrap_or_default();
        for (key, value) in &before {
            let same = after.get(key).is_none_or(|other| other == value);
            live[field][key] = json!(if same { "***" } else { "*** (before)" });
        }
        for (key, value) in &after {
            let same = before.get(key).is_none_or(|other| other == value);
            merged[field][key] = json!(if same { "***" } else { "*** (after)" });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_as_patch_programs_read_it() {
        assert_eq!(unified("x", "a\n", "a\n"), None);
        let text = unified("v1.ConfigMap.default.c", "a\nb\n", "a\nc\n").unwrap();
        assert!(
            text.contains("--- LIVE/v1.ConfigMap.default.c\n+++ MERGED/v1.ConfigMap.default.c\n@@ "),
            "{text}"
        );
        assert!(text.contains("\n-b\n+c\n"), "{text}");
    }

    #[test]
    fn what_a_secret_keeps_is_never_shown() {
        let mut live = json!({"data": {"a": "one", "b": "same"}});
        let mut merged = json!({"data": {"a": "two", "b": "same", "c": "new"}});
        mask(&mut live, &mut merged);
        assert_eq!(live["data"], json!({"a": "*** (before)", "b": "***"}));
        assert_eq!(merged["data"], json!({"a": "*** (after)", "b": "***", "c": "***"}));
    }
}
