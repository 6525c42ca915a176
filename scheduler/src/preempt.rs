//! Whom to evict so that a more important pod fits.
//!
//! On each node where it could help, as few and as unimportant pods as possible; of all nodes the one where it hurts
//! least: fewest disruption budgets violated, least important victim, least importance in sum, fewest victims, youngest.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;

use crate::decide::{Refusals, fits_without, summary};
use crate::model::{Cluster, LabelMatcher, NodeInfo, PodInfo};
use crate::plugins::Filter;

const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
/// How many nodes are tried at least, and as a share of all: enough to find a good one.
const NODES_TRIED_MIN: usize = 100;
const NODES_TRIED_PERCENT: usize = 10;

/// Pods to evict from a node.
#[derive(Debug)]
pub struct Preemption {
    /// Where room is made.
    pub node: Arc<str>,
    /// Who has to go, most important first.
    pub victims: Vec<Arc<PodInfo>>,
}

/// Why nobody is evicted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPreemption {
    /// The pod does not want it.
    #[error("not eligible due to preemptionPolicy=Never.")]
    NotWanted,
    /// It was done already, and takes its time.
    #[error("not eligible due to a terminating pod on the nominated node.")]
    VictimsLeaving,
    /// It would not help on any node.
    #[error("{0}")]
    NotHelpful(String),
}

struct Candidate<'a> {
    node: &'a NodeInfo,
    victims: Vec<Arc<PodInfo>>,
    violated_budgets: usize,
}

/// Finds victims, or says why there are none.
pub(crate) fn find(
    cluster: &Cluster,
    pod: &PodInfo,
    refusals: &Refusals<'_>,
    filters: &[Box<dyn Filter + '_>],
) -> Result<Preemption, NoPreemption> {
    eligible(cluster, pod, refusals)?;
    let wanted = (refusals.nodes.len() * NODES_TRIED_PERCENT / 100).max(NODES_TRIED_MIN);
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut reasons: Vec<String> = Vec::new();
    for (node, rejection) in &refusals.nodes {
        if candidates.len() >= wanted {
            break;
        }
        if !rejection.resolvable {
            reasons.push(NOT_HELPFUL.to_owned());
            continue;
        }
        match victims_on(cluster, pod, node, filters) {
            Ok(candidate) => candidates.push(candidate),
            Err(reason) => reasons.extend(reason),
        }
    }
    let best = candidates.into_iter().min_by_key(|candidate| {
        let highest = candidate.victims.iter().map(|victim| victim.priority).max();
        // Priorities start far below zero: moved up, more victims always weigh more.
        let weight = |victim: &Arc<PodInfo>| i64::from(victim.priority) - i64::from(i32::MIN);
        let sum: i64 = candidate.victims.iter().map(weight).sum();
        (
            candidate.violated_budgets,
            highest,
            sum,
            candidate.victims.len(),
            Reverse(earliest_start(candidate)),
        )
    });
    match best {
        Some(best) => Ok(Preemption { node: Arc::clone(&best.node.name), victims: best.victims }),
        None => {
            Err(NoPreemption::NotHelpful(summary(refusals.nodes.len(), reasons.iter().map(String::as_str))))
        }
    }
}

fn eligible(cluster: &Cluster, pod: &PodInfo, refusals: &Refusals<'_>) -> Result<(), NoPreemption> {
    if pod.spec().and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never") {
        return Err(NoPreemption::NotWanted);
    }
    let Some(nominated) = pod.nominated_node() else { return Ok(()) };
    let hopeless = |(node, rejection): &(&NodeInfo, crate::plugins::Rejection)| {
        &*node.name == nominated && !rejection.resolvable
    };
    if refusals.nodes.iter().any(hopeless) {
        return Ok(());
    }
    let waits = cluster.node(nominated).is_some_and(|node| {
        node.pods.iter().any(|other| other.priority < pod.priority && other.is_terminating())
    });
    if waits { Err(NoPreemption::VictimsLeaving) } else { Ok(()) }
}

/// The pods that have to leave a node, or why that does not help.
fn victims_on<'a>(
    cluster: &Cluster,
    pod: &PodInfo,
    node: &'a NodeInfo,
    filters: &[Box<dyn Filter + '_>],
) -> Result<Candidate<'a>, Vec<String>> {
    let mut gone: Vec<Arc<PodInfo>> =
        node.pods.iter().filter(|other| other.priority < pod.priority).cloned().collect();
    if gone.is_empty() {
        return Err(vec![NO_VICTIMS.into()]);
    }
    let mut emptier = node.clone();
    for victim in &gone {
        emptier.remove_pod(&victim.uid);
    }
    fits_without(cluster, pod, &emptier, &gone, filters)
        .map_err(|rejection| rejection.reasons.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    // Most important first, and those whose budgets would be violated before the others: they are let off first.
    gone.sort_by_key(|victim| (Reverse(victim.priority), victim.started()));
    let (protected, free) = split_by_budget(cluster, &gone);
    let mut violated_budgets = 0;
    for (pods, is_protected) in [(protected, true), (free, false)] {
        for reprieved in pods {
            let others: Vec<_> = gone.iter().filter(|other| other.uid != reprieved.uid).cloned().collect();
            emptier.add_pod(Arc::clone(&reprieved));
            if fits_without(cluster, pod, &emptier, &others, filters).is_ok() {
                gone = others;
            } else {
                emptier.remove_pod(&reprieved.uid);
                violated_budgets += usize::from(is_protected);
            }
        }
    }
    Ok(Candidate { node, victims: gone, violated_budgets })
}

/// Splits victims into those whose eviction violates a disruption budget and the others.
fn split_by_budget(cluster: &Cluster, victims: &[Arc<PodInfo>]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let budgets: Vec<_> = cluster
        .disruption_budgets
        .iter()
        .map(|budget| {
            let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            let status = budget.status.as_ref();
            let allowed = status.and_then(|status| status.disruptions_allowed).unwrap_or(0);
            (budget, LabelMatcher::new(selector), allowed)
        })
        .collect();
    let mut left: Vec<i32> = budgets.iter().map(|(_, _, allowed)| *allowed).collect();
    victims.iter().cloned().partition(|victim| {
        let mut violates = false;
        for ((budget, selector, _), left) in budgets.iter().zip(&mut left) {
            let same_namespace = budget.metadata.namespace.as_deref() == Some(&victim.key.namespace);
            if !same_namespace || victim.labels().is_empty() || !selector.matches(victim.labels()) {
                continue;
            }
            let disrupted = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
            if disrupted.is_some_and(|disrupted| disrupted.contains_key(&victim.key.name)) {
                continue;
            }
            *left -= 1;
            violates |= *left < 0;
        }
        violates
    })
}

/// When the longest running of the most important victims was started.
fn earliest_start(candidate: &Candidate<'_>) -> Timestamp {
    let highest = candidate.victims.iter().map(|victim| victim.priority).max();
    let important = candidate.victims.iter().filter(|victim| Some(victim.priority) == highest);
    important.map(|victim| victim.started()).min().unwrap_or(Timestamp::MAX)
}
