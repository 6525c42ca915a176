//! Watches nodes' signs of life, taints nodes by their conditions, and evicts pods that do not tolerate it.
//!
//! A node's silence is measured on this process's clock, from when it last saw the node's lease or Ready condition move, so
//! clocks of nodes do not matter and a restart of this process gives every node its full grace again. While no node at all
//! is ready nothing is evicted: then the fault is more likely ours. Not yet: eviction rates per zone.

mod eviction;
mod health;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::patch::{update, update_status};
use client::{
    Change, ErrorExt, EventRecorder, EventType, Index, Informer, ObjectKey, Outcome, Queue, Scope, queue,
};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use tracing::{info, warn};

use crate::common::conditions::until;
use crate::common::{Context, ReconcileError, Reconciled, pods};
use health::{Health, Sign};

const LEASES: &str = "kube-node-lease";
const WORKERS: usize = 4;

/// Runs the controller until shutdown.
pub(crate) async fn run(context: Context) {
    let nodes = context.all::<Node>();
    let pods = context.all::<Pod>();
    let leases: Informer<Lease> = context.informers.get(Scope::namespace(LEASES));
    let by_node = pods.by_node();
    if !(nodes.synced().await && pods.synced().await && leases.synced().await) {
        return;
    }
    let node_queue = context.queue::<String>("node-lifecycle");
    let pod_queue = context.queue::<ObjectKey>("taint-eviction");
    watch(&nodes, &leases, &pods, &by_node, &node_queue, &pod_queue);
    let recorder = context.recorder("node-controller");
    let (health, leaving) = Default::default();
    let shell = Arc::new(Shell { context, nodes, leases, pods, by_node, recorder, health, leaving });
    tokio::join!(
        queue::run_on(node_queue, WORKERS, shell.clone(), Shell::reconcile_node),
        queue::run_on(pod_queue, WORKERS, shell, Shell::reconcile_pod),
    );
}

fn watch(
    nodes: &Informer<Node>,
    leases: &Informer<Lease>,
    pods: &Informer<Pod>,
    by_node: &Index<Pod>,
    node_queue: &Queue<String>,
    pod_queue: &Queue<ObjectKey>,
) {
    let (enqueue, enqueue_pod, by_node) = (node_queue.clone(), pod_queue.clone(), by_node.clone());
    nodes.on_change(move |change| {
        let node = change.object();
        enqueue.add(node.name_any());
        let taints = |node: &Arc<Node>| eviction::evicting_taints(node);
        let before = match change {
            Change::Modified { old, .. } => taints(old),
            _ => Vec::new(),
        };
        if before != taints(node) {
            for pod in by_node.get(&node.name_any()) {
                enqueue_pod.add(ObjectKey::of(pod.as_ref()));
            }
        }
    });
    leases.feed(node_queue, ResourceExt::name_any);
    let (enqueue, enqueue_pod, nodes) = (node_queue.clone(), pod_queue.clone(), nodes.clone());
    pods.on_change(move |change| {
        let pod = change.object();
        let bound_now = change.old().is_none_or(|old| pods::node_name(old) != pods::node_name(pod));
        let Some(node) = nodes.get("", pods::node_name(pod)) else { return };
        if !eviction::evicting_taints(&node).is_empty() {
            enqueue_pod.add(ObjectKey::of(pod.as_ref()));
        }
        // A pod bound to a silent node has to be marked not ready, too.
        if bound_now {
            enqueue.add(node.name_any());
        }
    });
}

struct Shell {
    context: Context,
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Informer<Pod>,
    by_node: Index<Pod>,
    recorder: EventRecorder,
    health: Mutex<HashMap<String, Health>>,
    /// The pods that tolerate a taint for a while, and since when.
    leaving: Mutex<HashMap<ObjectKey, Timestamp>>,
}

impl Shell {
    async fn reconcile_node(self: Arc<Self>, name: String) -> Reconciled {
        let name = name.as_str();
        let Some(node) = self.nodes.get("", name) else {
            self.health.lock().remove(name);
            return Ok(Outcome::Done);
        };
        let now = self.context.now();
        let sign = Sign::of(&node, self.leases.get(LEASES, name).as_deref());
        let seen_at = {
            let mut known = self.health.lock();
            let health = known.entry(name.to_string()).or_insert_with(|| Health::new(sign.clone(), now));
            health.observe(sign, now);
            health.seen_at
        };
        let grace = self.context.config.node_monitor_grace;
        let deadline = seen_at + jiff::SignedDuration::try_from(grace).unwrap_or(jiff::SignedDuration::MAX);
        let silent = now >= deadline;
        let mut current = node.as_ref().clone();
        if silent {
            current = self.report_silence(&node, current).await?;
        }
        self.taint(&node, &current).await?;
        if health::ready_status(&current) != "True" {
            self.mark_pods_not_ready(&current).await?;
        }
        // A silent node is looked at when it moves again.
        Ok(if silent {
            Outcome::Done
        } else {
            Outcome::RequeueAfter(until(deadline, now) + Duration::from_millis(100))
        })
    }

    async fn report_silence(&self, node: &Arc<Node>, current: Node) -> Result<Node, ReconcileError> {
        let mut changed = current.clone();
        if !health::make_unknown(&mut changed, self.context.now()) {
            return Ok(current);
        }
        let name = node.name_any();
        warn!(node = %name, "node stopped posting its status");
        let api: Api<Node> = self.context.cluster_api();
        let updated = update_status(&api, &current, &changed).await?;
        let message = format!("Node {name} status is now: NodeNotReady");
        self.recorder.record(node.as_ref(), EventType::Normal, "NodeNotReady", message);
        Ok(updated.unwrap_or(changed))
    }

    async fn taint(&self, node: &Arc<Node>, current: &Node) -> Result<(), ReconcileError> {
        let others_ready = self.nodes.list().iter().any(|other| health::ready_status(other) == "True");
        let mut changed = current.clone();
        if !health::set_taints(&mut changed, others_ready, self.context.now()) {
            return Ok(());
        }
        let api: Api<Node> = self.context.cluster_api();
        update(&api, current, &changed).await?;
        let keys: Vec<String> = changed
            .spec
            .iter()
            .flat_map(|spec| spec.taints.iter().flatten())
            .map(|taint| taint.key.clone())
            .collect();
        info!(node = %node.name_any(), taints = ?keys, "node's taints follow its conditions");
        Ok(())
    }

    /// Services must stop sending to pods whose node may be dead.
    async fn mark_pods_not_ready(&self, node: &Node) -> Result<(), ReconcileError> {
        for pod in self.by_node.get(&node.name_any()) {
            if !pods::is_ready(&pod) {
                continue;
            }
            let mut changed = pod.as_ref().clone();
            let conditions =
                changed.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
            for condition in conditions.filter(|condition| condition.type_ == "Ready") {
                condition.status = "False".into();
                condition.last_transition_time = Some(Time(self.context.now()));
            }
            let api: Api<Pod> = self.context.api(&pod.namespace().unwrap_or_default());
            match update_status(&api, pod.as_ref(), &changed).await {
                Ok(_) => {
                    self.recorder.record(
                        pod.as_ref(),
                        EventType::Warning,
                        "NodeNotReady",
                        "Node is not ready",
                    );
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn reconcile_pod(self: Arc<Self>, key: ObjectKey) -> Reconciled {
        let pod = self.pods.get_key(&key);
        let node = pod.as_ref().and_then(|pod| self.nodes.get("", pods::node_name(pod)));
        let now = self.context.now();
        let seen = self.leaving.lock().get(&key).copied().unwrap_or(now);
        let decision = match (&pod, &node) {
            (Some(pod), Some(node)) => eviction::decide(pod, &eviction::evicting_taints(node), seen, now),
            _ => eviction::Decision::Stay,
        };
        match (decision, pod) {
            (eviction::Decision::Until(at), _) => {
                self.leaving.lock().insert(key, seen);
                Ok(Outcome::RequeueAfter(until(at, now) + Duration::from_millis(10)))
            }
            (eviction::Decision::Stay, _) | (_, None) => {
                self.leaving.lock().remove(&key);
                Ok(Outcome::Done)
            }
            (eviction::Decision::Evict, Some(pod)) => {
                let api: Api<Pod> = self.context.api(&key.namespace);
                eviction::evict(&api, &pod, &self.recorder, now).await?;
                Ok(Outcome::Done)
            }
        }
    }
}
