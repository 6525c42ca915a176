//! InterPodAffinity: pods that must or would rather be near to, or far from, other pods; in both directions, since the
//! pods that are there already have a say too.

use std::collections::HashMap;

use super::{Difference, Filter, Rejection, SCORE_MAX, Score};
use crate::events::Plugin;
use crate::model::{AffinityTerm, Cluster, NodeInfo, PodInfo};

/// What a required affinity of a pod that is there already is worth when others are scored.
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// How much there is in each topology domain: by label, then by value.
#[derive(Default)]
struct Domains(HashMap<String, HashMap<String, i64>>);

impl Domains {
    fn add(&mut self, node: &NodeInfo, key: &str, amount: i64) {
        if let Some(value) = node.labels().get(key) {
            *self.0.entry(key.to_owned()).or_default().entry(value.clone()).or_default() += amount;
        }
    }

    fn at(&self, node: &NodeInfo, key: &str) -> i64 {
        let values = self.0.get(key).zip(node.labels().get(key));
        values.and_then(|(values, value)| values.get(value)).copied().unwrap_or(0)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn matches_all(terms: &[AffinityTerm], other: &PodInfo, cluster: &Cluster) -> bool {
    !terms.is_empty() && terms.iter().all(|term| term.matches(other, &cluster.namespaces))
}

struct AffinityFilter<'a> {
    cluster: &'a Cluster,
    pod: &'a PodInfo,
    /// Pods that the pod must be near to.
    near: Domains,
    /// Pods that the pod must not be near to.
    far: Domains,
    /// Pods that must not be near to the pod.
    avoiding: Domains,
}

pub(super) fn filter<'a>(cluster: &'a Cluster, pod: &'a PodInfo) -> Option<Box<dyn Filter + 'a>> {
    let mut filter = AffinityFilter {
        cluster,
        pod,
        near: Domains::default(),
        far: Domains::default(),
        avoiding: Domains::default(),
    };
    let has_rules = !(pod.required_affinity.is_empty() && pod.required_anti_affinity.is_empty());
    for node in cluster.nodes() {
        if node.anti_affinity_pods > 0 {
            for other in &node.pods {
                for term in &other.required_anti_affinity {
                    if term.matches(pod, &cluster.namespaces) {
                        filter.avoiding.add(node, &term.topology_key, 1);
                    }
                }
            }
        }
        if has_rules {
            for other in &node.pods {
                filter.count(node, other);
            }
        }
    }
    (has_rules || !filter.avoiding.is_empty()).then(|| Box::new(filter) as Box<dyn Filter>)
}

impl AffinityFilter<'_> {
    fn count(&mut self, node: &NodeInfo, other: &PodInfo) {
        if matches_all(&self.pod.required_affinity, other, self.cluster) {
            for term in &self.pod.required_affinity {
                self.near.add(node, &term.topology_key, 1);
            }
        }
        for term in &self.pod.required_anti_affinity {
            if term.matches(other, &self.cluster.namespaces) {
                self.far.add(node, &term.topology_key, 1);
            }
        }
    }

    fn is_near(&self, node: &NodeInfo, difference: Difference<'_>) -> bool {
        let terms = &self.pod.required_affinity;
        // Every term's label has to be on the node, even where nothing is to be near to yet.
        if !terms.iter().all(|term| node.labels().contains_key(&term.topology_key)) {
            return false;
        }
        let changed = difference.pods().filter(|(other, _)| matches_all(terms, other, self.cluster));
        let change: i64 = changed.map(|(_, change)| change).sum();
        if terms.iter().all(|term| self.near.at(node, &term.topology_key) + change > 0) {
            return true;
        }
        // The first of a series that wants to be near to itself has to go somewhere.
        self.near.is_empty() && change <= 0 && matches_all(terms, self.pod, self.cluster)
    }

    fn is_far(&self, node: &NodeInfo, difference: Difference<'_>) -> bool {
        self.pod.required_anti_affinity.iter().all(|term| {
            let changed =
                difference.pods().filter(|(other, _)| term.matches(other, &self.cluster.namespaces));
            let change: i64 = changed.map(|(_, change)| change).sum();
            !node.labels().contains_key(&term.topology_key)
                || self.far.at(node, &term.topology_key) + change <= 0
        })
    }

    fn is_tolerated(&self, node: &NodeInfo, difference: Difference<'_>) -> bool {
        let mut changes: HashMap<&str, i64> = HashMap::new();
        for (other, change) in difference.pods() {
            for term in &other.required_anti_affinity {
                if term.matches(self.pod, &self.cluster.namespaces) {
                    *changes.entry(&term.topology_key).or_default() += change;
                }
            }
        }
        let keys = self.avoiding.0.keys().map(String::as_str).chain(changes.keys().copied());
        let mut keys = keys.filter(|key| node.labels().contains_key(*key));
        keys.all(|key| self.avoiding.at(node, key) + changes.get(key).copied().unwrap_or(0) <= 0)
    }
}

impl Filter for AffinityFilter<'_> {
    fn check(&self, node: &NodeInfo, difference: Difference<'_>) -> Result<(), Rejection> {
        let plugin = Plugin::InterPodAffinity;
        if !self.is_near(node, difference) {
            return Err(Rejection::final_one(plugin, "node(s) didn't match pod affinity rules"));
        }
        if !self.is_far(node, difference) {
            return Err(Rejection::resolvable(plugin, "node(s) didn't match pod anti-affinity rules"));
        }
        if !self.is_tolerated(node, difference) {
            return Err(Rejection::resolvable(
                plugin,
                "node(s) didn't satisfy existing pods anti-affinity rules",
            ));
        }
        Ok(())
    }
}

struct AffinityScore(Domains);

pub(super) fn score<'a>(cluster: &'a Cluster, pod: &'a PodInfo) -> Option<Box<dyn Score + 'a>> {
    let mut domains = Domains::default();
    let has_preferences = !pod.preferred_affinity.is_empty();
    for node in cluster.nodes().filter(|node| has_preferences || node.affinity_pods > 0) {
        for other in &node.pods {
            let mut weigh = |term: &AffinityTerm, meant: &PodInfo, weight: i64| {
                if term.matches(meant, &cluster.namespaces) {
                    domains.add(node, &term.topology_key, weight);
                }
            };
            for (weight, term) in &pod.preferred_affinity {
                weigh(term, other, *weight);
            }
            for (weight, term) in &other.preferred_affinity {
                weigh(term, pod, *weight);
            }
            for term in &other.required_affinity {
                weigh(term, pod, HARD_AFFINITY_WEIGHT);
            }
        }
    }
    (!domains.is_empty()).then(|| Box::new(AffinityScore(domains)) as Box<dyn Score>)
}

impl Score for AffinityScore {
    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, node: &NodeInfo) -> i64 {
        self.0.0.keys().map(|key| self.0.at(node, key)).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        let min = scores.iter().copied().min().unwrap_or(0);
        let max = scores.iter().copied().max().unwrap_or(0);
        for score in scores {
            *score = if max > min { SCORE_MAX * (*score - min) / (max - min) } else { 0 };
        }
    }
}
