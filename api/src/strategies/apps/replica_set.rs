//! Replica sets.

use serde_json::Value;

use super::super::{
    common::{default_template, endless_template, selector_of_template, spec, spec_mut},
    pod,
};
use crate::{Strategy, WriteContext, at::At, field::Touch};

/// What is special about replica sets.
pub struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = spec_mut(object) else { return };
        spec.default_to("replicas", 1);
        default_template(spec);
    }

    fn check(&self, object: &At) {
        let spec = object.field("spec");
        spec.non_negative(&["replicas", "minReadySeconds"]);
        // Upstream says deployment here as well.
        selector_of_template(&spec, "deployment");
        endless_template(&spec, "ReplicaSet");
    }

    fn check_update(&self, new: &At, old: &Value, context: &WriteContext) {
        if context.subresource == Some("status") {
            replica_counts(
                &new.field("status"),
                &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
            );
        } else {
            new.field("spec").fixed(spec(old), &["selector"]);
        }
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        pod::warnings_of_template(new, old)
    }
}

/// The counts of a status, none of which exceeds that of all replicas.
pub(super) fn replica_counts(status: &At, parts: &[&str]) {
    status.non_negative(&["replicas", "observedGeneration"]);
    status.non_negative(parts);
    for name in parts {
        let all = status.field("replicas").number();
        status.field(name).within(..=all, "cannot be greater than status.replicas");
    }
    let ready = status.field("readyReplicas").number();
    status.field("availableReplicas").within(..=ready, "cannot be greater than readyReplicas");
}
