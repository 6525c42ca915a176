//! Pods: defaults, first state, deletion with grace, and what may change.

mod label_keys;
pub mod qos;
mod update;
mod warnings;

use serde_json::{Value, json};

use super::{
    common::{spec, spec_mut},
    pod_spec::{self, Of},
};
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Path, PathExt, Touch},
};

/// What is special about pods.
pub struct Pod;

/// Warnings about an object's `spec.template`, where it is new or changed.
pub(super) fn warnings_of_template(new: &Value, old: Option<&Value>) -> Vec<String> {
    let path = ["spec", "template", "spec"];
    let spec = new.dig(&path).unwrap_or(&Value::Null);
    if old.is_some_and(|old| old.dig(&path) == Some(spec)) {
        return Vec::new();
    }
    warnings_of_spec(&Path::ROOT.field("spec.template.spec"), spec)
}

pub(super) use warnings::of_spec as warnings_of_spec;

impl Strategy for Pod {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(spec) = spec_mut(object) {
            pod_spec::defaults::set(spec);
            pod_spec::defaults::set_pod(spec);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, context: &WriteContext) {
        label_keys::resolve(object);
        let mut status = json!({"phase": "Pending", "qosClass": qos::class_of(spec(object))});
        if !spec(object).items("schedulingGates").is_empty() {
            let conditions = json!([{
                "type": "PodScheduled", "status": "False", "lastTransitionTime": context.now,
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
            status.put("conditions", conditions);
        }
        object.put("status", status);
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value, context: &WriteContext) {
        if context.subresource != Some("status") {
            return;
        }
        // A writer of status that does not know the class leaves it as it is, and one that knows only one address
        // sets the list as well.
        let class = old.dig(&["status", "qosClass"]).cloned();
        let Some(status) = new.object_mut("status") else { return };
        if let Some(class) = class {
            status.default_to("qosClass", class);
        }
        for (single, list) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
            let address = status.text(single).to_string();
            let first = status.items(list).first().map(|ip| ip.text("ip").to_string());
            match first {
                Some(first) if address.is_empty() => status.put(single, first),
                None if !address.is_empty() => status.put(list, json!([{"ip": address}])),
                _ => {}
            }
        }
    }

    fn check(&self, object: &At) {
        let spec = object.field("spec");
        check_annotations(&object.field("metadata.annotations"), &spec);
        pod_spec::check(&spec, Of::Pod);
        if spec.text("serviceAccountName").is_empty() {
            spec.each("volumes", |volume| {
                volume.each("projected.sources", |source| {
                    source.optional("serviceAccountToken", |token| {
                        token.forbidden("must not be specified when serviceAccountName is not set");
                    });
                });
            });
        }
    }

    fn check_create(&self, object: &At) {
        let spec = object.field("spec");
        let (ephemeral, node) = (spec.field("ephemeralContainers"), spec.field("nodeName"));
        if !ephemeral.is_empty() {
            ephemeral.forbidden("cannot be set on create");
        }
        if !node.is_empty() && !spec.items("schedulingGates").is_empty() {
            node.forbidden("cannot be set until all schedulingGates have been cleared");
        }
    }

    fn check_update(&self, new: &At, old: &Value, context: &WriteContext) {
        check_mirror_unchanged(&new.field("metadata.annotations").key(MIRROR), old);
        match context.subresource {
            Some("status") => update::status(&new.field("status"), old),
            Some("ephemeralcontainers") => {
                update::ephemeral_containers(&new.field("spec.ephemeralContainers"), spec(old));
            }
            Some("resize") => update::resize(&new.field("spec"), spec(old)),
            Some("binding") => {}
            _ => update::pod(&new.field("spec"), spec(old)),
        }
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::of_pod(new, old)
    }

    fn grace_period_seconds(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let is_unassigned =
            object.dig(&["spec", "nodeName"]).and_then(Value::as_str).is_none_or(str::is_empty);
        let phase = object.dig(&["status", "phase"]).and_then(Value::as_str).unwrap_or_default();
        if is_unassigned || ["Failed", "Succeeded"].contains(&phase) {
            return Some(0);
        }
        let own = || object.dig(&["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
        let period = requested.or_else(own).unwrap_or_default();
        Some(if period < 0 { 1 } else { period })
    }
}

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const MIRROR: &str = "kubernetes.io/config.mirror";

fn check_annotations(annotations: &At, spec: &Value) {
    let (mirror, cost) = (annotations.key(MIRROR), annotations.key(DELETION_COST));
    if mirror.is_string() && spec.at("nodeName").is_none() {
        mirror.invalid("must set spec.nodeName if mirror pod annotation is set");
    }
    let text = cost.str();
    let is_number =
        text.parse::<i32>().is_ok() && !text.starts_with('+') && (text == "0" || !text.starts_with('0'));
    if cost.is_string() && !is_number {
        cost.invalid("must be a 32bit integer");
    }
}

/// A pod is a mirror from its beginning to its end, or never: what its node may have depends on that.
fn check_mirror_unchanged(mirror: &At, old: &Value) {
    match old.dig(&["metadata", "annotations", MIRROR]) {
        before if before.unwrap_or(&Value::Null) == mirror.value() => {}
        None => mirror.forbidden("may not add mirror pod annotation"),
        Some(_) => mirror.forbidden("may not remove or update mirror pod annotation"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_should_be_deleted_with_grace_only_where_they_run() {
        let pod = |node: &str, phase: &str| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}, "status": {"phase": phase}});
        assert_eq!(Pod.grace_period_seconds(&pod("n1", "Running"), None), Some(30));
        assert_eq!(Pod.grace_period_seconds(&pod("n1", "Running"), Some(5)), Some(5));
        assert_eq!(Pod.grace_period_seconds(&pod("n1", "Running"), Some(-1)), Some(1));
        assert_eq!(Pod.grace_period_seconds(&pod("", "Pending"), None), Some(0));
        assert_eq!(Pod.grace_period_seconds(&pod("n1", "Failed"), Some(60)), Some(0));
    }

    #[test]
    fn new_pods_should_be_pending_with_a_class() {
        let context = WriteContext { now: "2026-01-01T00:00:00Z", user: "u", ..WriteContext::default() };
        let mut pod = json!({"spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Running"}});
        Pod.prepare_for_create(&mut pod, &context);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    }
}
