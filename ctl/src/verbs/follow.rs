//! Rollouts, followed to their end.
//!
//! On a terminal every workload has a line that is kept up to date, with what holds its pods back below it. Elsewhere
//! every change is a line, one workload after the other.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::Value;

use crate::AlreadyTold;
use crate::describe::events::last_seen;
use crate::session::{Session, Target, escape};
use crate::tree::{items, number, text};

const POLL: Duration = Duration::from_millis(200);
/// How many pods that are held back are told about under a workload.
const HELD_SHOWN: usize = 3;

/// Whether a kind has rollouts that can be followed.
pub fn is_followed(kind: &str) -> bool {
    ["Deployment", "DaemonSet", "StatefulSet"].contains(&kind)
}

/// Where a rollout stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is done.
    Done(String),
    /// It goes on.
    Waiting(String),
}

impl Progress {
    /// In kubectl's words.
    pub fn text(&self) -> &str {
        match self {
            Self::Done(text) | Self::Waiting(text) => text,
        }
    }
}

/// Where the rollout of a workload stands; an error once it cannot get on.
pub fn progress(object: &Value) -> anyhow::Result<Progress> {
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

/// Follows rollouts to their ends.
pub async fn all(session: &Session, targets: &[Target], timeout: Duration) -> anyhow::Result<()> {
    if std::io::stdout().is_terminal() {
        return live(session, targets, timeout).await;
    }
    for target in targets {
        one(session, target, timeout).await?;
    }
    Ok(())
}

/// One rollout, a line per change.
async fn one(session: &Session, target: &Target, timeout: Duration) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut last = String::new();
    loop {
        let object = session.api.get(&target.path()).await?;
        let progress = match progress(&object) {
            Ok(progress) => progress,
            Err(error) => {
                let why = told(&held_back(session, target, &object).await);
                bail!("error: {error}{why}");
            }
        };
        if progress.text() != last {
            last = progress.text().to_string();
            println!("{last}");
        }
        if matches!(progress, Progress::Done(_)) {
            return Ok(());
        }
        if !timeout.is_zero() && begun.elapsed() > timeout {
            let why = told(&held_back(session, target, &object).await);
            bail!("error: timed out waiting for {}{why}", target.reported());
        }
        tokio::time::sleep(POLL).await;
    }
}

fn told(reasons: &[String]) -> String {
    reasons.iter().map(|reason| format!("\n  {reason}")).collect()
}

/// A workload's place in the live view.
#[derive(Debug)]
struct Row {
    name: String,
    state: State,
    counts: String,
    held: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Going,
    Done(String),
    Failed(String),
}

/// All rollouts at once, in place.
async fn live(session: &Session, targets: &[Target], timeout: Duration) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut painted = 0;
    let mut rows: Vec<Row> = targets
        .iter()
        .map(|target| Row {
            name: target.reported(),
            state: State::Going,
            counts: String::new(),
            held: Vec::new(),
        })
        .collect();
    loop {
        for (row, target) in rows.iter_mut().zip(targets) {
            if row.state == State::Going {
                look(session, target, row).await?;
            }
        }
        let late = !timeout.is_zero() && begun.elapsed() > timeout;
        let width =
            rustix::termios::tcgetwinsize(std::io::stdout()).map_or(80, |size| usize::from(size.ws_col));
        painted = paint(&lines(&rows, begun.elapsed(), width.max(20)), painted)?;
        let going = rows.iter().filter(|row| row.state == State::Going).count();
        if late && going > 0 {
            bail!("error: timed out waiting for {going} of {} rollouts", rows.len());
        }
        if going == 0 {
            let failed = rows.iter().any(|row| matches!(row.state, State::Failed(_)));
            return if failed { Err(AlreadyTold(1).into()) } else { Ok(()) };
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn look(session: &Session, target: &Target, row: &mut Row) -> anyhow::Result<()> {
    let object = session.api.get(&target.path()).await?;
    row.counts = counts(&object);
    match progress(&object) {
        Ok(Progress::Done(text)) => {
            row.state = State::Done(text);
            row.held.clear();
        }
        Ok(Progress::Waiting(_)) => row.held = held_back(session, target, &object).await,
        Err(error) => {
            row.held = held_back(session, target, &object).await;
            row.state = State::Failed(format!("{error:#}"));
        }
    }
    Ok(())
}

/// `2/3 updated, 1/3 available`
fn counts(object: &Value) -> String {
    let of = |field: &str| number(object, &format!("/status/{field}"));
    let (wanted, updated, available) = if object["kind"] == "DaemonSet" {
        (of("desiredNumberScheduled"), of("updatedNumberScheduled"), of("numberAvailable"))
    } else {
        let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
        (wanted, of("updatedReplicas"), of("availableReplicas"))
    };
    let old = of("replicas") - updated;
    let old = if object["kind"] == "Deployment" && old > 0 { format!(", {old} old") } else { String::new() };
    format!("{updated}/{wanted} updated, {available}/{wanted} available{old}")
}

/// The lines of the view, none longer than the terminal is wide.
fn lines(rows: &[Row], elapsed: Duration, width: usize) -> Vec<String> {
    let longest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for row in rows {
        let name = format!("{:longest$}", row.name);
        lines.push(match &row.state {
            State::Going => format!("  {name}  {}  {}s", row.counts, elapsed.as_secs()),
            State::Done(text) => format!("\u{2713} {name}  {text}"),
            State::Failed(text) => format!("\u{2717} {name}  {text}"),
        });
        lines.extend(row.held.iter().take(HELD_SHOWN).map(|held| format!("      {held}")));
        if row.held.len() > HELD_SHOWN {
            lines.push(format!("      and {} more", row.held.len() - HELD_SHOWN));
        }
    }
    lines.into_iter().map(|line| shortened(&line, width)).collect()
}

fn shortened(line: &str, width: usize) -> String {
    let line = line.replace(['\n', '\r', '\t'], " ");
    if line.chars().count() < width {
        return line;
    }
    let kept: String = line.chars().take(width.saturating_sub(2)).collect();
    format!("{kept}\u{2026}")
}

/// Writes lines over those painted before; answers how many there are now.
fn paint(lines: &[String], painted: usize) -> anyhow::Result<usize> {
    let mut text = String::new();
    if painted > 0 {
        text.push_str(&format!("\x1b[{painted}A"));
    }
    // From here to the end of the screen nothing of the old lines stays.
    text.push_str("\r\x1b[J");
    lines.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(lines.len())
}

/// What holds new pods back, as the workload, their containers and conditions say; for pods that say nothing, their last
/// warning.
async fn held_back(session: &Session, target: &Target, object: &Value) -> Vec<String> {
    let selector = crate::tree::selector(&object["spec"]["selector"]);
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={}", escape(&selector));
    let pods = session.api.get(&path).await.unwrap_or_default();
    let mut held: Vec<String> = items(object, "/status/conditions")
        .filter(|condition| condition["type"] == "ReplicaFailure" && condition["status"] == "True")
        .map(|condition| format!("{}: {}", text(condition, "/reason"), text(condition, "/message")))
        .collect();
    let (telling, silent): (Vec<&Value>, Vec<&Value>) =
        items(&pods, "/items").partition(|pod| is_ready(pod) || !reasons(pod).is_empty());
    held.extend(telling.into_iter().flat_map(reasons));
    if !silent.is_empty() {
        let selector = escape("type=Warning,involvedObject.kind=Pod");
        let path = format!("/api/v1/namespaces/{namespace}/events?fieldSelector={selector}");
        let events = session.api.get(&path).await.unwrap_or_default();
        held.extend(silent.into_iter().filter_map(|pod| last_warning(pod, &events)));
    }
    held
}

fn is_ready(pod: &Value) -> bool {
    items(pod, "/status/conditions")
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn last_warning(pod: &Value, events: &Value) -> Option<String> {
    let ours =
        items(events, "/items").filter(|event| event["involvedObject"]["uid"] == pod["metadata"]["uid"]);
    let last = ours.max_by_key(|event| last_seen(event))?;
    let name = text(pod, "/metadata/name");
    Some(format!("pod {name}: {}: {}", text(last, "/reason"), text(last, "/message").trim()))
}

fn reasons(pod: &Value) -> Vec<String> {
    let name = text(pod, "/metadata/name");
    let mut all = Vec::new();
    for kind in ["initContainerStatuses", "containerStatuses"] {
        for container in items(pod, &format!("/status/{kind}")) {
            let (reason, message) =
                (text(container, "/state/waiting/reason"), text(container, "/state/waiting/message"));
            // These are the ordinary way of things.
            if reason.is_empty() || ["ContainerCreating", "PodInitializing"].contains(&reason) {
                continue;
            }
            let colon = if message.is_empty() { "" } else { ": " };
            all.push(format!("pod {name}: {reason}{colon}{message}"));
        }
    }
    for condition in items(pod, "/status/conditions") {
        if condition["type"] == "PodScheduled" && condition["status"] == "False" {
            all.push(format!("pod {name}: {}: {}", text(condition, "/reason"), text(condition, "/message")));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
    fn the_view_has_a_line_per_workload_and_what_holds_it_back() {
        let row = |name: &str, state: State, held: Vec<String>| Row {
            name: name.into(),
            state,
            counts: counts(&deployment(2, 4, 1)),
            held,
        };
        let rows = [
            row(
                "deployment.apps/web",
                State::Going,
                (0..5).map(|n| format!("pod web-{n}: ErrImagePull")).collect(),
            ),
            row("deployment.apps/db", State::Done("done".into()), Vec::new()),
        ];
        let text = lines(&rows, Duration::from_secs(7), 100);
        assert_eq!(text[0], "  deployment.apps/web  2/3 updated, 1/3 available, 2 old  7s");
        assert_eq!(text[1], "      pod web-0: ErrImagePull");
        assert_eq!(text[4], "      and 2 more");
        assert_eq!(text[5], "\u{2713} deployment.apps/db   done");
        assert!(lines(&rows, Duration::ZERO, 30).iter().all(|line| line.chars().count() < 30));
    }

    #[test]
    fn a_pod_that_cannot_start_says_why() {
        let pod = json!({"metadata": {"name": "w"}, "status": {
            "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}},
                {"state": {"waiting": {"reason": "ContainerCreating"}}}],
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]}});
        assert_eq!(
            reasons(&pod),
            ["pod w: ImagePullBackOff: no such image", "pod w: Unschedulable: 0/1 nodes"]
        );
    }

    #[test]
    fn of_a_pod_that_says_nothing_the_last_warning_is_told() {
        let pod = json!({"metadata": {"name": "w", "uid": "1"}});
        let event = |uid: &str, at: &str, message: &str| json!({"involvedObject": {"uid": uid}, "lastTimestamp": at, "reason": "FailedMount", "message": message});
        let events = json!({"items": [event("1", "2026-01-01T00:00:09Z", "no such secret"),
            event("1", "2026-01-01T00:00:01Z", "old"), event("2", "2026-01-01T00:00:11Z", "other")]});
        assert_eq!(last_warning(&pod, &events).unwrap(), "pod w: FailedMount: no such secret");
        assert_eq!(last_warning(&json!({"metadata": {"name": "x", "uid": "3"}}), &events), None);
    }

    #[test]
    fn a_rollout_past_its_deadline_is_an_error() {
        let mut stuck = deployment(1, 4, 3);
        stuck["status"]["conditions"] =
            json!([{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]);
        assert!(progress(&stuck).is_err());
    }
}
