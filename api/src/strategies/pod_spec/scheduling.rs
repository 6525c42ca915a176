//! Checks of what says where a pod may run.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{at::At, field::Look, names, selector};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Checks tolerations.
pub fn check_tolerations(tolerations: &At) {
    for toleration in tolerations.elements() {
        let (key, operator) = (toleration.field("key"), toleration.field("operator"));
        let (value, effect) = (toleration.text("value"), toleration.field("effect"));
        key.name_or_none(names::qualified_name);
        if key.is_empty() && operator.str() != "Exists" {
            operator.invalid_text(
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if toleration.at("tolerationSeconds").is_some() && effect.str() != "NoExecute" {
            effect.invalid_text("effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator.str() {
            "" | "Equal" => {
                let faults = names::label_value(value);
                if !faults.is_empty() {
                    operator.invalid_value(value, faults.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                operator.invalid_value(value, "value must be empty when `operator` is 'Exists'");
            }
            _ => operator.among(&["Equal", "Exists"]),
        }
        effect.among_or_none(&["NoSchedule", "PreferNoSchedule", "NoExecute"]);
    }
}

/// Checks scheduling gates.
pub(super) fn check_gates(gates: &At) {
    let mut seen = BTreeSet::new();
    for gate in gates.elements() {
        // Upstream names the gate, not its name.
        let name = gate.field("name");
        let gate = gate.with(name.value());
        gate.form(names::qualified_name);
        gate.unique(&mut seen);
    }
}

/// Checks node affinity, pod affinity and anti-affinity.
pub(super) fn check_affinity(affinity: &At) {
    affinity.optional("nodeAffinity", |node| {
        node.optional(REQUIRED, check_node_selector);
        node.each(PREFERRED, |term| {
            check_weight(term);
            term.optional("preference", check_node_selector_term);
        });
    });
    for name in ["podAffinity", "podAntiAffinity"] {
        affinity.optional(name, |terms| {
            terms.each(REQUIRED, check_pod_affinity_term);
            terms.each(PREFERRED, |term| {
                check_weight(term);
                term.optional("podAffinityTerm", check_pod_affinity_term);
            });
        });
    }
}

fn check_weight(term: &At) {
    term.field("weight").number_within(1..=100, "must be in the range 1-100");
}

/// Checks a `NodeSelector`, which persistent volumes have as well.
pub fn check_node_selector(node_selector: &At) {
    let terms = node_selector.field("nodeSelectorTerms");
    terms.filled("must have at least one node selector term");
    terms.elements().for_each(|term| check_node_selector_term(&term));
}

fn check_node_selector_term(term: &At) {
    term.each("matchExpressions", check_node_expression);
    term.each("matchFields", |expression| {
        let (key, operator) = (expression.field("key"), expression.field("operator"));
        let values = expression.field("values");
        if !["In", "NotIn"].contains(&operator.str()) {
            operator.invalid_text("not a valid selector operator");
        } else if values.list().len() != 1 {
            values.required(
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            );
        }
        if key.str() != "metadata.name" {
            key.invalid_text("not a valid field selector key");
        }
    });
}

fn check_node_expression(expression: &At) {
    let (operator, values) = (expression.field("operator"), expression.field("values"));
    match operator.str() {
        "In" | "NotIn" => values.filled("must be specified when `operator` is 'In' or 'NotIn'"),
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.list().len() != 1 => {
            values.required("must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => operator.invalid_text("not a valid selector operator"),
    }
    expression.field("key").form(names::qualified_name);
    values.elements().for_each(|value| value.form(names::label_value));
}

fn check_pod_affinity_term(term: &At) {
    for name in ["labelSelector", "namespaceSelector"] {
        term.optional(name, selector::check);
    }
    for name in term.items("namespaces") {
        term.field("namespace").with(name).form(names::dns1123_label);
    }
    let key = term.field("topologyKey");
    key.filled("can not be empty");
    key.form(names::qualified_name);
}

/// Checks how pods are spread.
pub(super) fn check_spreading(constraints: &At) {
    for (index, constraint) in constraints.elements().enumerate() {
        let (key, action) = (constraint.field("topologyKey"), constraint.field("whenUnsatisfiable"));
        constraint.field("maxSkew").number_within(1.., "must be greater than zero");
        key.filled("can not be empty");
        action.among(&["DoNotSchedule", "ScheduleAnyway"]);
        let is_same = |other: &Value| {
            other.text("topologyKey") == key.str() && other.text("whenUnsatisfiable") == action.str()
        };
        if constraints.list().iter().skip(index + 1).any(is_same) {
            let both = constraint.field("{topologyKey, whenUnsatisfiable}");
            both.duplicate_value(format!("{{{}, {}}}", key.str(), action.str()));
        }
        constraint.optional("minDomains", |domains| {
            domains.within(1.., "must be greater than zero");
            if action.str() != "DoNotSchedule" {
                domains.invalid(format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                    action.str()
                ));
            }
        });
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.optional(name, |policy| policy.one_of(&["Honor", "Ignore"]));
        }
        let keys = constraint.field("matchLabelKeys");
        if !keys.is_empty() && constraint.at("labelSelector").is_none() {
            keys.forbidden("must not be specified when labelSelector is not set");
        }
        keys.elements().for_each(|key| key.form(names::qualified_name));
        constraint.optional("labelSelector", selector::check);
    }
}
