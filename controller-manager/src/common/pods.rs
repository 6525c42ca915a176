//! What a pod's state means to a controller. Pure.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::seconds;

pub(crate) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn labels(pod: &Pod) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    pod.metadata.labels.as_ref().unwrap_or(&NONE)
}

pub(crate) fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether the pod has run to its end, well or badly.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod counts as a running replica, now or soon.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

pub(crate) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when the pod has been ready.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready")
        .filter(|ready| ready.status == "True")
        .and_then(|ready| ready.last_transition_time.as_ref())
        .map(|time| time.0)
}

/// When a ready pod is or becomes available; `None` while it is not ready.
pub(crate) fn available_at(pod: &Pod, min_ready_s: i32) -> Option<Timestamp> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_s <= 0 {
        return Some(Timestamp::UNIX_EPOCH);
    }
    ready_since(pod).map(|since| since + seconds(min_ready_s))
}

/// Whether the pod has been ready for long enough.
pub(crate) fn is_available(pod: &Pod, min_ready_s: i32, now: Timestamp) -> bool {
    available_at(pod, min_ready_s).is_some_and(|at| at <= now)
}

/// The pod with the condition that says who ended it and why.
pub(crate) fn disrupted(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> Pod {
    let mut pod = pod.clone();
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    });
    pod
}

/// The restarts of the container that restarted most.
fn restarts_max(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|container| container.restart_count).max().unwrap_or(0)
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(DELETION_COST)).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// Ages are compared by their order of magnitude, so that scaling down spreads over pods of a similar age.
fn age_bucket(since: Option<Timestamp>, now: Timestamp) -> Option<u32> {
    since.map(|since| now.duration_since(since).as_secs().max(1).unsigned_abs().ilog2())
}

/// Orders pods so that those to delete first come first. `crowd` says how many replicas share a pod's node.
pub(crate) fn sort_for_deletion(pods: &mut [Arc<Pod>], crowd: impl Fn(&Pod) -> usize, now: Timestamp) {
    pods.sort_by(|a, b| deletion_order(a, b, &crowd, now));
}

fn deletion_order(a: &Pod, b: &Pod, crowd: &impl Fn(&Pod) -> usize, now: Timestamp) -> Ordering {
    let phase_rank = |pod: &Pod| match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let (ready_a, ready_b) = (is_ready(a), is_ready(b));
    (!node_name(a).is_empty())
        .cmp(&!node_name(b).is_empty())
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| ready_a.cmp(&ready_b))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| Reverse(crowd(a)).cmp(&Reverse(crowd(b))))
        .then_with(|| {
            match (ready_a && ready_b, age_bucket(ready_since(a), now), age_bucket(ready_since(b), now)) {
                (true, Some(age_a), Some(age_b)) => age_a.cmp(&age_b),
                _ => Ordering::Equal,
            }
        })
        .then_with(|| Reverse(restarts_max(a)).cmp(&Reverse(restarts_max(b))))
        .then_with(|| age_bucket(created(a), now).cmp(&age_bucket(created(b), now)))
        .then_with(|| uid(a).cmp(uid(b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, ready_pod, running_pod};

    #[test]
    fn pods_that_serve_least_are_deleted_first() {
        let pending = Arc::new(Pod::default());
        let running = Arc::new(running_pod("running", "n1"));
        let mut cheap = ready_pod("cheap", "n1", at(0));
        cheap.metadata.annotations = Some([(DELETION_COST.to_string(), "-5".to_string())].into());
        let cheap = Arc::new(cheap);
        let crowded = Arc::new(ready_pod("crowded", "n2", at(0)));
        let old = Arc::new(ready_pod("old", "n1", at(0)));
        let young = Arc::new(ready_pod("young", "n1", at(9_990)));
        let mut pods = [&old, &young, &crowded, &cheap, &running, &pending].map(Arc::clone);
        sort_for_deletion(&mut pods, |pod| if node_name(pod) == "n2" { 2 } else { 1 }, at(10_000));
        let names: Vec<_> = pods.iter().map(|pod| name(pod)).collect();
        assert_eq!(names, ["", "running", "cheap", "crowded", "young", "old"]);
    }

    #[test]
    fn a_pod_is_available_only_after_min_ready_seconds() {
        let pod = ready_pod("a", "n", at(100));
        assert!(is_available(&pod, 0, at(100)));
        assert!(!is_available(&pod, 10, at(109)));
        assert!(is_available(&pod, 10, at(110)));
    }
}
