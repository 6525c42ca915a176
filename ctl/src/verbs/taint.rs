//! `taint`: what keeps pods away from nodes.

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::api::PatchKind;
use crate::cli::Selection;
use crate::session::Session;
use crate::tree::{items, text};
use crate::writing::Writing;

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// The flags of `taint`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// `nodes`, names, then key=value:Effect to set and key:Effect- or key- to remove
    #[arg(required = true)]
    pub words: Vec<String>,
    /// The nodes that a selector names
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Every node
    #[arg(long)]
    pub all: bool,
    /// Replace other values
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub writing: Writing,
}

/// One change.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Set { key: String, value: String, effect: String },
    Remove { key: String, effect: Option<String> },
}

impl Change {
    fn parse(word: &str) -> anyhow::Result<Self> {
        let checked = |effect: &str| {
            if EFFECTS.contains(&effect) {
                return Ok(effect.to_string());
            }
            bail!(
                "error: invalid taint effect: {effect}, unsupported taint effect; known are {}",
                EFFECTS.join(", ")
            )
        };
        if let Some(taint) = word.strip_suffix('-') {
            let (key, effect) =
                taint.split_once(':').map_or((taint, None), |(key, effect)| (key, Some(effect)));
            let key = key.split('=').next().unwrap_or(key);
            return Ok(Self::Remove { key: key.to_string(), effect: effect.map(checked).transpose()? });
        }
        let (taint, effect) = word
            .rsplit_once(':')
            .with_context(|| format!("error: {word:?} is not of the form key=value:Effect"))?;
        let (key, value) = taint.split_once('=').unwrap_or((taint, ""));
        Ok(Self::Set { key: key.to_string(), value: value.to_string(), effect: checked(effect)? })
    }
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let is_change = |word: &String| word.contains([':', '=']) || word.ends_with('-');
    let first = options.words.iter().position(is_change).unwrap_or(options.words.len());
    let (what, changes) = options.words.split_at(first);
    if changes.is_empty() {
        bail!("error: at least one taint update is required");
    }
    let changes = changes.iter().map(|word| Change::parse(word)).collect::<anyhow::Result<Vec<_>>>()?;
    let named = what.len() > 1 || what.first().is_some_and(|word| word.contains('/'));
    if !named && options.selector.is_none() && !options.all {
        bail!("error: name nodes, select them with -l, or give --all");
    }
    let selection = Selection { selector: options.selector.clone(), ..Selection::default() };
    for target in session.targets(what, &selection).await? {
        if target.resource.kind != "Node" {
            bail!("error: invalid resource type {}, only node(s) is supported", target.resource.plural);
        }
        let node = session.api.get(&target.path()).await?;
        let before: Vec<Value> = items(&node, "/spec/taints").cloned().collect();
        let after = changed(before.clone(), &changes, options.overwrite)
            .with_context(|| format!("error: node {}", target.name))?;
        let removed_only = changes.iter().all(|change| matches!(change, Change::Remove { .. }));
        let done = if removed_only { "untainted" } else { "tainted" };
        if before == after {
            println!("{} not {done}", target.reported());
            continue;
        }
        // The list is replaced as a whole: only if nobody has changed the node meanwhile.
        let patch = json!({"metadata": {"resourceVersion": node["metadata"]["resourceVersion"]}, "spec": {"taints": after}});
        if options.writing.dry_run.is_client() {
            options.writing.tell(&node, &target.reported(), done)?;
            continue;
        }
        let path = format!("{}?{}", target.path(), options.writing.query("ctl-taint"));
        let (node, _) = session.api.patch(&path, PatchKind::Merge, &patch).await?;
        options.writing.tell(&node, &target.reported(), done)?;
    }
    Ok(())
}

fn changed(mut taints: Vec<Value>, changes: &[Change], overwrite: bool) -> anyhow::Result<Vec<Value>> {
    for change in changes {
        match change {
            Change::Remove { key, effect } => {
                let before = taints.len();
                taints.retain(|taint| {
                    text(taint, "/key") != key
                        || effect.as_ref().is_some_and(|effect| text(taint, "/effect") != effect)
                });
                if taints.len() == before {
                    let effect = effect.as_ref().map(|effect| format!(":{effect}")).unwrap_or_default();
                    bail!("taint \"{key}{effect}\" not found");
                }
            }
            Change::Set { key, value, effect } => {
                let same = |taint: &Value| text(taint, "/key") == key && text(taint, "/effect") == effect;
                let other = taints.iter().find(|taint| same(taint) && text(taint, "/value") != value);
                if other.is_some() && !overwrite {
                    bail!("already has {key} taint(s) with same effect(s) and --overwrite is false");
                }
                taints.retain(|taint| !same(taint));
                let mut taint = json!({"key": key, "effect": effect});
                if !value.is_empty() {
                    taint["value"] = value.as_str().into();
                }
                taints.push(taint);
            }
        }
    }
    Ok(taints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_set_replaced_and_removed() {
        let parse = |word: &str| Change::parse(word).unwrap();
        let set = changed(Vec::new(), &[parse("a=b:NoSchedule"), parse("c:NoExecute")], false).unwrap();
        assert_eq!(
            set,
            [
                json!({"key": "a", "value": "b", "effect": "NoSchedule"}),
                json!({"key": "c", "effect": "NoExecute"})
            ]
        );
        assert!(changed(set.clone(), &[parse("a=x:NoSchedule")], false).is_err());
        assert_eq!(changed(set.clone(), &[parse("a-")], false).unwrap().len(), 1);
        assert!(changed(set, &[parse("c:NoSchedule-")], false).is_err());
        assert!(Change::parse("a=b:Never").unwrap_err().to_string().contains("NoSchedule"));
    }
}
