//! Removes pods that nobody else would: those bound to nodes that are gone, those that are being deleted but were never bound,
//! those stuck on nodes declared out of service, and the oldest finished ones beyond a limit.
//!
//! A node must be missing for a while, and also from the server itself, before its pods go.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::patch::update_status;
use client::{Change, Forgive, Informer, Outcome, queue};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use tracing::info;

use crate::common::pod_control::delete_exactly;
use crate::common::{Context, ReconcileError, Reconciled, pods};

const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// A sweep after something happened waits a little, so that it covers more.
const SETTLE: Duration = Duration::from_millis(500);
const CHECK_AGAIN: Duration = Duration::from_secs(20);
const REST: Duration = Duration::from_secs(300);

#[derive(Debug, PartialEq, Clone, Copy)]
enum Why {
    NodeGone,
    NeverBound,
    OutOfService,
    TooMany,
}

#[derive(Debug, Default)]
struct Plan {
    delete: Vec<(Arc<Pod>, Why)>,
    /// Something waits for its quarantine to end.
    waiting: bool,
}

/// Runs the controller until shutdown.
pub(crate) async fn run(context: Context) {
    let pods = context.all::<Pod>();
    let nodes = context.all::<Node>();
    let queue = context.queue::<()>("pod-gc");
    if !(pods.synced().await && nodes.synced().await) {
        return;
    }
    let enqueue = queue.clone();
    nodes.on_change(move |change| {
        if !matches!(change, Change::Modified { .. }) {
            enqueue.add_after((), SETTLE);
        }
    });
    let (enqueue, known) = (queue.clone(), nodes.clone());
    pods.on_change(move |change| {
        let pod = change.object();
        let node = pods::node_name(pod);
        let stranded =
            if node.is_empty() { pods::is_terminating(pod) } else { known.get("", node).is_none() };
        if stranded && !matches!(change, Change::Deleted(_)) {
            enqueue.add_after((), SETTLE);
        }
    });
    queue.add(());
    let missing_since: Arc<Mutex<HashMap<String, Timestamp>>> = Arc::default();
    queue::run(queue, 1, move |()| {
        let (context, pods, nodes, missing) =
            (context.clone(), pods.clone(), nodes.clone(), missing_since.clone());
        async move { sweep(&context, &pods, &nodes, &missing).await }
    })
    .await;
}

async fn sweep(
    context: &Context,
    pods: &Informer<Pod>,
    nodes: &Informer<Node>,
    missing_since: &Mutex<HashMap<String, Timestamp>>,
) -> Reconciled {
    let now = context.now();
    let plan = {
        let mut missing = missing_since.lock();
        decide(&pods.list(), &nodes.list(), &mut missing, context.config.terminated_pods_max, now)
    };
    let mut confirmed: HashMap<String, bool> = HashMap::new();
    for (pod, why) in plan.delete {
        if why == Why::NodeGone {
            let node = pods::node_name(&pod).to_string();
            let gone = match confirmed.get(&node) {
                Some(gone) => *gone,
                None => {
                    let gone = context.cluster_api::<Node>().get_opt(&node).await?.is_none();
                    confirmed.insert(node, gone);
                    gone
                }
            };
            if !gone {
                continue;
            }
        }
        remove(context, &pod, why).await?;
    }
    Ok(Outcome::RequeueAfter(if plan.waiting { CHECK_AGAIN } else { REST }))
}

fn decide(
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    missing_since: &mut HashMap<String, Timestamp>,
    finished_max: usize,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let known: HashSet<String> = nodes.iter().map(|node| node.name_any()).collect();
    let out_of_service: HashSet<String> =
        nodes.iter().filter(|node| is_out_of_service(node)).map(|node| node.name_any()).collect();
    let used: HashSet<&str> = pods.iter().map(|pod| pods::node_name(pod)).collect();
    missing_since.retain(|node, _| !known.contains(node) && used.contains(node.as_str()));
    let mut finished = Vec::new();
    for pod in pods {
        let node = pods::node_name(pod);
        if node.is_empty() {
            if pods::is_terminating(pod) {
                plan.delete.push((pod.clone(), Why::NeverBound));
            }
        } else if !known.contains(node) {
            let since = *missing_since.entry(node.to_string()).or_insert(now);
            if now.duration_since(since) >= QUARANTINE {
                plan.delete.push((pod.clone(), Why::NodeGone));
                continue;
            }
            plan.waiting = true;
        } else if out_of_service.contains(node) && pods::is_terminating(pod) {
            plan.delete.push((pod.clone(), Why::OutOfService));
            continue;
        }
        if pods::is_finished(pod) && !pods::is_terminating(pod) {
            finished.push(pod.clone());
        }
    }
    if finished_max > 0 && finished.len() > finished_max {
        let surplus = finished.len() - finished_max;
        finished.sort_by_key(|pod| pod.creation_timestamp().map(|time| time.0));
        plan.delete.extend(finished.into_iter().take(surplus).map(|pod| (pod, Why::TooMany)));
    }
    plan
}

fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let ready = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready =
        ready.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    !is_ready && taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

/// Deletes a pod for good. One that had not finished is failed first, so that its owner does not take it for a success.
async fn remove(context: &Context, pod: &Arc<Pod>, why: Why) -> Result<(), ReconcileError> {
    let api: Api<Pod> = context.api(&pod.namespace().unwrap_or_default());
    if !pods::is_finished(pod) && matches!(why, Why::NodeGone | Why::OutOfService) {
        let mut failed =
            pods::disrupted(pod, "DeletionByPodGC", "PodGC: node no longer exists", context.now());
        failed.status.get_or_insert_default().phase = Some("Failed".into());
        if update_status(&api, pod.as_ref(), &failed).await.if_found()?.is_none() {
            return Ok(());
        }
    }
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    if delete_exactly(&api, pod, at_once).await?.is_some() {
        info!(pod = %pod.name_any(), ?why, "removed a stranded pod");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, running_pod};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn node(name: &str) -> Arc<Node> {
        let mut node = Node::default();
        node.metadata.name = Some(name.into());
        Arc::new(node)
    }

    fn verdicts(plan: &Plan) -> Vec<(&str, Why)> {
        plan.delete.iter().map(|(pod, why)| (pods::name(pod), *why)).collect()
    }

    #[test]
    fn pods_of_a_node_that_is_gone_wait_for_its_quarantine() {
        let pods = [Arc::new(running_pod("a", "gone")), Arc::new(running_pod("b", "here"))];
        let (nodes, mut missing) = ([node("here")], HashMap::new());
        let first = decide(&pods, &nodes, &mut missing, 0, at(0));
        assert!(first.delete.is_empty() && first.waiting);
        let second = decide(&pods, &nodes, &mut missing, 0, at(40));
        assert_eq!(verdicts(&second), [("a", Why::NodeGone)]);
        let back = decide(&pods, &[node("here"), node("gone")], &mut missing, 0, at(41));
        assert!(back.delete.is_empty() && missing.is_empty());
    }

    #[test]
    fn unbound_pods_being_deleted_go_at_once_and_surplus_finished_ones_oldest_first() {
        let mut unbound = running_pod("unbound", "");
        unbound.metadata.deletion_timestamp = Some(Time(at(0)));
        let finished = |name: &str, created| {
            let mut pod = running_pod(name, "here");
            pod.metadata.creation_timestamp = Some(Time(at(created)));
            pod.status.as_mut().unwrap().phase = Some("Succeeded".into());
            Arc::new(pod)
        };
        let pods = [Arc::new(unbound), finished("young", 9), finished("old", 1)];
        let plan = decide(&pods, &[node("here")], &mut HashMap::new(), 1, at(10));
        assert_eq!(verdicts(&plan), [("unbound", Why::NeverBound), ("old", Why::TooMany)]);
    }
}
