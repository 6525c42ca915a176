//! Which daemon pods to create and delete. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use kube::ResourceExt;

use super::{nodes, rolling};
use crate::common::conditions::{seconds, until};
use crate::common::history::REVISION_HASH;
use crate::common::{pod_control::BURST_MAX, pods};

/// A daemon's failed pod is replaced at most this often.
const FAILED_KEPT_S: i64 = 10;

/// What a decision is made from.
pub(super) struct Snapshot<'a> {
    pub set: &'a DaemonSet,
    pub nodes: &'a [Arc<Node>],
    pub pods: &'a [Arc<Pod>],
    /// Hash of the present template.
    pub hash: &'a str,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
    pub status: DaemonSetStatus,
    pub recheck: Option<Duration>,
}

pub(super) fn is_present(pod: &Pod, hash: &str) -> bool {
    pods::labels(pod).get(REVISION_HASH).map(String::as_str) == Some(hash)
}

pub(super) fn min_ready_s(set: &DaemonSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

/// The spec that decides where pods go.
fn daemon_spec(set: &DaemonSet) -> PodSpec {
    let template = set.spec.as_ref().and_then(|spec| spec.template.spec.clone());
    let mut spec = template.unwrap_or_default();
    nodes::add_tolerations(&mut spec);
    spec
}

/// The pods by the node they are on or meant for.
fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut map: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        if let Some(node) = pod.spec.as_ref().and_then(nodes::target_node) {
            map.entry(node).or_default().push(pod.clone());
        }
    }
    map
}

pub(super) fn decide(snapshot: &Snapshot<'_>, now: Timestamp) -> Plan {
    let spec = daemon_spec(snapshot.set);
    let pods = by_node(snapshot.pods);
    let mut plan = Plan::default();
    let surging = rolling::limits(snapshot.set, snapshot.nodes.len()).surge > 0;
    for node in snapshot.nodes {
        let fit = nodes::fit(&spec, node);
        let here = pods.get(&node.name_any()).map(Vec::as_slice).unwrap_or_default();
        place(&node.name_any(), fit, here, &mut plan, &|pod| surging && is_present(pod, snapshot.hash), now);
    }
    // Pods for nodes that do not exist are left to pod garbage collection once bound; unbound ones wait in vain.
    let known: HashMap<String, ()> = snapshot.nodes.iter().map(|node| (node.name_any(), ())).collect();
    let strays = pods.iter().filter(|(node, _)| !known.contains_key(*node)).flat_map(|(_, pods)| pods);
    plan.delete
        .extend(strays.filter(|pod| pods::node_name(pod).is_empty() && !pods::is_terminating(pod)).cloned());
    if plan.create.is_empty() && plan.delete.is_empty() {
        let here: Vec<String> = snapshot
            .nodes
            .iter()
            .filter(|node| nodes::fit(&spec, node).run)
            .map(|node| node.name_any())
            .collect();
        rolling::roll(snapshot, &here, &pods, &mut plan, now);
    }
    plan.create.truncate(BURST_MAX);
    plan.delete.truncate(BURST_MAX);
    plan.status = status(snapshot, &spec, &pods, now);
    let next = snapshot.pods.iter().filter_map(|pod| pods::available_at(pod, min_ready_s(snapshot.set)));
    let next = next.filter(|at| *at > now).min().map(|at| until(at, now) + Duration::from_millis(10));
    plan.recheck = match (plan.recheck, next) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    plan
}

/// One living pod where one belongs, none where none may stay. Pods that are `extra` are there beside the others for a while.
fn place(
    node: &str,
    fit: nodes::Fit,
    here: &[Arc<Pod>],
    plan: &mut Plan,
    extra: &dyn Fn(&Pod) -> bool,
    now: Timestamp,
) {
    let staying: Vec<&Arc<Pod>> = here.iter().filter(|pod| !pods::is_terminating(pod)).collect();
    if !fit.stay {
        plan.delete.extend(staying.into_iter().cloned());
        return;
    }
    let mut living: Vec<&Arc<Pod>> = Vec::new();
    for pod in staying {
        if !pods::is_finished(pod) {
            living.push(pod);
            continue;
        }
        let created = pod.creation_timestamp().map_or(now, |time| time.0);
        let replace_at = created + seconds(FAILED_KEPT_S);
        if replace_at <= now {
            plan.delete.push(pod.clone());
        } else {
            plan.recheck = Some(until(replace_at, now));
        }
    }
    // The oldest stays, one that is bound before one that is not.
    living.sort_by_key(|pod| (pods::node_name(pod).is_empty(), pod.creation_timestamp().map(|time| time.0)));
    let (extra, usual): (Vec<_>, Vec<_>) = living.into_iter().partition(|pod| extra(pod));
    plan.delete.extend(extra.into_iter().skip(1).chain(usual.into_iter().skip(1)).cloned());
    if fit.run && here.is_empty() {
        plan.create.push(node.to_string());
    }
}

fn status(
    snapshot: &Snapshot<'_>,
    spec: &PodSpec,
    pods: &BTreeMap<String, Vec<Arc<Pod>>>,
    now: Timestamp,
) -> DaemonSetStatus {
    let old = snapshot.set.status.clone().unwrap_or_default();
    let (mut desired, mut scheduled, mut misscheduled, mut ready, mut available, mut updated) =
        (0, 0, 0, 0, 0, 0);
    for node in snapshot.nodes {
        let here = pods.get(&node.name_any()).map(Vec::as_slice).unwrap_or_default();
        if !nodes::fit(spec, node).run {
            misscheduled += i32::from(!here.is_empty());
            continue;
        }
        desired += 1;
        let mut by_age: Vec<_> = here.to_vec();
        by_age.sort_by_key(|pod| (pods::is_terminating(pod), pod.creation_timestamp().map(|time| time.0)));
        // Beside an available pod another one may be on its way.
        let best = by_age.iter().find(|pod| pods::is_available(pod, min_ready_s(snapshot.set), now));
        let Some(pod) = best.or(by_age.first()) else { continue };
        scheduled += 1;
        if pods::is_ready(pod) {
            ready += 1;
            available += i32::from(pods::is_available(pod, min_ready_s(snapshot.set), now));
        }
        updated += i32::from(is_present(pod, snapshot.hash));
    }
    DaemonSetStatus {
        current_number_scheduled: scheduled,
        number_misscheduled: misscheduled,
        desired_number_scheduled: desired,
        number_ready: ready,
        updated_number_scheduled: Some(updated).filter(|count| *count > 0),
        number_available: Some(available).filter(|count| *count > 0),
        number_unavailable: Some(desired - available).filter(|count| *count > 0),
        observed_generation: snapshot.set.metadata.generation.max(old.observed_generation),
        ..old
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{at, labelled, ready_pod, running_pod};

    fn set() -> DaemonSet {
        serde_json::from_value(json!({"metadata": {"name": "ds"}, "spec": {
            "selector": {}, "template": {"spec": {"containers": []}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}}}))
        .unwrap()
    }

    fn nodes(names: &[&str]) -> Vec<Arc<Node>> {
        names
            .iter()
            .map(|name| Arc::new(serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()))
            .collect()
    }

    fn daemon(name: &str, node: &str, hash: &str) -> Arc<Pod> {
        Arc::new(labelled(ready_pod(name, node, at(0)), REVISION_HASH, hash))
    }

    fn plan(nodes: &[Arc<Node>], pods: &[Arc<Pod>], second: i64) -> Plan {
        decide(&Snapshot { set: &set(), nodes, pods, hash: "new" }, at(second))
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().map(|pod| pods::name(pod)).collect()
    }

    #[test]
    fn every_node_gets_one_pod_and_no_more() {
        let nodes = nodes(&["a", "b"]);
        let pods = [daemon("old", "a", "new"), daemon("second", "a", "new")];
        let plan = plan(&nodes, &pods, 1);
        assert_eq!(plan.create, ["b"]);
        assert_eq!(names(&plan.delete), ["second"]);
        assert_eq!((plan.status.desired_number_scheduled, plan.status.current_number_scheduled), (2, 1));
    }

    #[test]
    fn an_update_replaces_unavailable_pods_at_once_and_others_within_the_limit() {
        let nodes = nodes(&["a", "b", "c"]);
        let available = [daemon("a", "a", "old"), daemon("b", "b", "old"), daemon("c", "c", "old")];
        assert_eq!(names(&plan(&nodes, &available, 1).delete), ["a"]);
        let broken = Arc::new(labelled(running_pod("b", "b"), REVISION_HASH, "old"));
        let mixed = [daemon("a", "a", "old"), broken, daemon("c", "c", "new")];
        assert_eq!(names(&plan(&nodes, &mixed, 1).delete), ["b"]);
    }

    #[test]
    fn with_surge_a_new_pod_is_available_before_the_old_one_goes() {
        let mut set = set();
        let strategy =
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
        set.spec.as_mut().unwrap().update_strategy = Some(serde_json::from_value(strategy).unwrap());
        let nodes = nodes(&["a", "b"]);
        let plan =
            |pods: &[Arc<Pod>]| decide(&Snapshot { set: &set, nodes: &nodes, pods, hash: "new" }, at(1));
        let (a, b) = (daemon("a", "a", "old"), daemon("b", "b", "old"));
        let first = plan(&[a.clone(), b.clone()]);
        assert_eq!((first.create, first.delete.len()), (vec!["a".to_string()], 0));
        let starting = Arc::new(labelled(running_pod("a2", "a"), REVISION_HASH, "new"));
        let waiting = plan(&[a.clone(), b.clone(), starting]);
        assert_eq!((waiting.create.len(), waiting.delete.len()), (0, 0));
        let ready = plan(&[a, b, daemon("a2", "a", "new")]);
        assert_eq!((ready.create, names(&ready.delete)), (vec!["b".to_string()], vec!["a"]));
    }

    #[test]
    fn a_failed_pod_is_replaced_after_a_while() {
        let nodes = nodes(&["a"]);
        let mut failed = labelled(running_pod("failed", "a"), REVISION_HASH, "new");
        failed.status.as_mut().unwrap().phase = Some("Failed".into());
        let pods = [Arc::new(failed)];
        let early = plan(&nodes, &pods, 1);
        assert!(early.delete.is_empty() && early.recheck.is_some());
        assert_eq!(names(&plan(&nodes, &pods, 10).delete), ["failed"]);
    }
}
