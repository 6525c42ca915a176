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
    of_ports(&mut warnings, path, spec);
    warnings
}

/// Ports that several containers, or one of them twice, say they have.
fn of_ports(warnings: &mut Vec<String>, path: &Path, spec: &Value) {
    let mut seen: Vec<(String, &Value)> = Vec::new();
    for list in CONTAINER_LISTS {
        let list_path = path.field(list);
        for (index, container) in spec.items(list).iter().enumerate() {
            let container_path = list_path.index(index);
            let ports_path = container_path.field("ports");
            for (index, port) in container.items("ports").iter().enumerate() {
                let here = ports_path.index(index).to_string();
                let same = |field: &str, other: &Value| other.get(field) == port.get(field);
                for (there, other) in &seen {
                    if same("containerPort", other) && same("protocol", other) {
                        let kind = if same("hostPort", other) && same("hostIP", other) {
                            "duplicate"
                        } else if port.at("hostPort").is_none() || other.at("hostPort").is_none() {
                            "overlapping"
                        } else {
                            continue;
                        };
                        warnings.push(format!("{here}: {kind} port definition with {there}"));
                    }
                }
                let named = seen.iter().find(|(_, other)| same("name", other));
                if let (false, Some((there, _))) = (port.text("name").is_empty(), named) {
                    warnings.push(format!(
                        "{here}: duplicate port name {} with {there}, services and probes that select ports by name \
                         will use {there}",
                        quoted(port.text("name"))
                    ));
                }
                seen.push((here, port));
            }
        }
    }
}

fn of_container(warnings: &mut Vec<String>, path: &Path, container: &Value) {
    let variables_path = path.field("env");
    let variables = container.items("env");
    for (index, variable) in variables.iter().enumerate() {
        let name = variable.text("name");
        let is_repeated = variables.iter().take(index).any(|v| v.text("name") == name);
        // `X=abc, X=$(X)def` builds on the earlier value instead of hiding it.
        let reference = format!("$({name})");
        let value = variable.text("value");
        let builds_on_it =
            value.contains(&reference) && value != reference && variable.at("valueFrom").is_none();
        if is_repeated && !builds_on_it {
            warnings.push(format!(
                "{}: hides previous definition of {}, which may be dropped when using apply",
                variables_path.index(index),
                quoted(name)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn likely_mistakes_should_be_told() {
        let spec = json!({
            "nodeSelector": {"beta.kubernetes.io/os": "linux"},
            "containers": [
                {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"},
                         {"name": "P", "value": "x"}, {"name": "P", "value": "$(P):y"}],
                 "ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}]},
                {"ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}]},
            ],
        });
        assert_eq!(
            of_spec(&Path::ROOT.field("spec"), &spec),
            [
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]",
                "spec.containers[1].ports[0]: duplicate port name \"http\" with spec.containers[0].ports[0], services \
                 and probes that select ports by name will use spec.containers[0].ports[0]",
            ]
        );
    }
}
