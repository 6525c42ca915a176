//! What makes pods: deployments, replica sets, daemon sets, stateful sets, jobs and cron jobs.

use serde_json::Value;

use super::page::{Page, or_none, or_unset, time};
use super::pod::{controller, template};
use crate::session::{Session, escape};
use crate::tree::{flag, items, labels, listed, number, selector, shown, text};

const REVISION: &str = "/metadata/annotations/deployment.kubernetes.io~1revision";
const CONDITIONS: &[(&str, &str)] = &[("Type", "type"), ("Status", "status"), ("Reason", "reason")];

/// Writes a deployment.
pub async fn deployment(session: &Session, object: &Value, page: &mut Page) {
    page.named(object);
    page.field("CreationTimestamp", time(text(object, "/metadata/creationTimestamp")));
    page.marks(object);
    page.field("Selector", selector(&object["spec"]["selector"]));
    let of = |field: &str| number(object, &format!("/status/{field}"));
    page.field(
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            wanted(object),
            of("updatedReplicas"),
            of("replicas"),
            of("availableReplicas"),
            of("unavailableReplicas")
        ),
    );
    page.field("StrategyType", text(object, "/spec/strategy/type"));
    page.field("MinReadySeconds", number(object, "/spec/minReadySeconds").to_string());
    if let Some(rolling) =
        object.pointer("/spec/strategy/rollingUpdate").filter(|rolling| rolling.is_object())
    {
        page.field(
            "RollingUpdateStrategy",
            format!(
                "{} max unavailable, {} max surge",
                shown(rolling, "/maxUnavailable"),
                shown(rolling, "/maxSurge")
            ),
        );
    }
    template(&object["spec"]["template"], page);
    conditions(object, page);
    replica_sets(session, object, page).await;
}

fn wanted(object: &Value) -> i64 {
    object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1)
}

fn conditions(object: &Value, page: &mut Page) {
    if items(object, "/status/conditions").next().is_none() {
        return;
    }
    page.line(0, "Conditions:");
    page.heading(1, "Type\tStatus\tReason");
    for condition in items(object, "/status/conditions") {
        let cells: Vec<&str> =
            CONDITIONS.iter().map(|(_, field)| condition[*field].as_str().unwrap_or("")).collect();
        page.line(1, cells.join("\t").replacen('\t', " \t", 1));
    }
}

async fn replica_sets(session: &Session, object: &Value, page: &mut Page) {
    let namespace = text(object, "/metadata/namespace");
    let path = format!("/apis/apps/v1/namespaces/{namespace}/replicasets");
    let Ok(list) = session.api.get(&path).await else { return };
    let ours = |set: &&Value| {
        items(set, "/metadata/ownerReferences").any(|owner| owner["uid"] == object["metadata"]["uid"])
    };
    let (new, old): (Vec<&Value>, Vec<&Value>) =
        items(&list, "/items").filter(ours).partition(|set| text(set, REVISION) == text(object, REVISION));
    if new.is_empty() && old.is_empty() {
        return;
    }
    for (title, mut sets) in [("OldReplicaSets", old), ("NewReplicaSet", new)] {
        sets.sort_by_key(|set| text(set, REVISION).parse::<u64>().unwrap_or_default());
        let told: Vec<String> = sets
            .into_iter()
            .map(|set| {
                format!(
                    "{} ({}/{} replicas created)",
                    text(set, "/metadata/name"),
                    number(set, "/status/replicas"),
                    wanted(set)
                )
            })
            .collect();
        page.field(title, or_none(&told.join(", ")));
    }
}

/// Writes a replica set or a replication controller.
pub async fn replica_set(session: &Session, object: &Value, page: &mut Page) {
    page.named(object);
    page.field("Selector", pod_selector(object));
    page.marks(object);
    page.field_if("Controlled By", controller(object));
    page.field(
        "Replicas",
        format!("{} current / {} desired", number(object, "/status/replicas"), wanted(object)),
    );
    pods_status(session, object, page).await;
    template(&object["spec"]["template"], page);
    conditions(object, page);
}

/// Writes a daemon set.
pub async fn daemon_set(session: &Session, object: &Value, page: &mut Page) {
    page.named(object);
    page.field("Selector", pod_selector(object));
    page.field("Node-Selector", labels(object, "/spec/template/spec/nodeSelector"));
    page.marks(object);
    for (title, field) in [
        ("Desired Number of Nodes Scheduled", "desiredNumberScheduled"),
        ("Current Number of Nodes Scheduled", "currentNumberScheduled"),
        ("Number of Nodes Scheduled with Up-to-date Pods", "updatedNumberScheduled"),
        ("Number of Nodes Scheduled with Available Pods", "numberAvailable"),
        ("Number of Nodes Misscheduled", "numberMisscheduled"),
    ] {
        page.line(0, format!("{title}: {}", number(object, &format!("/status/{field}"))));
    }
    pods_status(session, object, page).await;
    template(&object["spec"]["template"], page);
}

/// Writes a stateful set.
pub async fn stateful_set(session: &Session, object: &Value, page: &mut Page) {
    page.named(object);
    page.field("CreationTimestamp", time(text(object, "/metadata/creationTimestamp")));
    page.field("Selector", pod_selector(object));
    page.marks(object);
    page.field(
        "Replicas",
        format!("{} desired | {} total", wanted(object), number(object, "/status/replicas")),
    );
    page.field("Update Strategy", text(object, "/spec/updateStrategy/type"));
    let partition = shown(object, "/spec/updateStrategy/rollingUpdate/partition");
    if !partition.is_empty() {
        page.line(1, format!("Partition:\t{partition}"));
    }
    pods_status(session, object, page).await;
    template(&object["spec"]["template"], page);
    claims(object, page);
}

fn claims(object: &Value, page: &mut Page) {
    if items(object, "/spec/volumeClaimTemplates").next().is_none() {
        page.field("Volume Claims", "<none>");
        return;
    }
    page.line(0, "Volume Claims:");
    for claim in items(object, "/spec/volumeClaimTemplates") {
        page.line(1, format!("Name:\t{}", text(claim, "/metadata/name")));
        page.line(1, format!("StorageClass:\t{}", text(claim, "/spec/storageClassName")));
        page.labels("  Labels", claim, "/metadata/labels");
        page.annotations("  Annotations", claim, "/metadata/annotations");
        page.line(1, format!("Capacity:\t{}", or_none(&shown(claim, "/spec/resources/requests/storage"))));
        page.line(1, format!("Access Modes:\t{}", listed(claim, "/spec/accessModes")));
    }
}

/// Writes a job.
pub fn job(object: &Value, page: &mut Page) {
    page.named(object);
    page.field("Selector", selector(&object["spec"]["selector"]));
    page.marks(object);
    page.field_if("Controlled By", controller(object));
    page.field_if("Parallelism", shown(object, "/spec/parallelism"));
    page.field("Completions", or_unset(&shown(object, "/spec/completions")));
    page.field_if("Completion Mode", text(object, "/spec/completionMode"));
    page.field_if("Suspend", shown(object, "/spec/suspend"));
    page.field_if("Backoff Limit", shown(object, "/spec/backoffLimit"));
    page.field_if("TTL Seconds After Finished", shown(object, "/spec/ttlSecondsAfterFinished"));
    let (start, end) = (text(object, "/status/startTime"), text(object, "/status/completionTime"));
    if !start.is_empty() {
        page.field("Start Time", time(start));
    }
    if !end.is_empty() {
        page.field("Completed At", time(end));
        page.field_if("Duration", between(start, end));
    }
    let deadline = shown(object, "/spec/activeDeadlineSeconds");
    if !deadline.is_empty() {
        page.field("Active Deadline Seconds", format!("{deadline}s"));
    }
    let of = |field: &str| number(object, &format!("/status/{field}"));
    let ready = match shown(object, "/status/ready").as_str() {
        "" => String::new(),
        ready => format!(" ({ready} Ready)"),
    };
    let (active, succeeded, failed) = (of("active"), of("succeeded"), of("failed"));
    page.field("Pods Statuses", format!("{active} Active{ready} / {succeeded} Succeeded / {failed} Failed"));
    if object["spec"]["completionMode"] == "Indexed" {
        page.field("Completed Indexes", or_none(text(object, "/status/completedIndexes")));
    }
    template(&object["spec"]["template"], page);
}

fn between(start: &str, end: &str) -> String {
    match (start.parse::<jiff::Timestamp>(), end.parse::<jiff::Timestamp>()) {
        (Ok(start), Ok(end)) => api::humanize::duration(end.duration_since(start).as_secs()),
        _ => String::new(),
    }
}

/// Writes a cron job.
pub fn cron_job(object: &Value, page: &mut Page) {
    page.head(object);
    page.field("Schedule", text(object, "/spec/schedule"));
    page.field("Concurrency Policy", text(object, "/spec/concurrencyPolicy"));
    page.field("Suspend", if flag(object, "/spec/suspend") { "True" } else { "False" });
    page.field("Time Zone", or_unset(&shown(object, "/spec/timeZone")));
    page.field("Successful Job History Limit", or_unset(&shown(object, "/spec/successfulJobsHistoryLimit")));
    page.field("Failed Job History Limit", or_unset(&shown(object, "/spec/failedJobsHistoryLimit")));
    let deadline = shown(object, "/spec/startingDeadlineSeconds");
    let deadline = if deadline.is_empty() { deadline } else { format!("{deadline}s") };
    page.field("Starting Deadline Seconds", or_unset(&deadline));
    let job = &object["spec"]["jobTemplate"]["spec"];
    let job_selector =
        if job["selector"].is_object() { selector(&job["selector"]) } else { "<unset>".into() };
    page.field("Selector", job_selector);
    page.field("Parallelism", or_unset(&shown(job, "/parallelism")));
    page.field("Completions", or_unset(&shown(job, "/completions")));
    template(&job["template"], page);
    page.field("Last Schedule Time", time(text(object, "/status/lastScheduleTime")));
    let active: Vec<&str> = items(object, "/status/active").map(|job| text(job, "/name")).collect();
    page.field("Active Jobs", or_none(&active.join(", ")));
}

/// The selector, of whichever of the two forms.
fn pod_selector(object: &Value) -> String {
    if object["kind"] == "ReplicationController" {
        return labels(object, "/spec/selector");
    }
    selector(&object["spec"]["selector"])
}

/// How many of the pods are in which phase.
async fn pods_status(session: &Session, object: &Value, page: &mut Page) {
    let namespace = text(object, "/metadata/namespace");
    let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={}", escape(&pod_selector(object)));
    let pods = match session.api.get(&path).await {
        Ok(pods) => pods,
        Err(error) => return page.field("Pods Status", format!("error in fetching pods: {error}")),
    };
    let of = |phase: &str| {
        items(&pods, "/items")
            .filter(|pod| {
                items(pod, "/metadata/ownerReferences")
                    .any(|owner| owner["controller"] == true && owner["uid"] == object["metadata"]["uid"])
            })
            .filter(|pod| text(pod, "/status/phase") == phase)
            .count()
    };
    page.field(
        "Pods Status",
        format!(
            "{} Running / {} Waiting / {} Succeeded / {} Failed",
            of("Running"),
            of("Pending"),
            of("Succeeded"),
            of("Failed")
        ),
    );
}

/// Writes an autoscaler.
pub fn autoscaler(object: &Value, page: &mut Page) {
    page.head(object);
    page.field("CreationTimestamp", time(text(object, "/metadata/creationTimestamp")));
    let kind = text(object, "/spec/scaleTargetRef/kind");
    page.field("Reference", format!("{kind}/{}", text(object, "/spec/scaleTargetRef/name")));
    page.field("Metrics", "( current / target )");
    let status: Vec<&Value> = items(object, "/status/currentMetrics").collect();
    for (index, metric) in items(object, "/spec/metrics").enumerate() {
        page.line(1, self::metric(metric, status.get(index).copied().unwrap_or(&Value::Null)));
    }
    page.field("Min replicas", or_unset(&shown(object, "/spec/minReplicas")));
    page.field("Max replicas", shown(object, "/spec/maxReplicas"));
    let (current, desired) =
        (number(object, "/status/currentReplicas"), number(object, "/status/desiredReplicas"));
    page.field(&format!("{kind} pods"), format!("{current} current / {desired} desired"));
    if items(object, "/status/conditions").next().is_some() {
        page.line(0, "Conditions:");
        page.heading(1, "Type\tStatus\tReason\tMessage");
    }
    for condition in items(object, "/status/conditions") {
        let cells = ["/type", "/status", "/reason", "/message"].map(|field| text(condition, field));
        page.line(1, cells.join("\t"));
    }
}

fn metric(metric: &Value, status: &Value) -> String {
    let unknown = |text: String| if text.is_empty() { "<unknown>".to_string() } else { text };
    let source = |kind: &str| (metric[kind]["target"].clone(), status[kind]["current"].clone());
    let kind = text(metric, "/type");
    let field = match kind {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        _ => "external",
    };
    let (target, current) = source(field);
    let subject = match kind {
        "Resource" => format!("resource {} on pods", text(metric, "/resource/name")),
        "ContainerResource" => format!(
            "resource {} of container \"{}\" on pods",
            text(metric, "/containerResource/name"),
            text(metric, "/containerResource/container")
        ),
        _ => format!("\"{}\"", text(metric, &format!("/{field}/metric/name"))),
    };
    if !target["averageUtilization"].is_null() {
        let now = match shown(&current, "/averageUtilization").as_str() {
            "" => "<unknown>".to_string(),
            percent => format!("{percent}% ({})", shown(&current, "/averageValue")),
        };
        return format!(
            "{subject}  (as a percentage of request):\t{now} / {}%",
            shown(&target, "/averageUtilization")
        );
    }
    let of = |tree: &Value| {
        let average = shown(tree, "/averageValue");
        if average.is_empty() { shown(tree, "/value") } else { average }
    };
    format!("{subject}:\t{} / {}", unknown(of(&current)), of(&target))
}

/// Writes a disruption budget.
pub fn disruption_budget(object: &Value, page: &mut Page) {
    page.named(object);
    page.field_if("Min available", shown(object, "/spec/minAvailable"));
    page.field_if("Max unavailable", shown(object, "/spec/maxUnavailable"));
    page.field("Selector", selector(&object["spec"]["selector"]));
    page.line(0, "Status:");
    for (title, field) in [
        ("Allowed disruptions", "disruptionsAllowed"),
        ("Current", "currentHealthy"),
        ("Desired", "desiredHealthy"),
        ("Total", "expectedPods"),
    ] {
        page.line(2, format!("{title}:\t{}", number(object, &format!("/status/{field}"))));
    }
}
