//! On which nodes a daemon runs. Pure.

use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint,
    Toleration,
};
use kube::ResourceExt;

const NODE_NAME: &str = "metadata.name";

/// What a node means for a daemon's pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fit {
    /// A pod belongs on the node.
    pub run: bool,
    /// A pod that is there already may stay.
    pub stay: bool,
}

/// Tolerations that every daemon has: it keeps its node whatever the node's conditions are.
pub(super) fn add_tolerations(spec: &mut PodSpec) {
    let mut wanted = vec![
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ];
    if spec.host_network == Some(true) {
        wanted.push(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    }
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in wanted {
        let toleration = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

/// Binds a pod to one node by affinity; the scheduler still checks that it fits.
pub(super) fn pin_to_node(spec: &mut PodSpec, node: &str) {
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: NODE_NAME.into(),
            operator: "In".into(),
            values: Some(vec![node.into()]),
        }]),
        match_expressions: None,
    };
    let affinity = spec.affinity.get_or_insert_with(Affinity::default);
    let nodes = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    nodes.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a pod is on, or pinned to.
pub(super) fn target_node(spec: &PodSpec) -> Option<String> {
    if let Some(name) = spec.node_name.as_ref().filter(|name| !name.is_empty()) {
        return Some(name.clone());
    }
    let required = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &required.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    fields
        .filter(|field| field.key == NODE_NAME && field.operator == "In")
        .find_map(|field| field.values.as_ref()?.first().cloned())
}

/// Whether a pod of this spec (with the daemon's tolerations) belongs on the node.
pub(super) fn fit(spec: &PodSpec, node: &Node) -> Fit {
    let named = spec.node_name.as_ref().filter(|name| !name.is_empty());
    let wanted_here = named.is_none_or(|name| *name == node.name_any()) && selects(spec, node);
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let untolerated: Vec<&Taint> = taints.filter(|taint| !tolerated(spec, taint)).collect();
    let blocks = |effect: &str| untolerated.iter().any(|taint| taint.effect == effect);
    Fit {
        run: wanted_here && !blocks("NoSchedule") && !blocks("NoExecute"),
        stay: wanted_here && !blocks("NoExecute"),
    }
}

fn tolerated(spec: &PodSpec, taint: &Taint) -> bool {
    spec.tolerations.iter().flatten().any(|toleration| {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        let key = text(&toleration.key);
        let effect = text(&toleration.effect);
        (effect.is_empty() || effect == taint.effect)
            && (if key.is_empty() { exists } else { key == taint.key })
            && (exists || text(&toleration.value) == text(&taint.value))
    })
}

fn selects(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.labels();
    let by_selector = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|nodes| nodes.required_during_scheduling_ignored_during_execution.as_ref());
    by_selector
        && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches(term, node)))
}

fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let (expressions, fields) = (term.match_expressions.iter().flatten(), term.match_fields.iter().flatten());
    if expressions.clone().count() + fields.clone().count() == 0 {
        return false;
    }
    let name = node.name_any();
    expressions.into_iter().all(|rule| holds(rule, node.labels().get(&rule.key).map(String::as_str)))
        && fields.into_iter().all(|rule| rule.key == NODE_NAME && holds(rule, Some(&name)))
}

fn holds(rule: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let listed = || value.is_some_and(|value| rule.values.iter().flatten().any(|known| known == value));
    let compare = |wanted: std::cmp::Ordering| {
        let bound = rule.values.iter().flatten().next().and_then(|bound| bound.parse::<i64>().ok());
        let number = value.and_then(|value| value.parse::<i64>().ok());
        number.zip(bound).is_some_and(|(number, bound)| number.cmp(&bound) == wanted)
    };
    match rule.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(value: serde_json::Value) -> Node {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn daemons_tolerate_conditions_but_not_foreign_taints() {
        let mut spec = PodSpec::default();
        add_tolerations(&mut spec);
        let ill = json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true, "taints": [
            {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]}});
        assert_eq!(fit(&spec, &node(ill)), Fit { run: true, stay: true });
        let dedicated =
            json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]}});
        assert_eq!(fit(&spec, &node(dedicated)), Fit { run: false, stay: true });
    }

    #[test]
    fn selectors_and_affinity_choose_nodes_and_a_pinned_pod_knows_its_own() {
        let mut spec: PodSpec =
            serde_json::from_value(json!({"containers": [], "nodeSelector": {"disk": "ssd"}})).unwrap();
        assert!(fit(&spec, &node(json!({"metadata": {"name": "a", "labels": {"disk": "ssd"}}}))).run);
        assert!(!fit(&spec, &node(json!({"metadata": {"name": "b"}}))).run);
        pin_to_node(&mut spec, "a");
        assert_eq!(target_node(&spec).as_deref(), Some("a"));
        assert!(!fit(&spec, &node(json!({"metadata": {"name": "c", "labels": {"disk": "ssd"}}}))).run);
    }
}
