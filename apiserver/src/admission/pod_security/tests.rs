//! The table of cases.

use serde_json::json;

use super::*;

const CASES: &str = include_str!("cases.txt");

fn pod(change: &Value) -> Value {
    let context = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let mut container = json!({"name": "c", "image": "i", "securityContext": context});
    let mut pod_context = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    let patch = |field: &str, value: &mut Value| {
        if let Some(change) = change.get(field) {
            schema::patch::merge::apply(change, value);
        }
    };
    patch("container", &mut container);
    patch("context", &mut pod_context);
    let mut pod = json!({"metadata": {"annotations": change.get("annotations")},
        "spec": {"securityContext": pod_context, "containers": [container]}});
    patch("spec", &mut pod["spec"]);
    for (field, list, name) in [
        ("second", "containers", "d"),
        ("init", "initContainers", "i"),
        ("ephemeral", "ephemeralContainers", "e"),
    ] {
        if change.get(field).is_some() {
            let mut other = json!({"name": name, "image": "i", "securityContext": context});
            patch(field, &mut other);
            let list = &mut pod["spec"][list];
            *list = list.as_array().into_iter().flatten().cloned().chain([other]).collect();
        }
    }
    pod
}

#[test]
fn every_case_of_the_table_is_judged_as_the_standards_say() {
    let lines: Vec<&str> = CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(lines.len().is_multiple_of(3) && lines.len() >= 3 * 60, "{} lines", lines.len());
    for case in lines.chunks(3) {
        let (level_text, version_text) = case[0].split_once(' ').unwrap();
        let standard = Standard { level: level(level_text).unwrap(), minor: version(version_text).unwrap() };
        let pod = pod(&serde_json::from_str(case[1]).unwrap_or_else(|error| panic!("{}: {error}", case[1])));
        let found = violations(standard, &pod["metadata"]["annotations"], &pod["spec"]);
        assert_eq!(detail(&found).unwrap_or_else(|| "ok".into()), case[2], "{} {}", case[0], case[1]);
    }
}

#[test]
fn pods_that_violate_alike_are_told_together() {
    assert_eq!(told("privileged", &["b"]), "b: privileged");
    assert_eq!(told("privileged", &["b", "a"]), "a (and 1 other pod): privileged");
    assert_eq!(told("privileged", &["b", "a", "c"]), "a (and 2 other pods): privileged");
}
