//! `label` and `annotate`: set with `key=value`, remove with `key-`.

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::api::PatchKind;
use crate::cli::Selection;
use crate::session::Session;
use crate::writing::Writing;

/// The flags of `label` and `annotate`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Kinds and names, then key=value to set and key- to remove
    #[arg(required = true)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// Every object of the kind in the namespace
    #[arg(long)]
    pub all: bool,
    /// Replace other values
    #[arg(long)]
    pub overwrite: bool,
    /// Show what is there
    #[arg(long)]
    pub list: bool,
    #[command(flatten)]
    pub writing: Writing,
}

/// Runs the verb on a map of the metadata.
pub async fn run(session: &Session, options: &Options, map: &str, done: &str) -> anyhow::Result<()> {
    let is_change = |word: &String| word.contains('=') || (word.ends_with('-') && word.len() > 1);
    // Names end with neither; a kind with a dash at its end does not exist.
    let first_change = options.words.iter().position(is_change).unwrap_or(options.words.len());
    let (what, changes) = options.words.split_at(first_change);
    if changes.is_empty() && !options.list {
        bail!("error: at least one change such as key=value or key- is required");
    }
    let targets = session.chosen(what, &options.selection, options.all).await?;
    for target in targets {
        let object = session.api.get(&target.path()).await?;
        let now = object["metadata"][map].as_object().cloned().unwrap_or_default();
        if options.list {
            for (key, value) in &now {
                println!("{key}={}", value.as_str().unwrap_or_default());
            }
            continue;
        }
        let wanted = changed(&now, changes, options.overwrite)
            .with_context(|| format!("error: {}", target.reported()))?;
        if wanted.iter().all(|(key, value)| now.get(key).unwrap_or(&Value::Null) == value) {
            println!("{} not {done}", target.reported());
            continue;
        }
        let removed_only = wanted.values().all(Value::is_null);
        let patch = json!({"metadata": {map: wanted}});
        let said = if removed_only && done == "labeled" { "unlabeled" } else { done };
        let after = if options.writing.dry_run.is_client() {
            object
        } else {
            let path = format!("{}?{}", target.path(), options.writing.query("ctl-label"));
            session.api.patch(&path, PatchKind::Merge, &patch).await?.0
        };
        options.writing.tell(&after, &target.reported(), said)?;
    }
    Ok(())
}

/// The map as a merge patch: null removes.
fn changed(
    now: &Map<String, Value>,
    changes: &[String],
    overwrite: bool,
) -> anyhow::Result<Map<String, Value>> {
    let mut patch = Map::new();
    for change in changes {
        match change.split_once('=') {
            Some((key, value)) => {
                let other = now.get(key).and_then(Value::as_str).filter(|other| *other != value);
                if let Some(other) = other.filter(|_| !overwrite) {
                    bail!("'{key}' already has a value ({other}), and --overwrite is false");
                }
                patch.insert(key.to_string(), value.into());
            }
            None => {
                patch.insert(change.trim_end_matches('-').to_string(), Value::Null);
            }
        }
    }
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_value_is_only_replaced_when_asked() {
        let now = json!({"disk": "hdd"}).as_object().unwrap().clone();
        assert!(changed(&now, &["disk=ssd".into()], false).unwrap_err().to_string().contains("hdd"));
        assert_eq!(changed(&now, &["disk=ssd".into()], true).unwrap()["disk"], "ssd");
        assert_eq!(changed(&now, &["disk-".into()], false).unwrap()["disk"], Value::Null);
    }
}
