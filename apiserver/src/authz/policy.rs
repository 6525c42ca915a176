//! The standard roles and bindings, read from `policy.txt`, which users of upstream find unchanged by name.

use serde_json::{Value, json};

const POLICY: &str = include_str!("policy.txt");
const GROUP: &str = "rbac.authorization.k8s.io";

/// A line of the policy that cannot be read. The file is part of the binary and a test reads it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("policy.txt:{line}: {problem}")]
pub struct PolicyError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub problem: &'static str,
}

/// Every role and binding that a new cluster starts with.
pub fn bootstrap_objects() -> Result<Vec<Value>, PolicyError> {
    let mut objects: Vec<Value> = Vec::new();
    for (number, line) in POLICY.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let error = |problem| PolicyError { line: number + 1, problem };
        match words.as_slice() {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            ["role", name, labels @ ..] => objects.push(role(name, labels)),
            ["aggregate", name, "from", selector, labels @ ..] => {
                let mut object = role(name, labels);
                let (key, value) = selector.split_once('=').ok_or_else(|| error("the label has no value"))?;
                let rule = json!({"clusterRoleSelectors": [{"matchLabels": {key: value}}]});
                crate::tree::set(&mut object, &["aggregationRule"], rule);
                objects.push(object);
            }
            ["bind", name, role, subjects @ ..] => objects.push(binding(name, role, subjects)),
            ["role-in", namespace, name] => objects.push(in_namespace(role(name, &[]), namespace)),
            ["bind-in", namespace, name, role, subjects @ ..] => {
                objects.push(in_namespace(binding(name, role, subjects), namespace));
            }
            _ if line.starts_with("  ") => {
                let role = objects.last_mut().filter(|object| object.get("rules").is_some());
                let rules = role.and_then(|role| role.get_mut("rules")).and_then(Value::as_array_mut);
                let rule = rule(&words).ok_or_else(|| error("not a rule"))?;
                rules.ok_or_else(|| error("a rule without a role"))?.push(rule);
            }
            _ => return Err(error("not a role, a rule or a binding")),
        }
    }
    fill_aggregates(&mut objects);
    Ok(objects)
}

/// The rules of the role that every node has.
pub fn node_rules() -> Vec<super::rbac::Rule> {
    use serde::Deserialize;
    let objects = bootstrap_objects().unwrap_or_default();
    let role = objects.into_iter().find(|object| api::object::name(object) == "system:node");
    let rules = role.and_then(|role| role.get("rules").and_then(Value::as_array).cloned());
    rules.into_iter().flatten().filter_map(|rule| super::rbac::Rule::deserialize(rule).ok()).collect()
}

fn metadata(name: &str, labels: &[&str]) -> Value {
    let mut all = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    for (key, value) in labels.iter().filter_map(|label| label.split_once('=')) {
        crate::tree::set(&mut all, &[key], value);
    }
    json!({
        "name": name, "labels": all,
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    })
}

fn role(name: &str, labels: &[&str]) -> Value {
    json!({"kind": "ClusterRole", "apiVersion": format!("{GROUP}/v1"), "metadata": metadata(name, labels), "rules": []})
}

fn binding(name: &str, role: &str, subjects: &[&str]) -> Value {
    let subjects: Vec<Value> = subjects
        .iter()
        .filter_map(|subject| match subject.split_once(':')? {
            ("user", name) => Some(json!({"kind": "User", "apiGroup": GROUP, "name": name})),
            ("group", name) => Some(json!({"kind": "Group", "apiGroup": GROUP, "name": name})),
            ("account", account) => {
                let (namespace, name) = account.split_once(':')?;
                Some(json!({"kind": "ServiceAccount", "namespace": namespace, "name": name}))
            }
            _ => None,
        })
        .collect();
    json!({
        "kind": "ClusterRoleBinding", "apiVersion": format!("{GROUP}/v1"), "metadata": metadata(name, &[]),
        "subjects": subjects, "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
    })
}

/// The kind of the same name that has a namespace.
fn in_namespace(mut object: Value, namespace: &str) -> Value {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default().replace("Cluster", "");
    crate::tree::set(&mut object, &["kind"], kind);
    crate::tree::set(&mut object, &["metadata", "namespace"], namespace);
    if object.get("roleRef").is_some() {
        crate::tree::set(&mut object, &["roleRef", "kind"], "Role");
    }
    object
}

fn rule(words: &[&str]) -> Option<Value> {
    let list = |text: &str| -> Vec<String> {
        text.split(',').map(|word| if word == "core" { String::new() } else { word.to_string() }).collect()
    };
    match words {
        [verbs, "url", paths] => Some(json!({"verbs": list(verbs), "nonResourceURLs": list(paths)})),
        [verbs, groups, resources] => {
            Some(json!({"verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources)}))
        }
        [verbs, groups, resources, names] => Some(json!({
            "verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources), "resourceNames": list(names),
        })),
        _ => None,
    }
}

fn is_cluster_role(object: &Value) -> bool {
    object.get("kind").is_some_and(|kind| kind == "ClusterRole")
}

/// Stores with an aggregating role what it grants, including what comes by way of another: admin includes edit. In the
/// order in which the controller that keeps it up to date would write it.
fn fill_aggregates(objects: &mut [Value]) {
    let rules_by_label = |objects: &[Value], label: &str| -> Vec<Value> {
        let mut carriers: Vec<&Value> = objects
            .iter()
            .filter(|object| {
                let labels = object.pointer("/metadata/labels");
                is_cluster_role(object) && labels.and_then(|l| l.get(label)).is_some_and(|v| v == "true")
            })
            .collect();
        carriers.sort_by_key(|role| api::object::name(role));
        let mut rules: Vec<Value> = Vec::new();
        for rule in carriers.iter().filter_map(|role| role.get("rules")?.as_array()).flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
        rules
    };
    // From the narrowest to the widest, so that each finds the narrower one filled.
    for name in ["view", "edit", "admin"] {
        let rules = rules_by_label(objects, &format!("{GROUP}/aggregate-to-{name}"));
        let role =
            objects.iter_mut().find(|object| is_cluster_role(object) && api::object::name(object) == name);
        if let Some(role) = role {
            crate::tree::set(role, &["rules"], rules);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_can_be_read_and_every_binding_finds_its_role() {
        let objects = bootstrap_objects().unwrap();
        let roles: Vec<&str> =
            objects.iter().filter(|o| o.get("rules").is_some()).map(api::object::name).collect();
        for binding in objects.iter().filter(|o| o.get("roleRef").is_some()) {
            assert!(roles.contains(&binding["roleRef"]["name"].as_str().unwrap()), "{binding}");
            let is_bound = !binding["subjects"].as_array().unwrap().is_empty();
            assert_eq!(is_bound, api::object::name(binding) != "system:node", "{binding}");
        }
        assert!(roles.contains(&"system:node-bootstrapper"));
    }

    #[test]
    fn admin_includes_what_view_grants() {
        let objects = bootstrap_objects().unwrap();
        let admin =
            objects.iter().find(|o| o["kind"] == "ClusterRole" && api::object::name(o) == "admin").unwrap();
        let grants = |resource: &str| admin["rules"].to_string().contains(&format!("\"{resource}\""));
        assert!(grants("pods/log") && grants("pods/exec") && grants("rolebindings"));
    }

    #[test]
    fn nodes_have_rules() {
        assert!(node_rules().len() > 10);
    }
}
