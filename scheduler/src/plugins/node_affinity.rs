//! NodeAffinity: node selectors and node affinity, required and preferred.

use k8s_openapi::api::core::v1::PreferredSchedulingTerm;

use super::{Difference, Filter, Rejection, Score, scale_to_max};
use crate::events::Plugin;
use crate::model::{NodeInfo, PodInfo};

struct NodeAffinityFilter<'a>(&'a PodInfo);

pub(super) fn filter<'a>(pod: &'a PodInfo) -> Option<Box<dyn Filter + 'a>> {
    (!pod.node_matcher.is_empty()).then(|| Box::new(NodeAffinityFilter(pod)) as Box<dyn Filter>)
}

impl Filter for NodeAffinityFilter<'_> {
    fn check(&self, node: &NodeInfo, _: Difference<'_>) -> Result<(), Rejection> {
        if node.object.as_ref().is_some_and(|node| self.0.node_matcher.matches(node)) {
            return Ok(());
        }
        Err(Rejection::final_one(Plugin::NodeAffinity, "node(s) didn't match Pod's node affinity/selector"))
    }
}

struct NodeAffinityScore<'a>(&'a [PreferredSchedulingTerm]);

pub(super) fn score<'a>(pod: &'a PodInfo) -> Option<Box<dyn Score + 'a>> {
    let affinity = pod.spec()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution.as_deref()?;
    (!preferred.is_empty()).then(|| Box::new(NodeAffinityScore(preferred)) as Box<dyn Score>)
}

impl Score for NodeAffinityScore<'_> {
    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, node: &NodeInfo) -> i64 {
        let Some(node) = &node.object else { return 0 };
        let wanted = self.0.iter().filter(|term| crate::model::term_matches(&term.preference, node));
        wanted.map(|term| i64::from(term.weight)).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale_to_max(scores, false);
    }
}
