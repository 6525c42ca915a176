//! `set image`: other images for the containers of whatever holds a pod template.

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::api::PatchKind;
use crate::cli::Selection;
use crate::session::{Session, Target};

/// What can be set.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Other images: `set image deployment/web web=web:v2`
    Image(ImageOptions),
}

/// The flags of `set image`.
#[derive(Args, Clone, Debug)]
pub struct ImageOptions {
    /// Kinds and names, then container=image; `*` is every container
    #[arg(required = true)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
}

/// Runs the verb.
pub async fn run(session: &Session, command: &Command) -> anyhow::Result<()> {
    let Command::Image(options) = command;
    let first_change =
        options.words.iter().position(|word| word.contains('=')).unwrap_or(options.words.len());
    let (what, changes) = options.words.split_at(first_change);
    if changes.is_empty() {
        bail!("error: at least one change such as container=image is required");
    }
    let changes: Vec<(&str, &str)> = changes.iter().filter_map(|change| change.split_once('=')).collect();
    for target in session.targets(what, &options.selection).await? {
        set_images(session, &target, &changes).await?;
    }
    Ok(())
}

async fn set_images(session: &Session, target: &Target, changes: &[(&str, &str)]) -> anyhow::Result<()> {
    let object = session.api.get(&target.path()).await?;
    let place = pod_spec(&target.resource.kind);
    let spec = object.pointer(place).unwrap_or(&Value::Null);
    let mut patch = json!({});
    let mut changed = false;
    for (container, image) in changes {
        let mut found = false;
        for kind in ["containers", "initContainers"] {
            for existing in spec[kind].as_array().into_iter().flatten() {
                let name = existing["name"].as_str().unwrap_or_default();
                if *container != "*" && name != *container {
                    continue;
                }
                found = true;
                changed |= existing["image"] != *image;
                let list = patch.as_object_mut().map(|patch| patch.entry(kind).or_insert_with(|| json!([])));
                if let Some(list) = list.and_then(Value::as_array_mut) {
                    list.push(json!({"name": name, "image": image}));
                }
            }
        }
        if !found {
            bail!("error: unable to find container named \"{container}\" in {}", target.reported());
        }
    }
    if !changed {
        return Ok(());
    }
    // The patch as it stands in the object: wrapped once per step of the path.
    for step in place.rsplit('/').filter(|step| !step.is_empty()) {
        patch = json!({step: patch});
    }
    session
        .api
        .patch(&format!("{}?fieldManager=ctl-set", target.path()), PatchKind::Strategic, &patch)
        .await?;
    println!("{} image updated", target.reported());
    Ok(())
}

/// Where a kind keeps the spec of its pods.
pub fn pod_spec(kind: &str) -> &'static str {
    match kind {
        "Pod" => "/spec",
        "CronJob" => "/spec/jobTemplate/spec/template/spec",
        _ => "/spec/template/spec",
    }
}
