//! `set`: parts of whatever holds a pod template: images, variables, resources, the service account.

mod env;
mod resources;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::api::PatchKind;
use crate::cli::Selection;
use crate::session::{Session, Target};
use crate::writing::Writing;

/// What can be set.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Other images: `set image deployment/web web=web:v2`
    Image(ImageOptions),
    /// Variables: `set env deployment/web A=b C-`
    Env(env::Options),
    /// What containers ask for: `set resources deployment/web --limits=cpu=200m`
    Resources(resources::ResourcesOptions),
    /// As whom pods run: `set serviceaccount deployment/web robot`
    #[command(name = "serviceaccount", visible_alias = "sa")]
    ServiceAccount(resources::ServiceAccountOptions),
}

/// The flags of `set image`.
#[derive(Args, Clone, Debug)]
pub struct ImageOptions {
    /// Kinds and names, then container=image; `*` is every container
    #[arg(required = true)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// Every object of the kind in the namespace
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub writing: Writing,
}

/// Runs the verb.
pub async fn run(session: &Session, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Image(options) => image(session, options).await,
        Command::Env(options) => env::run(session, options).await,
        Command::Resources(options) => resources::run(session, options).await,
        Command::ServiceAccount(options) => resources::service_account(session, options).await,
    }
}

async fn image(session: &Session, options: &ImageOptions) -> anyhow::Result<()> {
    let first_change =
        options.words.iter().position(|word| word.contains('=')).unwrap_or(options.words.len());
    let (what, changes) = options.words.split_at(first_change);
    if changes.is_empty() {
        bail!("error: at least one change such as container=image is required");
    }
    let changes: Vec<(&str, &str)> = changes.iter().filter_map(|change| change.split_once('=')).collect();
    for target in session.chosen(what, &options.selection, options.all).await? {
        set_images(session, &target, &changes, &options.writing).await?;
    }
    Ok(())
}

async fn set_images(
    session: &Session,
    target: &Target,
    changes: &[(&str, &str)],
    writing: &Writing,
) -> anyhow::Result<()> {
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
    send(session, target, wrapped(place, patch), writing, "image updated").await
}

async fn send(
    session: &Session,
    target: &Target,
    patch: Value,
    writing: &Writing,
    done: &str,
) -> anyhow::Result<()> {
    if writing.dry_run.is_client() {
        let object = session.api.get(&target.path()).await?;
        return writing.tell(&object, &target.reported(), done);
    }
    let path = format!("{}?{}", target.path(), writing.query("ctl-set"));
    let (after, _) = session.api.patch(&path, PatchKind::Strategic, &patch).await?;
    writing.tell(&after, &target.reported(), done)
}

/// A patch as it stands in the object: wrapped once per step of the path to it.
fn wrapped(place: &str, mut patch: Value) -> Value {
    for step in place.rsplit('/').filter(|step| !step.is_empty()) {
        patch = json!({step: patch});
    }
    patch
}

/// Which containers are meant.
struct Containers(String);

impl Containers {
    fn parse(text: &str) -> Self {
        Self(text.to_string())
    }

    fn mean(&self, name: &str) -> bool {
        self.0 == "*" || self.0.split(',').any(|one| one == name)
    }
}

/// Changes every container that is meant by what a function makes of it, if it makes anything.
async fn change(
    session: &Session,
    target: &Target,
    containers: &Containers,
    writing: &Writing,
    done: &str,
    of_container: impl Fn(&Value) -> Option<Value>,
) -> anyhow::Result<()> {
    let object = session.api.get(&target.path()).await?;
    let place = pod_spec(&target.resource.kind);
    let mut patch = json!({});
    let mut found = false;
    for kind in ["containers", "initContainers"] {
        let all = object.pointer(place).and_then(|spec| spec[kind].as_array()).into_iter().flatten();
        let meant = all.filter(|container| containers.mean(container["name"].as_str().unwrap_or_default()));
        let mut changed = Vec::new();
        for container in meant {
            found = true;
            if let Some(mut part) = of_container(container) {
                part["name"] = container["name"].clone();
                changed.push(part);
            }
        }
        if !changed.is_empty() {
            patch[kind] = changed.into();
        }
    }
    if !found {
        bail!("error: {} has no container named \"{}\"", target.reported(), containers.0);
    }
    if patch.as_object().is_some_and(|patch| patch.is_empty()) {
        return Ok(());
    }
    send(session, target, wrapped(place, patch), writing, done).await
}

/// Where a kind keeps the spec of its pods.
pub fn pod_spec(kind: &str) -> &'static str {
    match kind {
        "Pod" => "/spec",
        "CronJob" => "/spec/jobTemplate/spec/template/spec",
        _ => "/spec/template/spec",
    }
}
