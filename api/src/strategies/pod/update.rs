//! What may change about a pod that is there.

use serde_json::Value;

use crate::{
    FieldError,
    field::{Errors, Look, Path, PathExt, Touch, same_meaning},
    names,
};

use super::qos;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                         `spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A write to the pod itself.
pub(super) fn pod(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::ROOT.field("spec");
    let null = Value::Null;
    let (new, old) = (new.get("spec").unwrap_or(&null), old.get("spec").unwrap_or(&null));
    for list in ["containers", "initContainers"] {
        if new.items(list).len() != old.items(list).len() {
            errors.forbidden(&path.field(list), "pod updates may not add or remove containers");
            return errors.into_vec();
        }
    }
    deadline(&mut errors, &path.field("activeDeadlineSeconds"), new, old);
    only_added_tolerations(&mut errors, &path.field("tolerations"), new, old);
    only_removed_gates(&mut errors, &path.field("schedulingGates"), new, old);
    let mut rest = new.clone();
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
        let detail = format!(
            "pod updates may not change fields other than {UPDATABLE}\n{}",
            differences(&path, &rest, old).join("\n")
        );
        errors.forbidden(&path, &detail);
    }
    errors.into_vec()
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

fn deadline(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let (new, old) = (new.int("activeDeadlineSeconds"), old.int("activeDeadlineSeconds"));
    match (new, old) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.invalid(path, new, names::between(0, i64::from(i32::MAX)));
        }
        (Some(new), Some(old)) if old < new => {
            errors.invalid(path, new, "must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            errors.invalid(path, Value::Null, "must not update from a positive integer to nil value");
        }
        _ => {}
    }
}

fn only_added_tolerations(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    // The seconds of a toleration may change, so they do not count.
    let without_seconds = |toleration: &Value| {
        let mut plain = toleration.clone();
        plain.drop_field("tolerationSeconds");
        plain
    };
    let kept: Vec<Value> = new.items("tolerations").iter().map(without_seconds).collect();
    if old.items("tolerations").iter().any(|toleration| !kept.contains(&without_seconds(toleration))) {
        errors.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn only_removed_gates(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let known = |name: &str| old.items("schedulingGates").iter().any(|gate| gate.text("name") == name);
    for (index, gate) in new.items("schedulingGates").iter().enumerate() {
        let name = gate.text("name");
        if !known(name) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.forbidden(&path.index(index).field("name"), &detail);
        }
    }
}

/// A write to `/status`.
pub(super) fn status(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::ROOT.field("status");
    let null = Value::Null;
    let policy = old.dig(&["spec", "restartPolicy"]).and_then(Value::as_str).unwrap_or_default();
    let (new, old) = (new.get("status").unwrap_or(&null), old.get("status").unwrap_or(&null));
    if old.at("qosClass").is_some() && new.at("qosClass") != old.at("qosClass") {
        errors.immutable(&path.field("qosClass"), new.get("qosClass").unwrap_or(&null));
    }
    if let Some(generation) = new.int("observedGeneration").filter(|g| *g < 0) {
        errors.invalid(&path.field("observedGeneration"), generation, "must be a non-negative integer");
    }
    let statuses = path.field("containerStatuses");
    for (index, before) in old.items("containerStatuses").iter().enumerate() {
        let Some(terminated) = before.dig(&["state", "terminated"]) else { continue };
        let may_restart = policy == "Always"
            || policy == "OnFailure" && terminated.int("exitCode").unwrap_or_default() != 0;
        let after = new.items("containerStatuses").iter().find(|s| s.text("name") == before.text("name"));
        if !may_restart && after.is_some_and(|after| after.dig(&["state", "terminated"]).is_none()) {
            let status = statuses.index(index);
            errors.forbidden(&status.field("state"), "may not be transitioned to non-terminated state");
        }
    }
    errors.into_vec()
}

/// A write to `/ephemeralcontainers`: containers are added, none changes or goes.
pub(super) fn ephemeral_containers(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let spec_path = Path::ROOT.field("spec");
    let path = spec_path.field("ephemeralContainers");
    let list =
        |pod: &Value| pod.get("spec").map(|s| s.items("ephemeralContainers").to_vec()).unwrap_or_default();
    let new = list(new);
    for before in list(old) {
        let name = before.text("name");
        match new.iter().find(|after| after.text("name") == name) {
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.forbidden(&path, &detail);
            }
            Some(after) if after != &before => {
                let detail = format!("existing ephemeral containers {name:?} may not be changed\n");
                errors.forbidden(&path, &detail);
            }
            Some(_) => {}
        }
    }
    errors.into_vec()
}

/// A write to `/resize`: CPU and memory of containers change, nothing else, and the class stays.
pub(super) fn resize(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::ROOT.field("spec");
    let null = Value::Null;
    let (new, old) = (new.get("spec").unwrap_or(&null), old.get("spec").unwrap_or(&null));
    if qos::class_of(new) != qos::class_of(old) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.invalid(&path, qos::class_of(new), detail);
    }
    let mut rest = new.clone();
    for list in ["containers", "initContainers"] {
        for (container, before) in rest.items_mut(list).iter_mut().zip(old.items(list)) {
            for requirements in ["limits", "requests"] {
                for resource in ["cpu", "memory"] {
                    let amount = before.dig(&["resources", requirements, resource]).cloned();
                    let Some(target) =
                        container.object_mut("resources").and_then(|r| r.object_mut(requirements))
                    else {
                        continue;
                    };
                    match amount {
                        Some(amount) => target.put(resource, amount),
                        None => target.drop_field(resource),
                    }
                }
            }
        }
    }
    if !same_meaning(Some(&rest), Some(old)) {
        errors.forbidden(&path, "only cpu and memory resources are mutable");
    }
    errors.into_vec()
}
