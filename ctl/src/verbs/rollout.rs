//! `rollout`: how a workload gets from one version to the next, and back.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::api::PatchKind;
use crate::cli::{Selection, Span};
use crate::output::table::Layout;
use crate::session::{Session, Target, escape};

const REVISION: &str = "deployment.kubernetes.io/revision";
const CAUSE: &str = "kubernetes.io/change-cause";
const POLL: Duration = Duration::from_millis(100);

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
            for target in targets(session, &options.which).await? {
                if options.watch {
                    follow(session, &target, options.timeout.0).await?;
                } else {
                    println!("{}", progress(&session.api.get(&target.path()).await?)?.text());
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

/// Whether a kind has rollouts that can be followed.
pub fn is_followed(kind: &str) -> bool {
    ["Deployment", "DaemonSet", "StatefulSet"].contains(&kind)
}

async fn targets(session: &Session, which: &Which) -> anyhow::Result<Vec<Target>> {
    let targets = session.targets(&which.what, &which.selection).await?;
    if let Some(other) = targets.iter().find(|target| !is_followed(&target.resource.kind)) {
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

/// Where a rollout stands.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Done(String),
    Waiting(String),
}

impl Progress {
    fn text(&self) -> &str {
        match self {
            Self::Done(text) | Self::Waiting(text) => text,
        }
    }
}

/// Follows a rollout to its end. On a terminal one line is kept up to date, elsewhere every change is a line.
pub async fn follow(session: &Session, target: &Target, timeout: Duration) -> anyhow::Result<()> {
    let begun = Instant::now();
    let live = std::io::stdout().is_terminal();
    let mut last = String::new();
    loop {
        let object = session.api.get(&target.path()).await?;
        let progress = match progress(&object) {
            Ok(progress) => progress,
            Err(error) => {
                let why = reasons(session, target, &object).await;
                return Err(error.context(format!("error: {} did not get on{why}", target.reported())));
            }
        };
        if progress.text() != last {
            last = progress.text().to_string();
            show(&last, live, matches!(progress, Progress::Done(_)))?;
        }
        if matches!(progress, Progress::Done(_)) {
            return Ok(());
        }
        if !timeout.is_zero() && begun.elapsed() > timeout {
            if live {
                println!();
            }
            let why = reasons(session, target, &object).await;
            bail!("error: timed out waiting for {}{why}", target.reported());
        }
        tokio::time::sleep(POLL).await;
    }
}

fn show(text: &str, live: bool, last: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if live {
        write!(out, "\r\x1b[K{text}{}", if last { "\n" } else { "" })?;
    } else {
        writeln!(out, "{text}")?;
    }
    Ok(out.flush()?)
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

fn progress(object: &Value) -> anyhow::Result<Progress> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or_default();
    let waiting = |text: String| Ok(Progress::Waiting(text));
    if number(object, "/metadata/generation") > number(object, "/status/observedGeneration") {
        return waiting(format!("Waiting for {} spec update to be observed...", kind.to_ascii_lowercase()));
    }
    match kind {
        "Deployment" => deployment_progress(object, name),
        "DaemonSet" => {
            let wanted = number(object, "/status/desiredNumberScheduled");
            let updated = number(object, "/status/updatedNumberScheduled");
            let available = number(object, "/status/numberAvailable");
            if updated < wanted {
                return waiting(format!(
                    "Waiting for daemon set \"{name}\" rollout to finish: {updated} out of {wanted} new pods have been updated..."
                ));
            }
            if available < wanted {
                return waiting(format!(
                    "Waiting for daemon set \"{name}\" rollout to finish: {available} of {wanted} updated pods are available..."
                ));
            }
            Ok(Progress::Done(format!("daemon set \"{name}\" successfully rolled out")))
        }
        _ => {
            let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
            let ready = number(object, "/status/readyReplicas");
            let updated = number(object, "/status/updatedReplicas");
            if ready < wanted {
                return waiting(format!("Waiting for {} pods to be ready...", wanted - ready));
            }
            let partition = number(object, "/spec/updateStrategy/rollingUpdate/partition");
            if updated < wanted - partition {
                return waiting(format!(
                    "waiting for statefulset rolling update to complete {updated} pods at revision {}...",
                    object["status"]["updateRevision"].as_str().unwrap_or_default()
                ));
            }
            Ok(Progress::Done(format!(
                "statefulset rolling update complete {wanted} pods at revision {}...",
                object["status"]["currentRevision"].as_str().unwrap_or_default()
            )))
        }
    }
}

fn deployment_progress(object: &Value, name: &str) -> anyhow::Result<Progress> {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let stuck = conditions
        .into_iter()
        .any(|c| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded");
    if stuck {
        bail!("deployment \"{name}\" exceeded its progress deadline");
    }
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let updated = number(object, "/status/updatedReplicas");
    let all = number(object, "/status/replicas");
    let available = number(object, "/status/availableReplicas");
    let begin = format!("Waiting for deployment \"{name}\" rollout to finish:");
    if updated < wanted {
        return Ok(Progress::Waiting(format!(
            "{begin} {updated} out of {wanted} new replicas have been updated..."
        )));
    }
    if all > updated {
        return Ok(Progress::Waiting(format!(
            "{begin} {} old replicas are pending termination...",
            all - updated
        )));
    }
    if available < updated {
        return Ok(Progress::Waiting(format!(
            "{begin} {available} of {updated} updated replicas are available..."
        )));
    }
    Ok(Progress::Done(format!("deployment \"{name}\" successfully rolled out")))
}

/// What holds the new pods back, as their containers say.
async fn reasons(session: &Session, target: &Target, object: &Value) -> String {
    let Some(labels) = object.pointer("/spec/selector/matchLabels").and_then(Value::as_object) else {
        return String::new();
    };
    let pairs: Vec<String> =
        labels.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={}", escape(&pairs.join(",")));
    let Ok(pods) = session.api.get(&path).await else { return String::new() };
    let mut lines = Vec::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        for container in
            pod.pointer("/status/containerStatuses").and_then(Value::as_array).into_iter().flatten()
        {
            let waiting = &container["state"]["waiting"];
            if let Some(reason) = waiting["reason"].as_str() {
                let message = waiting["message"].as_str().unwrap_or_default();
                lines.push(format!("\n  pod {name}: {reason}: {message}"));
            }
        }
        for condition in pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten() {
            if condition["type"] == "PodScheduled" && condition["status"] == "False" {
                lines.push(format!("\n  pod {name}: {}", condition["message"].as_str().unwrap_or_default()));
            }
        }
    }
    lines.concat()
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
    let mut layout = Layout::new(&["REVISION", "CHANGE-CAUSE"]);
    for (number, cause, _) in versions {
        layout.row(vec![number.to_string(), cause]);
    }
    println!("{}", layout.render(false));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(updated: i64, all: i64, available: i64) -> Value {
        json!({"kind": "Deployment", "metadata": {"name": "web", "generation": 2},
            "spec": {"replicas": 3},
            "status": {"observedGeneration": 2, "updatedReplicas": updated, "replicas": all, "availableReplicas": available}})
    }

    #[test]
    fn a_rollout_is_done_only_when_every_replica_is_new_and_available() {
        assert!(
            matches!(progress(&deployment(2, 4, 3)).unwrap(), Progress::Waiting(t) if t.contains("2 out of 3"))
        );
        assert!(
            matches!(progress(&deployment(3, 4, 3)).unwrap(), Progress::Waiting(t) if t.contains("1 old"))
        );
        assert!(
            matches!(progress(&deployment(3, 3, 2)).unwrap(), Progress::Waiting(t) if t.contains("2 of 3"))
        );
        assert!(matches!(progress(&deployment(3, 3, 3)).unwrap(), Progress::Done(_)));
    }

    #[test]
    fn a_rollout_past_its_deadline_is_an_error() {
        let mut stuck = deployment(1, 4, 3);
        stuck["status"]["conditions"] =
            json!([{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]);
        assert!(progress(&stuck).is_err());
    }
}
