//! `edit`: objects in an editor. What the server refuses is opened again, with its reason on top.

use std::io::Write;
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Map, Value};

use crate::api::PatchKind;
use crate::cli::Selection;
use crate::output::{hide_managed_fields, to_yaml};
use crate::session::{Session, Target};
use crate::writing::Writing;

const HEADING: &str = "# Please edit the object below. Lines beginning with a '#' will be ignored,\n\
    # and an empty file will abort the edit. If an error occurs while saving this file will be\n\
    # reopened with the relevant failures.\n#\n";

/// The flags of `edit`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Kinds and names
    pub what: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// A part of the object with a path of its own: status, …
    #[arg(long, value_name = "NAME")]
    pub subresource: Option<String>,
    #[command(flatten)]
    pub writing: Writing,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let targets = session.chosen(&options.what, &options.selection, false).await?;
    if targets.is_empty() {
        bail!("error: no objects to edit");
    }
    for target in targets {
        edit(session, options, &target).await?;
    }
    Ok(())
}

async fn edit(session: &Session, options: &Options, target: &Target) -> anyhow::Result<()> {
    let below = options.subresource.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
    let path = format!("{}{below}", target.path());
    let mut original = session.api.get(&path).await?;
    hide_managed_fields(&mut original);
    let mut shown = to_yaml(&original)?;
    let mut complaint = String::new();
    loop {
        let file = write(&complaint, &shown)?;
        run_editor(file.path())?;
        let text = std::fs::read_to_string(file.path()).context("error: cannot read what was edited")?;
        let body: String =
            text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        if body.trim().is_empty() {
            println!("Edit cancelled, saved file was empty.");
            return Ok(());
        }
        if body == shown {
            if complaint.is_empty() {
                println!("Edit cancelled, no changes made.");
                return Ok(());
            }
            // Saved again as it was refused: the user has given up.
            let kept = file.into_temp_path().keep().context("error: cannot keep what was edited")?;
            bail!("error: Edit cancelled, no valid changes were saved. Your edit is in {}", kept.display());
        }
        match send(session, options, &path, &original, &body).await {
            Ok(None) => {
                println!("Edit cancelled, no changes made.");
                return Ok(());
            }
            Ok(Some(after)) => return options.writing.tell(&after, &target.reported(), "edited"),
            Err(error) => {
                complaint = format!("{error:#}");
                shown = body;
                eprintln!("{complaint}");
            }
        }
    }
}

/// Sends what the user changed, and only that: what others change meanwhile stays.
async fn send(
    session: &Session,
    options: &Options,
    path: &str,
    original: &Value,
    body: &str,
) -> anyhow::Result<Option<Value>> {
    let edited = crate::yaml::read(body).map_err(|error| {
        anyhow::anyhow!("The edited file had a syntax error: {}", error.without_snippet())
    })?;
    for field in ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"] {
        if edited.pointer(field) != original.pointer(field) {
            bail!("{} may not be changed by an edit", field.trim_start_matches('/').replace('/', "."));
        }
    }
    let Some(patch) = difference(original, &edited) else { return Ok(None) };
    let path = format!("{path}?{}&fieldValidation=Strict", options.writing.query("ctl-edit"));
    session.api.patch(&path, PatchKind::Merge, &patch).await.map(|(after, _)| Some(after))
}

/// What makes one tree the other, as a merge patch.
pub fn difference(from: &Value, to: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (from, to) else {
        return (from != to).then(|| to.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(before) => {
                if let Some(change) = difference(before, value) {
                    patch.insert(key.clone(), change);
                }
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    (!patch.is_empty()).then(|| patch.into())
}

fn write(complaint: &str, shown: &str) -> anyhow::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix("ctl-edit-")
        .suffix(".yaml")
        .tempfile()
        .context("error: cannot make a temporary file")?;
    let reasons: String = complaint.lines().map(|line| format!("# {line}\n")).collect();
    let reasons = if reasons.is_empty() { reasons } else { format!("{reasons}#\n") };
    write!(file, "{HEADING}{reasons}{shown}").context("error: cannot write the temporary file")?;
    Ok(file)
}

fn run_editor(path: &std::path::Path) -> anyhow::Result<()> {
    let named = ["KUBE_EDITOR", "EDITOR"].into_iter().find_map(|name| std::env::var(name).ok());
    let editor = named.filter(|editor| !editor.is_empty()).unwrap_or_else(|| "vi".to_string());
    // Editors come with flags and quotes: the shell reads them.
    let status = Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(path)
        .status()
        .with_context(|| format!("error: cannot start the editor {editor:?}"))?;
    if !status.success() {
        bail!("error: the editor {editor:?} failed ({status}); set KUBE_EDITOR or EDITOR to another");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_was_changed_is_sent() {
        let from = json!({"a": 1, "b": {"c": 2, "d": [1]}, "gone": true});
        let to = json!({"a": 1, "b": {"c": 3, "d": [1]}, "new": "x"});
        assert_eq!(difference(&from, &to), Some(json!({"b": {"c": 3}, "gone": null, "new": "x"})));
        assert_eq!(difference(&from, &from), None);
    }
}
