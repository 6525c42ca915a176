//! The scheduler's mind: what it knows, what is queued, what it decides. Pure: changes and time come in, decisions go out.
//!
//! The shell feeds it from informers and carries its decisions out; a simulation can do the same.

use std::sync::Arc;
use std::time::Instant;

use client::Change;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use rand::rngs::SmallRng;

use crate::decide::{Decision, Nomination, decide, might_fit};
use crate::events::{ClusterEvents, Plugin};
use crate::model::{Cluster, PodInfo};
use crate::queue::Queue;

/// Everything that decisions depend on.
#[derive(Debug)]
pub struct Scheduling {
    scheduler_name: String,
    cluster: Cluster,
    queue: Queue,
    start: usize,
    rng: SmallRng,
}

impl Scheduling {
    /// Knows nothing yet. Pods that name this scheduler are decided about.
    pub fn new(scheduler_name: impl Into<String>, rng: SmallRng) -> Self {
        Self {
            scheduler_name: scheduler_name.into(),
            cluster: Cluster::default(),
            queue: Queue::default(),
            start: 0,
            rng,
        }
    }

    /// What is known of the cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Decides about the next pod, if one is due, and takes the decision for done.
    pub fn next(&mut self, now: Instant) -> Option<(Arc<PodInfo>, Decision)> {
        let pod = self.queue.pop(now)?;
        let decision = decide(&self.cluster, &pod, &mut self.start, &mut self.rng);
        match &decision {
            Decision::Assign(node) => {
                // It stays in the queue, popped, until it is heard to be on the node: what is heard of it until then may
                // be older than the binding.
                self.cluster.place(Arc::clone(&pod), node);
                // It may be the company that another pod waits for.
                self.wake(ClusterEvents::POD_PLACED, None, now);
            }
            Decision::Unschedulable(verdict) => {
                match &verdict.nomination {
                    Nomination::New(preemption) => {
                        self.cluster.nominate(Arc::clone(&pod), &preemption.node);
                    }
                    Nomination::Kept => {}
                    Nomination::None => self.cluster.unnominate(&pod.uid),
                }
                self.queue.put_back_unschedulable(&pod.uid, verdict.rejected_by.clone(), now);
            }
        }
        Some((pod, decision))
    }

    /// Takes in that a pod could not be bound where it was decided to go.
    pub fn binding_failed(&mut self, uid: &str, now: Instant) {
        // Gone from the queue, it is on its node or deleted by what was heard since, which counts more.
        if self.queue.get(uid).is_some() {
            self.unplace(uid, now);
            self.queue.put_back_failed(uid, now);
        }
    }

    /// Whether a pod is due.
    pub fn is_due(&mut self, now: Instant) -> bool {
        self.queue.has_active(now)
    }

    /// When a pod becomes due by itself.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.queue.next_deadline()
    }

    /// Takes in what happened to a pod.
    pub fn pod_changed(&mut self, change: &Change<Pod>, now: Instant) {
        let pod = change.object();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let is_over = matches!(change, Change::Deleted(_)) || matches!(phase, Some("Succeeded" | "Failed"));
        let node = spec.and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
        if is_over {
            self.queue.remove(uid);
            self.cluster.unnominate(uid);
            self.unplace(uid, now);
        } else if let Some(node) = node {
            self.pod_is_on_node(pod, node, now);
        } else if self.is_ours(pod) && pod.metadata.deletion_timestamp.is_none() {
            let info = Arc::new(PodInfo::new(Arc::clone(pod)));
            if let Some(node) = info.nominated_node().map(ToOwned::to_owned)
                && self.cluster.placement(&info.uid).is_none()
            {
                self.cluster.nominate(Arc::clone(&info), &node);
            }
            self.queue.set(info, now);
        } else {
            self.queue.remove(uid);
            self.cluster.unnominate(uid);
        }
    }

    fn pod_is_on_node(&mut self, pod: &Arc<Pod>, node: &str, now: Instant) {
        let info = Arc::new(PodInfo::new(Arc::clone(pod)));
        let uid = info.uid.clone();
        self.queue.remove(&uid);
        let before = self.cluster.placement(&uid).cloned();
        let old = before
            .as_deref()
            .and_then(|name| self.cluster.node(name)?.pods.iter().find(|other| other.uid == uid).cloned());
        self.cluster.place(Arc::clone(&info), node);
        let mut events = ClusterEvents::NONE;
        match &old {
            None => events |= ClusterEvents::POD_PLACED,
            Some(old) => {
                if old.labels() != info.labels() {
                    events |= ClusterEvents::POD_LABELS;
                }
                if old.requests != info.requests {
                    events |= ClusterEvents::POD_GONE;
                }
            }
        }
        self.wake(events, Some(node), now);
    }

    fn unplace(&mut self, uid: &str, now: Instant) {
        if let Some(node) = self.cluster.remove_pod(uid) {
            self.wake(ClusterEvents::POD_GONE, Some(&node), now);
        }
    }

    /// Takes in what happened to a node.
    pub fn node_changed(&mut self, change: &Change<Node>, now: Instant) {
        let node = change.object();
        let name = node.metadata.name.clone().unwrap_or_default();
        if let Change::Deleted(_) = change {
            return self.cluster.remove_node(&name);
        }
        let events = match change.old() {
            None => ClusterEvents::NODE_ADDED,
            Some(old) => node_events(old, node),
        };
        self.cluster.set_node(Arc::clone(node));
        self.wake(events, Some(&name), now);
    }

    /// Takes in what happened to a namespace.
    pub fn namespace_changed(&mut self, change: &Change<Namespace>, now: Instant) {
        let namespace = change.object();
        let name = namespace.metadata.name.clone().unwrap_or_default();
        match change {
            Change::Deleted(_) => drop(self.cluster.namespaces.remove(&name)),
            _ => {
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                if self.cluster.namespaces.insert(name, labels.clone()).as_ref() != Some(&labels) {
                    self.wake(ClusterEvents::NAMESPACE, None, now);
                }
            }
        }
    }

    /// Takes in what happened to a disruption budget.
    pub fn budget_changed(&mut self, change: &Change<PodDisruptionBudget>) {
        let budget = change.object();
        let budgets = &mut self.cluster.disruption_budgets;
        budgets.retain(|other| other.metadata.uid != budget.metadata.uid);
        if !matches!(change, Change::Deleted(_)) {
            budgets.push(Arc::clone(budget));
        }
    }

    /// Gives pods another try that an event on a node (or anywhere) may have helped.
    fn wake(&mut self, events: ClusterEvents, node: Option<&str>, now: Instant) {
        let cluster = &self.cluster;
        self.queue.wake(events, now, |pod, rejected_by| {
            // Rules about other pods reach beyond the node; everything else must hold on the node itself.
            let far_reaching =
                |plugin: &Plugin| matches!(plugin, Plugin::PodTopologySpread | Plugin::InterPodAffinity);
            rejected_by.iter().any(far_reaching) || node.is_none_or(|node| might_fit(cluster, pod, node))
        });
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let name = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
        name.unwrap_or("default-scheduler") == self.scheduler_name
    }
}

fn node_events(old: &Node, new: &Node) -> ClusterEvents {
    let mut events = ClusterEvents::NONE;
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    if allocatable(old) != allocatable(new) {
        events |= ClusterEvents::NODE_ALLOCATABLE;
    }
    if old.metadata.labels != new.metadata.labels {
        events |= ClusterEvents::NODE_LABELS;
    }
    let kept_away = |node: &Node| node.spec.as_ref().map(|spec| (spec.taints.clone(), spec.unschedulable));
    if kept_away(old) != kept_away(new) {
        events |= ClusterEvents::NODE_TAINTS;
    }
    events
}
