//! Checks of what says where a pod may run.

use serde_json::Value;

use super::{Seen, one_of};
use crate::{
    field::{Errors, Look, Path, PathExt},
    names, selector,
};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks tolerations.
pub fn validate_tolerations(errors: &mut Errors, path: &Path, tolerations: &[Value]) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let operator_path = path.field("operator");
        let (key, operator) = (toleration.text("key"), toleration.text("operator"));
        let (value, effect) = (toleration.text("value"), toleration.text("effect"));
        if !key.is_empty() {
            errors.invalid_each(&path.field("key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&operator_path, operator, detail);
        }
        if toleration.at("tolerationSeconds").is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&path.field("effect"), effect, detail);
        }
        match operator {
            "" | "Equal" => {
                let faults = names::label_value(value);
                if !faults.is_empty() {
                    errors.invalid(&operator_path, value, faults.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                errors.invalid(&operator_path, value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            other => errors.not_supported(&operator_path, other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.not_supported(&path.field("effect"), effect, EFFECTS);
        }
    }
}

/// Checks scheduling gates.
pub(super) fn validate_gates(errors: &mut Errors, path: &Path, spec: &Value) {
    let mut seen = Seen::default();
    for (index, gate) in spec.items("schedulingGates").iter().enumerate() {
        let name = gate.text("name");
        let path = path.index(index);
        errors.invalid_each(&path, name, names::qualified_name(name));
        if !seen.is_new(name) {
            errors.duplicate(&path, name);
        }
    }
}

/// Checks node affinity, pod affinity and anti-affinity.
pub(super) fn validate_affinity(errors: &mut Errors, path: &Path, spec: &Value) {
    let Some(affinity) = spec.at("affinity") else { return };
    if let Some(node) = affinity.at("nodeAffinity") {
        let path = path.field("nodeAffinity");
        if let Some(required) = node.at(REQUIRED) {
            validate_node_selector(errors, &path.field(REQUIRED), required);
        }
        let preferred = path.field(PREFERRED);
        for (index, term) in node.items(PREFERRED).iter().enumerate() {
            let path = preferred.index(index);
            weight(errors, &path, term);
            if let Some(preference) = term.at("preference") {
                node_selector_term(errors, &path.field("preference"), preference);
            }
        }
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        let Some(terms) = affinity.at(name) else { continue };
        let path = path.field(name);
        let required = path.field(REQUIRED);
        for (index, term) in terms.items(REQUIRED).iter().enumerate() {
            pod_affinity_term(errors, &required.index(index), term);
        }
        let preferred = path.field(PREFERRED);
        for (index, weighted) in terms.items(PREFERRED).iter().enumerate() {
            let path = preferred.index(index);
            weight(errors, &path, weighted);
            if let Some(term) = weighted.at("podAffinityTerm") {
                pod_affinity_term(errors, &path.field("podAffinityTerm"), term);
            }
        }
    }
}

fn weight(errors: &mut Errors, path: &Path, term: &Value) {
    let weight = term.int("weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.field("weight"), weight, "must be in the range 1-100");
    }
}

/// Checks a `NodeSelector`, which persistent volumes have as well.
pub fn validate_node_selector(errors: &mut Errors, path: &Path, node_selector: &Value) {
    let path = path.field("nodeSelectorTerms");
    let terms = node_selector.items("nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        node_selector_term(errors, &path.index(index), term);
    }
}

fn node_selector_term(errors: &mut Errors, path: &Path, term: &Value) {
    let expressions = path.field("matchExpressions");
    for (index, expression) in term.items("matchExpressions").iter().enumerate() {
        node_expression(errors, &expressions.index(index), expression);
    }
    let fields = path.field("matchFields");
    for (index, expression) in term.items("matchFields").iter().enumerate() {
        let path = fields.index(index);
        let operator = expression.text("operator");
        if !["In", "NotIn"].contains(&operator) {
            errors.invalid(&path.field("operator"), operator, "not a valid selector operator");
        } else if expression.items("values").len() != 1 {
            errors.required(
                &path.field("values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            );
        }
        let key = expression.text("key");
        if key != "metadata.name" {
            errors.invalid(&path.field("key"), key, "not a valid field selector key");
        }
    }
}

fn node_expression(errors: &mut Errors, path: &Path, expression: &Value) {
    let values_path = path.field("values");
    let values = expression.items("values");
    match expression.text("operator") {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&values_path, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.forbidden(&values_path, detail);
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.required(&values_path, detail);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(&path.field("operator"), other, "not a valid selector operator"),
    }
    let key = expression.text("key");
    errors.invalid_each(&path.field("key"), key, names::qualified_name(key));
    for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
        errors.invalid_each(&values_path.index(index), value, names::label_value(value));
    }
}

fn pod_affinity_term(errors: &mut Errors, path: &Path, term: &Value) {
    for name in ["labelSelector", "namespaceSelector"] {
        if let Some(object) = term.at(name) {
            selector::validate_object(errors, &path.field(name), object);
        }
    }
    for name in term.items("namespaces").iter().filter_map(Value::as_str) {
        errors.invalid_each(&path.field("namespace"), name, names::dns1123_label(name));
    }
    let key = term.text("topologyKey");
    if key.is_empty() {
        errors.required(&path.field("topologyKey"), "can not be empty");
    }
    errors.invalid_each(&path.field("topologyKey"), key, names::qualified_name(key));
}

/// Checks how pods are spread.
pub(super) fn validate_spreading(errors: &mut Errors, path: &Path, spec: &Value) {
    let constraints = spec.items("topologySpreadConstraints");
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        let skew = constraint.int("maxSkew").unwrap_or_default();
        if skew <= 0 {
            errors.invalid(&path.field("maxSkew"), skew, "must be greater than zero");
        }
        let key = constraint.text("topologyKey");
        if key.is_empty() {
            errors.required(&path.field("topologyKey"), "can not be empty");
        }
        let action = constraint.text("whenUnsatisfiable");
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action) {
            let words = ["DoNotSchedule", "ScheduleAnyway"];
            errors.not_supported(&path.field("whenUnsatisfiable"), action, &words);
        }
        let is_repeated = constraints
            .iter()
            .skip(index + 1)
            .any(|other| other.text("topologyKey") == key && other.text("whenUnsatisfiable") == action);
        if is_repeated {
            let path = path.field("{topologyKey, whenUnsatisfiable}");
            errors.duplicate(&path, format!("{{{key}, {action}}}"));
        }
        min_domains(errors, &path.field("minDomains"), constraint);
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if constraint.at(name).is_some() {
                one_of(errors, &path.field(name), constraint, &["Honor", "Ignore"]);
            }
        }
        let keys = constraint.items("matchLabelKeys");
        let keys_path = path.field("matchLabelKeys");
        if !keys.is_empty() && constraint.at("labelSelector").is_none() {
            errors.forbidden(&keys_path, "must not be specified when labelSelector is not set");
        }
        for (index, key) in keys.iter().filter_map(Value::as_str).enumerate() {
            errors.invalid_each(&keys_path.index(index), key, names::qualified_name(key));
        }
        if let Some(object) = constraint.at("labelSelector") {
            selector::validate_object(errors, &path.field("labelSelector"), object);
        }
    }
}

fn min_domains(errors: &mut Errors, path: &Path, constraint: &Value) {
    let Some(domains) = constraint.int("minDomains") else { return };
    if domains <= 0 {
        errors.invalid(path, domains, "must be greater than zero");
    }
    let action = constraint.text("whenUnsatisfiable");
    if action != "DoNotSchedule" {
        let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        errors.invalid(path, domains, detail);
    }
}
