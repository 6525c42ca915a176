//! What may change about a pod that is there.

use serde_json::Value;

use crate::{
    at::At,
    field::{Look, Path, PathExt, Touch, same_meaning},
    names,
};

use super::qos;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                         `spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A write to the pod itself.
pub(super) fn pod(new: &At, old: &Value) {
    for list in ["containers", "initContainers"] {
        if new.items(list).len() != old.items(list).len() {
            return new.field(list).forbidden("pod updates may not add or remove containers");
        }
    }
    check_deadline(&new.field("activeDeadlineSeconds"), old);
    check_tolerations(&new.field("tolerations"), old);
    check_gates(&new.field("schedulingGates"), old);
    let mut rest = new.value().clone();
    for list in ["containers", "initContainers"] {
        for (container, old) in rest.items_mut(list).iter_mut().zip(old.items(list)) {
            copy(container, old, "image");
        }
    }
    for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        copy(&mut rest, old, name);
    }
    let was_negative = old.int("terminationGracePeriodSeconds").is_some_and(|s| s < 0);
    if was_negative && new.int("terminationGracePeriodSeconds") == Some(1) {
        copy(&mut rest, old, "terminationGracePeriodSeconds");
    }
    if !old.items("schedulingGates").is_empty() {
        // While the pod is held back it may be narrowed down to fewer nodes.
        copy(&mut rest, old, "nodeSelector");
        if let Some(affinity) = rest.get_mut("affinity")
            && let Some(old_affinity) = old.get("affinity")
        {
            copy(affinity, old_affinity, "nodeAffinity");
        }
    }
    if !same_meaning(Some(&rest), Some(old)) {
        new.forbidden(&format!(
            "pod updates may not change fields other than {UPDATABLE}\n{}",
            differences(new.path(), &rest, old).join("\n")
        ));
    }
}

/// Makes a field of `target` what it is in `source`.
fn copy(target: &mut Value, source: &Value, name: &str) {
    match source.get(name) {
        Some(value) => target.put(name, value.clone()),
        None => target.drop_field(name),
    }
}

/// The paths at which two trees differ.
fn differences(path: &Path, new: &Value, old: &Value) -> Vec<String> {
    let (Value::Object(new_fields), Value::Object(old_fields)) = (new, old) else {
        return match (new, old) {
            (Value::Array(new), Value::Array(old)) if new.len() == old.len() => {
                let pairs = new.iter().zip(old).enumerate();
                pairs
                    .filter(|(_, (new, old))| new != old)
                    .flat_map(|(index, (new, old))| differences(&path.index(index), new, old))
                    .collect()
            }
            _ => vec![format!("  {path}: {old} -> {new}")],
        };
    };
    let mut names: Vec<&String> = new_fields.keys().chain(old_fields.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| new_fields.get(*name) != old_fields.get(*name))
        .flat_map(|name| {
            let value =
                |fields: &serde_json::Map<String, Value>| fields.get(name).cloned().unwrap_or_default();
            differences(&path.field(name), &value(new_fields), &value(old_fields))
        })
        .collect()
}

fn check_deadline(seconds: &At, old: &Value) {
    let old = old.int("activeDeadlineSeconds");
    match (seconds.as_i64(), old) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            seconds.invalid(names::between(0, i64::from(i32::MAX)));
        }
        (Some(new), Some(old)) if old < new => {
            seconds.invalid("must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            seconds.invalid_value(Value::Null, "must not update from a positive integer to nil value");
        }
        _ => {}
    }
}

/// Tolerations stay, and more may come.
fn check_tolerations(tolerations: &At, old: &Value) {
    // The seconds of a toleration may change, so they do not count.
    let without_seconds = |toleration: &Value| {
        let mut plain = toleration.clone();
        plain.drop_field("tolerationSeconds");
        plain
    };
    let kept: Vec<Value> = tolerations.list().iter().map(without_seconds).collect();
    if old.items("tolerations").iter().any(|toleration| !kept.contains(&without_seconds(toleration))) {
        tolerations.forbidden("existing toleration can not be modified except its tolerationSeconds");
    }
}

/// Gates go, and none comes.
fn check_gates(gates: &At, old: &Value) {
    for gate in gates.elements() {
        let name = gate.field("name");
        if !old.items("schedulingGates").iter().any(|gate| gate.text("name") == name.str()) {
            name.forbidden(&format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                name.str()
            ));
        }
    }
}

/// A write to `/status`.
pub(super) fn status(new: &At, old: &Value) {
    let null = Value::Null;
    let policy = old.dig(&["spec", "restartPolicy"]).and_then(Value::as_str).unwrap_or_default();
    let old = old.get("status").unwrap_or(&null);
    if old.at("qosClass").is_some() && new.at("qosClass") != old.at("qosClass") {
        new.field("qosClass").immutable();
    }
    new.field("observedGeneration").within(0.., "must be a non-negative integer");
    let statuses = new.field("containerStatuses");
    for (index, before) in old.items("containerStatuses").iter().enumerate() {
        let Some(terminated) = before.dig(&["state", "terminated"]) else { continue };
        let may_restart = policy == "Always"
            || policy == "OnFailure" && terminated.int("exitCode").unwrap_or_default() != 0;
        let after = statuses.list().iter().find(|s| s.text("name") == before.text("name"));
        if !may_restart && after.is_some_and(|after| after.dig(&["state", "terminated"]).is_none()) {
            let state = statuses.index(index);
            state.field("state").forbidden("may not be transitioned to non-terminated state");
        }
    }
}

/// A write to `/ephemeralcontainers`: containers are added, none changes or goes.
pub(super) fn ephemeral_containers(new: &At, old: &Value) {
    for before in old.items("ephemeralContainers") {
        let name = before.text("name");
        let what = match new.list().iter().find(|after| after.text("name") == name) {
            None => "removed",
            Some(after) if after != before => "changed",
            Some(_) => continue,
        };
        new.forbidden(&format!("existing ephemeral containers {name:?} may not be {what}\n"));
    }
}

/// A write to `/resize`: CPU and memory of containers change, nothing else, and the class stays.
pub(super) fn resize(new: &At, old: &Value) {
    if qos::class_of(new) != qos::class_of(old) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        new.invalid_value(qos::class_of(new), detail);
    }
    if !has_same_containers(new, old) {
        return;
    }
    let mut rest = new.value().clone();
    for list in ["containers", "initContainers"] {
        let containers = new.field(list);
        let containers = containers.elements().zip(old.items(list)).zip(rest.items_mut(list));
        for ((container, before), rest) in containers {
            if list == "initContainers" {
                check_init_resize(&container, before);
            }
            for requirements in ["limits", "requests"] {
                let resources = container.field("resources");
                check_removed(&resources.field(requirements), before, requirements);
                let amounts = before.dig(&["resources", requirements]).unwrap_or(&Value::Null);
                let target = rest.object_mut("resources").and_then(|r| r.object_mut(requirements));
                let Some(target) = target else { continue };
                for resource in ["cpu", "memory"] {
                    copy(target, amounts, resource);
                }
            }
        }
    }
    if !same_meaning(Some(&rest), Some(old)) {
        new.forbidden("only cpu and memory resources are mutable");
    }
}

fn has_same_containers(new: &At, old: &Value) -> bool {
    let errors_before = new.count_of_errors();
    for name in ["containers", "initContainers"] {
        let (list, old) = (new.field(name), old.items(name));
        if list.list().len() != old.len() {
            list.forbidden(&format!("{name} may not be added or removed on resize"));
            continue;
        }
        for (container, _) in
            list.elements().zip(old).filter(|(new, old)| new.text("name") != old.text("name"))
        {
            container.field("name").forbidden(&format!("{name} may not be renamed or reordered on resize"));
        }
    }
    new.count_of_errors() == errors_before
}

/// Such a container is not started again.
fn check_init_resize(container: &At, before: &Value) {
    let restarts = |policy: &Value| policy.text("restartPolicy") == "RestartContainer";
    if before.text("restartPolicy") != "Always"
        && container.items("resizePolicy").iter().any(restarts)
        && !same_meaning(container.at("resources"), before.at("resources"))
    {
        let detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
        container.forbidden(detail);
    }
}

fn check_removed(amounts: &At, before: &Value, what: &str) {
    let had = before.dig(&["resources", what]).and_then(Value::as_object);
    if had.is_some_and(|had| had.keys().any(|name| amounts.at(name).is_none())) {
        amounts.forbidden(&format!("resource {what} cannot be removed"));
    }
}
