//! Replica sets.

use std::borrow::Cow;

use serde_json::Value;

use super::super::{
    common::{default_template, endless_template, immutable, non_negative, selector_of_template, spec},
    pod,
};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch},
};

/// What is special about replica sets.
pub struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
        spec.default_to("replicas", 1);
        default_template(spec);
    }

    fn tracks_generation(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.put("status", serde_json::json!({"replicas": 0}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        non_negative(&mut errors, &path, spec, &["replicas", "minReadySeconds"]);
        // Upstream says deployment here as well.
        selector_of_template(&mut errors, &path, spec, "deployment");
        endless_template(&mut errors, &path, spec, "ReplicaSet");
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if context.subresource == Some("status") {
            let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
            replica_counts(&mut errors, new.get("status").unwrap_or(&Value::Null), &parts);
        } else {
            immutable(&mut errors, &Path::ROOT.field("spec"), spec(new), spec(old), &["selector"]);
        }
        errors.into_vec()
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        pod::warnings_of_template(new, old)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(Cow<'static, str>, String)> {
        let replicas = object.dig(&["status", "replicas"]).and_then(Value::as_i64).unwrap_or_default();
        vec![("status.replicas".into(), replicas.to_string())]
    }
}

/// The counts of a status, none of which exceeds that of all replicas.
pub(super) fn replica_counts(errors: &mut Errors, status: &Value, parts: &[&str]) {
    let path = Path::ROOT.field("status");
    non_negative(errors, &path, status, &["replicas", "observedGeneration"]);
    non_negative(errors, &path, status, parts);
    let all = status.int("replicas").unwrap_or_default();
    for name in parts {
        if let Some(count) = status.int(name).filter(|count| *count > all) {
            errors.invalid(&path.field(name), count, "cannot be greater than status.replicas");
        }
    }
    let available = status.int("availableReplicas").unwrap_or_default();
    if available > status.int("readyReplicas").unwrap_or_default() {
        errors.invalid(&path.field("availableReplicas"), available, "cannot be greater than readyReplicas");
    }
}
