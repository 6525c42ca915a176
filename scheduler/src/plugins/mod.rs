//! What decides where a pod may go (filters) and where it had better go (scores). One file per plugin.
//!
//! A plugin is built for one pod and one state of the cluster, works out there what it needs of the whole cluster, and
//! then looks at one node at a time. It is not built when it has nothing to say about the pod.

mod balanced_allocation;
mod image_locality;
mod inter_pod_affinity;
mod least_allocated;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod resources_fit;
mod taints;
mod topology_spread;

use std::borrow::Cow;
use std::sync::Arc;

use crate::events::{ClusterEvents, Plugin};
use crate::model::{Cluster, NodeInfo, PodInfo};

/// The best score that a node can have of one plugin.
pub(crate) const SCORE_MAX: i64 = 100;

/// Why a node was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// Which plugin refused it.
    pub(crate) plugin: Plugin,
    /// What users read.
    pub(crate) reasons: Vec<Cow<'static, str>>,
    /// Whether removing pods from the node could help.
    pub(crate) resolvable: bool,
}

impl Rejection {
    /// A refusal that no removal of pods changes.
    pub(crate) fn final_one(plugin: Plugin, reason: &'static str) -> Self {
        Self { plugin, reasons: vec![Cow::Borrowed(reason)], resolvable: false }
    }

    /// A refusal that removing pods may change.
    pub(crate) fn resolvable(plugin: Plugin, reason: &'static str) -> Self {
        Self { plugin, reasons: vec![Cow::Borrowed(reason)], resolvable: true }
    }
}

/// How a node's pods differ from the cluster's state for which the plugin was built: preemption looks at nodes without
/// some of their pods, and with pods that room is being made for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Difference<'a> {
    pub(crate) removed: &'a [Arc<PodInfo>],
    pub(crate) added: &'a [Arc<PodInfo>],
}

impl Difference<'_> {
    /// The pods that differ, with what they change a count by.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (&PodInfo, i64)> {
        let removed = self.removed.iter().map(|pod| (&**pod, -1));
        removed.chain(self.added.iter().map(|pod| (&**pod, 1)))
    }
}

/// Says whether a pod may go to a node. `node` has the difference applied already; counts over the whole cluster have not.
pub(crate) trait Filter {
    fn check(&self, node: &NodeInfo, difference: Difference<'_>) -> Result<(), Rejection>;
}

/// Says how good a node is for a pod, once it may go there.
pub(crate) trait Score {
    /// How much the plugin counts against the others.
    fn weight(&self) -> i64;
    /// The node's raw score.
    fn score(&self, node: &NodeInfo) -> i64;
    /// Brings the raw scores of all candidates to 0..=100.
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// The filters that have something to say about the pod, cheapest and most telling first.
pub(crate) fn filters<'a>(cluster: &'a Cluster, pod: &'a PodInfo) -> Vec<Box<dyn Filter + 'a>> {
    let mut filters = local_filters(pod);
    filters.extend(topology_spread::filter(cluster, pod));
    filters.extend(inter_pod_affinity::filter(cluster, pod));
    filters
}

/// The filters that look at nothing but the node.
pub(crate) fn local_filters<'a>(pod: &'a PodInfo) -> Vec<Box<dyn Filter + 'a>> {
    let all = [
        node_unschedulable::filter(pod),
        node_name::filter(pod),
        taints::filter(pod),
        node_affinity::filter(pod),
        node_ports::filter(pod),
        resources_fit::filter(pod),
    ];
    all.into_iter().flatten().collect()
}

/// The scores that have something to say about the pod.
pub(crate) fn scores<'a>(
    cluster: &'a Cluster,
    pod: &'a PodInfo,
    candidates: &[&NodeInfo],
) -> Vec<Box<dyn Score + 'a>> {
    let all = [
        taints::score(pod),
        node_affinity::score(pod),
        least_allocated::score(pod),
        topology_spread::score(cluster, pod, candidates),
        inter_pod_affinity::score(cluster, pod),
        balanced_allocation::score(pod),
        image_locality::score(cluster, pod),
    ];
    all.into_iter().flatten().collect()
}

/// Which events can make a pod that this plugin refused schedulable.
///
/// Every change of a node counts for every plugin: nodes arrive step by step (tainted, without resources), and a plugin
/// that refused the other nodes never saw the new one.
pub(crate) fn wakes(plugin: Plugin) -> ClusterEvents {
    match plugin {
        Plugin::NodeName | Plugin::NodeUnschedulable | Plugin::TaintToleration | Plugin::NodeAffinity => {
            ClusterEvents::ANY_OF_NODE
        }
        Plugin::NodePorts | Plugin::NodeResourcesFit => ClusterEvents::ANY_OF_NODE | ClusterEvents::POD_GONE,
        Plugin::PodTopologySpread | Plugin::InterPodAffinity => {
            ClusterEvents::ANY_OF_NODE
                | ClusterEvents::POD_PLACED
                | ClusterEvents::POD_GONE
                | ClusterEvents::POD_LABELS
                | ClusterEvents::NAMESPACE
        }
    }
}

/// Scales scores so that the largest becomes 100; reversed, so that it becomes 0.
pub(crate) fn scale_to_max(scores: &mut [i64], reversed: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 { 0 } else { *score * SCORE_MAX / max };
        *score = if reversed { SCORE_MAX - scaled } else { scaled };
    }
}
