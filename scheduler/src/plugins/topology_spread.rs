//! PodTopologySpread: the pods that a constraint selects are spread over the values of a node label.
//!
//! Pods without constraints of their own are spread over hosts (skew 3) and zones (skew 5) as a preference, together
//! with the pods of the same controller. Upstream selects those by the selectors of services and controllers; the
//! controller's UID says the same for everything that is controlled. Absent: services over pods without a controller.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use super::taints::{Tolerations, tolerations_of};
use super::{Difference, Filter, Rejection, SCORE_MAX, Score};
use crate::events::Plugin;
use crate::model::{Cluster, LabelMatcher, NodeInfo, PodInfo};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const REASON_SKEW: &str = "node(s) didn't match pod topology spread constraints";
const REASON_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

/// Which pods a constraint counts.
enum Counted<'a> {
    Selected(LabelMatcher),
    ControlledBy(&'a str),
}

struct Constraint<'a> {
    topology_key: String,
    max_skew: i64,
    min_domains: Option<usize>,
    counted: Counted<'a>,
    honors_affinity: bool,
    honors_taints: bool,
}

impl<'a> Constraint<'a> {
    fn stated(constraint: &TopologySpreadConstraint, pod: &PodInfo) -> Self {
        let mut selector = LabelMatcher::new(constraint.label_selector.as_ref());
        for key in constraint.match_label_keys.iter().flatten() {
            if let Some(value) = pod.labels().get(key) {
                selector.and_equal(key, value);
            }
        }
        Self {
            topology_key: constraint.topology_key.clone(),
            max_skew: i64::from(constraint.max_skew),
            min_domains: constraint.min_domains.and_then(|minimum| usize::try_from(minimum).ok()),
            counted: Counted::Selected(selector),
            honors_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    fn default_for(controller_uid: &'a str) -> [Self; 2] {
        [(HOSTNAME, 3), (ZONE, 5)].map(|(topology_key, max_skew)| Self {
            topology_key: topology_key.to_owned(),
            max_skew,
            min_domains: None,
            counted: Counted::ControlledBy(controller_uid),
            honors_affinity: true,
            honors_taints: false,
        })
    }

    fn counts(&self, other: &PodInfo) -> bool {
        match &self.counted {
            Counted::Selected(selector) => selector.matches(other.labels()),
            Counted::ControlledBy(uid) => other.controller_uid.as_deref() == Some(uid),
        }
    }

    /// Whether the node's pods count at all.
    fn includes(&self, node: &NodeInfo, pod: &PodInfo, tolerations: Tolerations<'_>) -> bool {
        let matches = || node.object.as_ref().is_some_and(|node| pod.node_matcher.matches(node));
        (!self.honors_affinity || matches()) && (!self.honors_taints || tolerations.admit(node))
    }

    fn count_on(&self, node: &NodeInfo, namespace: &str) -> i64 {
        let counted = node.pods.iter().filter(|other| {
            other.key.namespace == namespace && !other.is_terminating() && self.counts(other)
        });
        i64::try_from(counted.count()).unwrap_or(i64::MAX)
    }
}

fn stated<'a>(pod: &PodInfo, when_unsatisfiable: &str) -> Vec<Constraint<'a>> {
    let constraints = pod.spec().and_then(|spec| spec.topology_spread_constraints.as_ref());
    let constraints = constraints.into_iter().flatten();
    let concerned = constraints.filter(|constraint| constraint.when_unsatisfiable == when_unsatisfiable);
    concerned.map(|constraint| Constraint::stated(constraint, pod)).collect()
}

/// A constraint with the pods counted, by value of the label.
struct Counts<'a> {
    constraint: Constraint<'a>,
    by_value: HashMap<String, i64>,
}

struct SpreadFilter<'a> {
    pod: &'a PodInfo,
    all: Vec<Counts<'a>>,
}

pub(super) fn filter<'a>(cluster: &'a Cluster, pod: &'a PodInfo) -> Option<Box<dyn Filter + 'a>> {
    let constraints = stated(pod, "DoNotSchedule");
    if constraints.is_empty() {
        return None;
    }
    let tolerations = tolerations_of(pod);
    let keys: Vec<String> = constraints.iter().map(|constraint| constraint.topology_key.clone()).collect();
    let mut all: Vec<Counts> =
        constraints.into_iter().map(|constraint| Counts { constraint, by_value: HashMap::new() }).collect();
    for node in cluster.nodes() {
        if !keys.iter().all(|key| node.labels().contains_key(key)) {
            continue;
        }
        for counts in &mut all {
            let Some(value) = node.labels().get(&counts.constraint.topology_key) else { continue };
            if counts.constraint.includes(node, pod, tolerations) {
                let count = counts.constraint.count_on(node, &pod.key.namespace);
                *counts.by_value.entry(value.clone()).or_default() += count;
            }
        }
    }
    Some(Box::new(SpreadFilter { pod, all }))
}

impl Filter for SpreadFilter<'_> {
    fn check(&self, node: &NodeInfo, difference: Difference<'_>) -> Result<(), Rejection> {
        for counts in &self.all {
            let Some(value) = node.labels().get(&counts.constraint.topology_key) else {
                return Err(Rejection::final_one(Plugin::PodTopologySpread, REASON_LABEL));
            };
            let here =
                counts.by_value.get(value).copied().unwrap_or(0) + self.change(counts, node, difference);
            let own = i64::from(counts.constraint.counts(self.pod));
            if here + own - counts.minimum(value, here) > counts.constraint.max_skew {
                return Err(Rejection::resolvable(Plugin::PodTopologySpread, REASON_SKEW));
            }
        }
        Ok(())
    }
}

impl SpreadFilter<'_> {
    /// What the difference makes of the count in the node's domain.
    fn change(&self, counts: &Counts<'_>, node: &NodeInfo, difference: Difference<'_>) -> i64 {
        if !counts.constraint.includes(node, self.pod, tolerations_of(self.pod)) {
            return 0;
        }
        let concerned = difference.pods().filter(|(other, _)| {
            other.key.namespace == self.pod.key.namespace
                && !other.is_terminating()
                && counts.constraint.counts(other)
        });
        concerned.map(|(_, change)| change).sum()
    }
}

impl Counts<'_> {
    /// The least count of any domain, where the count of one of them is given.
    fn minimum(&self, value: &str, here: i64) -> i64 {
        if self.constraint.min_domains.is_some_and(|minimum| self.by_value.len() < minimum) {
            return 0;
        }
        let others = self.by_value.iter().map(|(other, count)| if other == value { here } else { *count });
        // With no domain at all upstream takes a huge minimum: nothing is skewed.
        others.min().unwrap_or(i64::from(i32::MAX))
    }
}

struct SoftCounts<'a> {
    constraint: Constraint<'a>,
    /// Per value; hosts are counted when they are scored.
    by_value: HashMap<String, i64>,
    weight: f64,
}

struct SpreadScore<'a> {
    pod: &'a PodInfo,
    all: Vec<SoftCounts<'a>>,
    /// Nodes that lack a label are not scored, unless the constraints are the default ones.
    requires_labels: bool,
}

pub(super) fn score<'a>(
    cluster: &'a Cluster,
    pod: &'a PodInfo,
    candidates: &[&NodeInfo],
) -> Option<Box<dyn Score + 'a>> {
    let has_own = pod
        .spec()
        .and_then(|spec| spec.topology_spread_constraints.as_ref())
        .is_some_and(|own| !own.is_empty());
    let constraints: Vec<Constraint> = match &pod.controller_uid {
        _ if has_own => stated(pod, "ScheduleAnyway"),
        Some(uid) => Constraint::default_for(uid).into(),
        None => return None,
    };
    if constraints.is_empty() {
        return None;
    }
    let mut spread = SpreadScore { pod, all: Vec::new(), requires_labels: has_own };
    let keys: Vec<String> = constraints.iter().map(|constraint| constraint.topology_key.clone()).collect();
    let has_labels = |node: &NodeInfo| !has_own || keys.iter().all(|key| node.labels().contains_key(key));
    let scored: Vec<&NodeInfo> = candidates.iter().copied().filter(|node| has_labels(node)).collect();
    for constraint in constraints {
        spread.all.push(SoftCounts::new(constraint, &scored));
    }
    let tolerations = tolerations_of(pod);
    for node in cluster.nodes().filter(|node| has_labels(node)) {
        for counts in &mut spread.all {
            let constraint = &counts.constraint;
            let value = node.labels().get(&constraint.topology_key);
            let Some(total) = value.and_then(|value| counts.by_value.get_mut(value)) else { continue };
            if constraint.includes(node, pod, tolerations) {
                *total += constraint.count_on(node, &pod.key.namespace);
            }
        }
    }
    Some(Box::new(spread))
}

impl<'a> SoftCounts<'a> {
    fn new(constraint: Constraint<'a>, scored: &[&NodeInfo]) -> Self {
        let mut by_value = HashMap::new();
        let mut domains = scored.len();
        if constraint.topology_key != HOSTNAME {
            let values = scored.iter().filter_map(|node| node.labels().get(&constraint.topology_key));
            by_value.extend(values.map(|value| (value.clone(), 0)));
            domains = by_value.len();
        }
        #[allow(clippy::cast_precision_loss)] // A weight needs no more.
        let weight = ((domains + 2) as f64).ln();
        Self { constraint, by_value, weight }
    }
}

impl SpreadScore<'_> {
    fn is_scored(&self, node: &NodeInfo) -> bool {
        let mut keys = self.all.iter().map(|counts| &counts.constraint.topology_key);
        !self.requires_labels || keys.all(|key| node.labels().contains_key(key))
    }
}

/// Marks a node that is not scored until the scores are normalized.
const NOT_SCORED: i64 = -1;

impl Score for SpreadScore<'_> {
    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, node: &NodeInfo) -> i64 {
        if !self.is_scored(node) {
            return NOT_SCORED;
        }
        let mut score = 0.0;
        for counts in &self.all {
            let constraint = &counts.constraint;
            let Some(value) = node.labels().get(&constraint.topology_key) else { continue };
            let count = if constraint.topology_key == HOSTNAME {
                constraint.count_on(node, &self.pod.key.namespace)
            } else {
                counts.by_value.get(value).copied().unwrap_or(0)
            };
            #[allow(clippy::cast_precision_loss)] // Scores need no more.
            let part = count as f64 * counts.weight + (constraint.max_skew - 1) as f64;
            score += part;
        }
        #[allow(clippy::cast_possible_truncation)] // Counts of pods.
        let rounded = score.round() as i64;
        rounded
    }

    fn normalize(&self, scores: &mut [i64]) {
        let scored = scores.iter().copied().filter(|score| *score != NOT_SCORED);
        let (min, max) = scored.fold((i64::MAX, 0), |(min, max), score| (min.min(score), max.max(score)));
        for score in scores {
            *score = match *score {
                NOT_SCORED => 0,
                _ if max == 0 => SCORE_MAX,
                own => SCORE_MAX * (max + min - own) / max,
            };
        }
    }
}
