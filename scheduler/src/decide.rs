//! Where a pod goes. Pure: the cluster's state in, a decision out; randomness (which of equally good nodes) comes in.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;

use crate::events::Plugin;
use crate::model::{Cluster, NodeInfo, PodInfo};
use crate::plugins::{self, Difference, Filter, Rejection};
use crate::preempt::{self, NoPreemption, Preemption};

/// With more nodes than this, not all of them are looked at once enough are found.
const CANDIDATES_MIN: usize = 100;

/// What to do about a pod.
#[derive(Debug)]
pub enum Decision {
    /// Bind it to this node.
    Assign(Arc<str>),
    /// It cannot go anywhere now.
    Unschedulable(Unschedulable),
}

/// Why a pod cannot be scheduled, and what could be done about it.
#[derive(Debug)]
pub struct Unschedulable {
    /// What users read, in upstream's form.
    pub message: String,
    /// Which plugins refused nodes: events that concern them are worth another try.
    pub rejected_by: Vec<Plugin>,
    /// Whether room is being made for it.
    pub nomination: Nomination,
}

/// Whether room is being made for a pod on some node.
#[derive(Debug)]
pub enum Nomination {
    /// No; a nomination of before is void.
    None,
    /// As before: earlier victims are still leaving.
    Kept,
    /// Yes, by evicting these pods.
    New(Preemption),
}

/// Why nodes were refused.
#[derive(Debug, Default)]
pub(crate) struct Refusals<'a> {
    pub(crate) nodes: Vec<(&'a NodeInfo, Rejection)>,
}

/// Decides about a pod. `start` rotates the order in which nodes are looked at and is moved on, so that large clusters
/// fill evenly.
pub fn decide(cluster: &Cluster, pod: &PodInfo, start: &mut usize, rng: &mut impl Rng) -> Decision {
    let filters = plugins::filters(cluster, pod);
    if let Some(node) = pod.nominated_node().and_then(|name| cluster.node(name))
        && fits(cluster, pod, node, &filters).is_ok()
    {
        return Decision::Assign(Arc::clone(&node.name));
    }
    let nodes: Vec<&NodeInfo> = cluster.nodes().collect();
    let wanted = candidates_wanted(nodes.len());
    let first = if nodes.is_empty() { 0 } else { *start % nodes.len() };
    let mut candidates = Vec::new();
    let mut refusals = Refusals::default();
    for node in nodes.iter().cycle().skip(first).take(nodes.len()) {
        *start = start.wrapping_add(1);
        match fits(cluster, pod, node, &filters) {
            Ok(()) => candidates.push(*node),
            Err(rejection) => refusals.nodes.push((node, rejection)),
        }
        if candidates.len() >= wanted {
            break;
        }
    }
    match pick(cluster, pod, &candidates, rng) {
        Some(node) => Decision::Assign(Arc::clone(&node.name)),
        None => Decision::Unschedulable(explain(cluster, pod, &refusals, &filters)),
    }
}

/// Whether filters that look only at the node let the pod go there now: a cheap test of whether another try makes sense.
pub fn might_fit(cluster: &Cluster, pod: &PodInfo, node: &str) -> bool {
    let Some(node) = cluster.node(node) else { return false };
    plugins::local_filters(pod).iter().all(|filter| filter.check(node, Difference::default()).is_ok())
}

/// How many fitting nodes are enough: all of a small cluster; of a large one a share that falls to 5 %.
fn candidates_wanted(nodes: usize) -> usize {
    if nodes < CANDIDATES_MIN {
        return nodes.max(1);
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(CANDIDATES_MIN)
}

/// Whether a pod fits on a node, also when the more important pods that room is being made for are there.
pub(crate) fn fits(
    cluster: &Cluster,
    pod: &PodInfo,
    node: &NodeInfo,
    filters: &[Box<dyn Filter + '_>],
) -> Result<(), Rejection> {
    fits_without(cluster, pod, node, &[], filters)
}

/// The same for a node that some pods were taken from.
pub(crate) fn fits_without(
    cluster: &Cluster,
    pod: &PodInfo,
    node: &NodeInfo,
    removed: &[Arc<PodInfo>],
    filters: &[Box<dyn Filter + '_>],
) -> Result<(), Rejection> {
    let check = |node: &NodeInfo, difference: Difference<'_>| {
        filters.iter().try_for_each(|filter| filter.check(node, difference))
    };
    let nominated = cluster.nominated(&node.name).iter();
    let added: Vec<Arc<PodInfo>> = nominated
        .filter(|other| other.priority >= pod.priority && other.uid != pod.uid)
        .map(Arc::clone)
        .collect();
    if !added.is_empty() {
        let mut fuller = node.clone();
        for other in &added {
            fuller.add_pod(Arc::clone(other));
        }
        check(&fuller, Difference { removed, added: &added })?;
    }
    // They may never come, and the pod may not depend on them.
    check(node, Difference { removed, added: &[] })
}

fn pick<'a>(
    cluster: &Cluster,
    pod: &PodInfo,
    candidates: &[&'a NodeInfo],
    rng: &mut impl Rng,
) -> Option<&'a NodeInfo> {
    if let [only] = candidates {
        return Some(only);
    }
    let mut totals = vec![0_i64; candidates.len()];
    for plugin in plugins::scores(cluster, pod, candidates) {
        let mut scores: Vec<i64> = candidates.iter().map(|node| plugin.score(node)).collect();
        plugin.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += score * plugin.weight();
        }
    }
    let best = totals.iter().copied().max()?;
    let equals: Vec<&NodeInfo> =
        candidates.iter().zip(&totals).filter(|(_, total)| **total == best).map(|(node, _)| *node).collect();
    equals.get(rng.random_range(0..equals.len().max(1))).copied()
}

fn explain(
    cluster: &Cluster,
    pod: &PodInfo,
    refusals: &Refusals<'_>,
    filters: &[Box<dyn Filter + '_>],
) -> Unschedulable {
    if refusals.nodes.is_empty() {
        // Any node may do, once there is one.
        let message = "no nodes available to schedule pods".to_owned();
        return Unschedulable { message, rejected_by: vec![Plugin::NodeName], nomination: Nomination::None };
    }
    let mut rejected_by: Vec<Plugin> = refusals.nodes.iter().map(|(_, rejection)| rejection.plugin).collect();
    rejected_by.sort_unstable();
    rejected_by.dedup();
    let reasons = refusals.nodes.iter().flat_map(|(_, rejection)| &rejection.reasons);
    let mut message = summary(refusals.nodes.len(), reasons.map(|reason| &**reason));
    let nomination = match preempt::find(cluster, pod, refusals, filters) {
        Ok(preemption) => Nomination::New(preemption),
        Err(reason) => {
            message.push_str(&format!(" preemption: {reason}"));
            if matches!(reason, NoPreemption::VictimsLeaving) { Nomination::Kept } else { Nomination::None }
        }
    };
    Unschedulable { message, rejected_by, nomination }
}

/// Counts equal reasons: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
pub(crate) fn summary<'a>(nodes: usize, reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    let mut counted: Vec<String> =
        counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    counted.sort_unstable();
    format!("0/{nodes} nodes are available: {}.", counted.join(", "))
}
