//! What is accepted of pods and templates though it is likely a mistake.

use serde_json::Value;

use super::super::pod_spec::CONTAINER_LISTS;
use crate::field::{Look, Path, PathExt, quoted};

/// Deprecated labels of nodes, and what took their place.
const DEPRECATED_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// Warnings about a pod; none when nothing of its spec changed.
pub(super) fn of_pod(new: &Value, old: Option<&Value>) -> Vec<String> {
    let null = Value::Null;
    let spec = new.get("spec").unwrap_or(&null);
    if old.is_some_and(|old| old.get("spec") == new.get("spec")) {
        return Vec::new();
    }
    of_spec(&Path::ROOT.field("spec"), spec)
}

/// Warnings about a spec.
pub fn of_spec(path: &Path, spec: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let selector = path.field("nodeSelector");
    for (key, _) in spec.entries("nodeSelector") {
        if let Some((_, instead)) = DEPRECATED_LABELS.iter().find(|(old, _)| old == key) {
            warnings
                .push(format!("{}: deprecated since v1.14; use \"{instead}\" instead", selector.key(key)));
        }
    }
    let aliases = path.field("hostAliases");
    let mut addresses = std::collections::BTreeSet::new();
    for (index, alias) in spec.items("hostAliases").iter().enumerate() {
        if !addresses.insert(alias.text("ip")) {
            warnings.push(format!(
                "{}: duplicate ip {}",
                aliases.index(index).field("ip"),
                quoted(alias.text("ip"))
            ));
        }
    }
    let secrets = path.field("imagePullSecrets");
    for (index, secret) in spec.items("imagePullSecrets").iter().enumerate() {
        if secret.text("name").is_empty() {
            warnings.push(format!("{}: invalid empty name {}", secrets.index(index), quoted("")));
        }
    }
    if spec.int("terminationGracePeriodSeconds").is_some_and(|s| s < 0) {
        warnings.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            path.field("terminationGracePeriodSeconds")
        ));
    }
    for list in CONTAINER_LISTS {
        let list_path = path.field(list);
        for (index, container) in spec.items(list).iter().enumerate() {
            of_container(&mut warnings, &list_path.index(index), container);
        }
    }
    warnings
}

fn of_container(warnings: &mut Vec<String>, path: &Path, container: &Value) {
    let variables_path = path.field("env");
    let variables = container.items("env");
    for (index, variable) in variables.iter().enumerate() {
        let name = variable.text("name");
        let before = variables.iter().take(index).rposition(|v| v.text("name") == name);
        let Some(before) = before else { continue };
        let hides = variables.get(before).is_some_and(|v| v.text("value") != variable.text("value"));
        if hides || variable.at("valueFrom").is_some() {
            warnings.push(format!(
                "{}: hides previous definition of {}, which may be dropped when using apply",
                variables_path.index(index),
                quoted(name)
            ));
        }
    }
    let ports_path = path.field("ports");
    let ports = container.items("ports");
    for (index, port) in ports.iter().enumerate() {
        let repeats = ports.iter().take(index).position(|other| {
            ["containerPort", "protocol"].iter().all(|field| other.get(field) == port.get(field))
        });
        if let Some(first) = repeats
            && port.at("hostPort").is_none()
        {
            warnings.push(format!(
                "{}: duplicate port definition with {}",
                ports_path.index(index),
                ports_path.index(first)
            ));
        }
    }
    for list in ["limits", "requests"] {
        for name in ["memory", "ephemeral-storage"] {
            let amount =
                container.dig(&["resources", list, name]).and_then(Value::as_str).unwrap_or_default();
            if amount.ends_with('m') {
                let resources = path.field("resources");
                let list = resources.field(list);
                warnings.push(format!(
                    "{}: fractional byte value {} is invalid, must be an integer",
                    list.key(name),
                    quoted(amount)
                ));
            }
        }
    }
}
