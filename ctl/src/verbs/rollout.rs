//! `rollout`: how a workload gets from one version to the next, and back.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::api::PatchKind;
use crate::cli::{Selection, Span};
use crate::describe::page::Page;
use crate::session::{Session, Target};
use crate::tree::flag;
use crate::verbs::follow;

const REVISION: &str = "deployment.kubernetes.io/revision";
const CAUSE: &str = "kubernetes.io/change-cause";

/// What can be done with rollouts.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Follow the latest rollout until it is done, or say why it is not
    Status(StatusOptions),
    /// List the versions
    History(HistoryOptions),
    /// Go back to the version before, or to a numbered one
    Undo(UndoOptions),
    /// Replace every pod by a new one of the same version
    Restart(Which),
    /// Let changes gather without effect
    Pause(Which),
    /// Let the gathered changes take effect
    Resume(Which),
}

/// Which workloads.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// Kinds and names
    pub what: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
}

/// The flags of `rollout status`.
#[derive(Args, Clone, Debug)]
pub struct StatusOptions {
    #[command(flatten)]
    pub which: Which,
    /// Go on until it is done
    #[arg(short, long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub watch: bool,
    /// How long to follow; 0 is as long as it takes
    #[arg(long, default_value = "0", value_name = "TIME")]
    pub timeout: Span,
}

/// The flags of `rollout history`.
#[derive(Args, Clone, Debug)]
pub struct HistoryOptions {
    #[command(flatten)]
    pub which: Which,
    /// The pod template of one version
    #[arg(long, value_name = "NUMBER")]
    pub revision: Option<u64>,
}

/// The flags of `rollout undo`.
#[derive(Args, Clone, Debug)]
pub struct UndoOptions {
    #[command(flatten)]
    pub which: Which,
    /// The version to go to; 0 is the one before
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub to_revision: u64,
}

/// Runs the verb.
pub async fn run(session: &Session, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Status(options) => {
            let targets = targets(session, &options.which).await?;
            if options.watch {
                follow::all(session, &targets, options.timeout.0).await?;
            } else {
                for target in targets {
                    println!("{}", follow::progress(&session.api.get(&target.path()).await?)?.text());
                }
            }
        }
        Command::History(options) => {
            for target in targets(session, &options.which).await? {
                history(session, &target, options.revision).await?;
            }
        }
        Command::Undo(options) => {
            for target in targets(session, &options.which).await? {
                undo(session, &target, options.to_revision).await?;
            }
        }
        Command::Restart(which) => {
            for target in targets(session, which).await? {
                if flag(&session.api.get(&target.path()).await?, "/spec/paused") {
                    let (kind, name) = (target.resource.qualified(), &target.name);
                    bail!(
                        "error: {kind} \"{name}\" can't restart paused deployment (run rollout resume first)"
                    );
                }
            }
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let patch = json!({"spec": {"template": {"metadata": {"annotations": {
                "kubectl.kubernetes.io/restartedAt": now}}}}});
            change(session, which, &patch, "restarted").await?;
        }
        Command::Pause(which) => change(session, which, &json!({"spec": {"paused": true}}), "paused").await?,
        Command::Resume(which) => {
            change(session, which, &json!({"spec": {"paused": null}}), "resumed").await?
        }
    }
    Ok(())
}

async fn targets(session: &Session, which: &Which) -> anyhow::Result<Vec<Target>> {
    let targets = session.targets(&which.what, &which.selection).await?;
    if let Some(other) = targets.iter().find(|target| !follow::is_followed(&target.resource.kind)) {
        bail!("error: {} has no rollouts; deployments, daemon sets and stateful sets have", other.reported());
    }
    Ok(targets)
}

async fn change(session: &Session, which: &Which, patch: &Value, done: &str) -> anyhow::Result<()> {
    for target in targets(session, which).await? {
        session
            .api
            .patch(&format!("{}?fieldManager=ctl-rollout", target.path()), PatchKind::Merge, patch)
            .await?;
        println!("{} {done}", target.reported());
    }
    Ok(())
}

/// The versions of a workload, oldest first: number, cause, and pod template.
async fn versions(session: &Session, target: &Target) -> anyhow::Result<Vec<(u64, String, Value)>> {
    let owner = session.api.get(&target.path()).await?;
    let uid = owner.pointer("/metadata/uid").cloned().unwrap_or_default();
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let deployment = target.resource.kind == "Deployment";
    let plural = if deployment { "replicasets" } else { "controllerrevisions" };
    let list = session.api.get(&format!("/apis/apps/v1/namespaces/{namespace}/{plural}")).await?;
    let mut versions = Vec::new();
    for item in list["items"].as_array().into_iter().flatten() {
        let owners = item.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        if !owners.into_iter().flatten().any(|reference| reference["uid"] == uid) {
            continue;
        }
        let annotations = &item["metadata"]["annotations"];
        let (number, template) = if deployment {
            (
                annotations[REVISION].as_str().and_then(|text| text.parse().ok()),
                item["spec"]["template"].clone(),
            )
        } else {
            (item["revision"].as_u64(), item["data"]["spec"]["template"].clone())
        };
        let Some(number) = number else { continue };
        versions.push((number, annotations[CAUSE].as_str().unwrap_or("<none>").to_string(), template));
    }
    versions.sort_by_key(|(number, ..)| *number);
    Ok(versions)
}

async fn history(session: &Session, target: &Target, revision: Option<u64>) -> anyhow::Result<()> {
    let versions = versions(session, target).await?;
    if let Some(wanted) = revision {
        let found = versions.iter().find(|(number, ..)| *number == wanted);
        let (_, _, template) =
            found.with_context(|| format!("error: unable to find the specified revision {wanted}"))?;
        println!("{} with revision #{wanted}", target.reported());
        print!("{}", crate::describe::template(template));
        println!();
        return Ok(());
    }
    println!("{} ", target.reported());
    let mut page = Page::default();
    page.line(0, "REVISION\tCHANGE-CAUSE");
    for (number, cause, _) in versions {
        page.line(0, format!("{number}\t{cause}"));
    }
    println!("{}", page.finish());
    Ok(())
}

async fn undo(session: &Session, target: &Target, to: u64) -> anyhow::Result<()> {
    let versions = versions(session, target).await?;
    let found = match to {
        0 => versions.len().checked_sub(2).and_then(|index| versions.get(index)),
        number => versions.iter().find(|version| version.0 == number),
    };
    let Some((number, _, template)) = found else {
        bail!(
            "error: {}",
            if to == 0 {
                "no rollout history found".to_string()
            } else {
                format!("unable to find specified revision {to} in history")
            }
        );
    };
    let now = session.api.get(&target.path()).await?;
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove("pod-template-hash");
    }
    if now.pointer("/spec/template") == Some(&template) {
        println!(
            "{} skipped rollback (current template already matches revision {number})",
            target.reported()
        );
        return Ok(());
    }
    let mut patch = vec![json!({"op": "replace", "path": "/spec/template", "value": template})];
    // Whoever changed it meanwhile is not overwritten.
    patch.insert(0, json!({"op": "test", "path": "/metadata/uid", "value": now["metadata"]["uid"]}));
    session
        .api
        .patch(&format!("{}?fieldManager=ctl-rollout", target.path()), PatchKind::Json, &json!(patch))
        .await?;
    println!("{} rolled back", target.reported());
    Ok(())
}
