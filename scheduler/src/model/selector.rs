//! Label selectors and node selectors, prepared for matching many times.
//!
//! A selector that cannot be understood matches nothing; the API server lets none in.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Expression, Selector, SelectorExt};

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// A label selector. Absent, it matches nothing; empty, everything.
#[derive(Clone, Debug)]
pub(crate) struct LabelMatcher(Option<Selector>);

impl LabelMatcher {
    pub(crate) fn new(selector: Option<&LabelSelector>) -> Self {
        Self(selector.and_then(|selector| Selector::try_from(selector.clone()).ok()))
    }

    /// Asks for one more label.
    pub(crate) fn and_equal(&mut self, key: &str, value: &str) {
        if let Some(selector) = &mut self.0 {
            selector.extend([Expression::Equal(key.to_owned(), value.to_owned())]);
        }
    }

    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.0.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

/// A pod's node selector and its required node affinity: both have to hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeMatcher {
    labels: Labels,
    /// One of these has to match; `None` asks for nothing.
    terms: Option<Vec<NodeSelectorTerm>>,
}

impl NodeMatcher {
    pub(crate) fn new(spec: &PodSpec) -> Self {
        let required = spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref())
            .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
        Self {
            labels: spec.node_selector.clone().unwrap_or_default(),
            terms: required.map(|selector| selector.node_selector_terms.clone()),
        }
    }

    /// Whether any node matches.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.terms.is_none()
    }

    pub(crate) fn matches(&self, node: &Node) -> bool {
        let labels = node.metadata.labels.as_ref();
        let has = |(key, value): (&String, &String)| labels.and_then(|labels| labels.get(key)) == Some(value);
        self.labels.iter().all(has)
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| term_matches(term, node)))
    }
}

/// Whether a node selector term matches; one that asks for nothing matches nothing.
pub(crate) fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |key: &str| node.metadata.labels.as_ref()?.get(key).map(String::as_str);
    let field = |key: &str| if key == "metadata.name" { node.metadata.name.as_deref() } else { None };
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|requirement| requirement_matches(requirement, label(&requirement.key)))
        && fields.iter().all(|requirement| requirement_matches(requirement, field(&requirement.key)))
}

fn requirement_matches(requirement: &NodeSelectorRequirement, actual: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |actual: &str| values.iter().any(|value| value == actual);
    let compare = |holds: fn(i64, i64) -> bool| {
        let actual = actual.and_then(|actual| actual.parse().ok());
        let bound = values.first().and_then(|bound| bound.parse().ok());
        actual.zip(bound).is_some_and(|(actual, bound)| holds(actual, bound))
    };
    match requirement.operator.as_str() {
        "In" => actual.is_some_and(listed),
        "NotIn" => !actual.is_some_and(listed),
        "Exists" => actual.is_some(),
        "DoesNotExist" => actual.is_none(),
        "Gt" => compare(|actual, bound| actual > bound),
        "Lt" => compare(|actual, bound| actual < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(key: &str, operator: &str, values: &[&str]) -> NodeSelectorRequirement {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        NodeSelectorRequirement { key: key.into(), operator: operator.into(), values: Some(values) }
    }

    #[test]
    fn node_selector_terms_follow_their_operators() {
        let mut node = Node::default();
        node.metadata.name = Some("n1".into());
        node.metadata.labels =
            Some(Labels::from([("disk".into(), "ssd".into()), ("cores".into(), "8".into())]));
        for (requirement, expected) in [
            (requirement("disk", "In", &["hdd", "ssd"]), true),
            (requirement("disk", "In", &["hdd"]), false),
            (requirement("disk", "NotIn", &["ssd"]), false),
            (requirement("gpu", "NotIn", &["a"]), true),
            (requirement("gpu", "Exists", &[]), false),
            (requirement("gpu", "DoesNotExist", &[]), true),
            (requirement("cores", "Gt", &["7"]), true),
            (requirement("cores", "Lt", &["8"]), false),
            (requirement("disk", "Gt", &["1"]), false),
        ] {
            let term = NodeSelectorTerm { match_expressions: Some(vec![requirement]), match_fields: None };
            assert_eq!(term_matches(&term, &node), expected, "{term:?}");
        }
        let fields = Some(vec![requirement("metadata.name", "In", &["n1"])]);
        assert!(term_matches(&NodeSelectorTerm { match_expressions: None, match_fields: fields }, &node));
        assert!(!term_matches(&NodeSelectorTerm::default(), &node));
    }
}
