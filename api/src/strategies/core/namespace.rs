//! Namespaces: they go when everything in them has gone.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch},
    names::{self, NameRule},
};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";

/// What is special about namespaces.
pub struct Namespace;

impl Strategy for Namespace {
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn set_defaults(&self, object: &mut Value) {
        let name = object.dig(&["metadata", "name"]).and_then(Value::as_str).unwrap_or_default().to_string();
        if !name.is_empty()
            && let Some(labels) = object.object_mut("metadata").and_then(|m| m.object_mut("labels"))
        {
            labels.put(NAME_LABEL, name);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.put("status", json!({"phase": "Active"}));
        let Some(spec) = object.object_mut("spec") else { return };
        let mut finalizers = spec.items("finalizers").to_vec();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
        spec.put("finalizers", finalizers);
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value, context: &WriteContext) {
        // Finalizers change through /finalize only.
        if context.subresource.is_none() {
            match old.get("spec") {
                Some(spec) => new.put("spec", spec.clone()),
                None => new.drop_field("spec"),
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec.finalizers");
        let spec = object.get("spec").unwrap_or(&Value::Null);
        for (index, name) in spec.items("finalizers").iter().filter_map(Value::as_str).enumerate() {
            let path = path.index(index);
            errors.invalid_each(&path, name, names::qualified_name(name));
            if !name.contains('/') && name != FINALIZER {
                let detail = "name is neither a standard finalizer name nor is it fully qualified";
                errors.invalid(&path, name, detail);
            }
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if context.subresource == Some("status") {
            let phase = new.dig(&["status", "phase"]).and_then(Value::as_str).unwrap_or_default();
            let is_going = old.dig(&["metadata", "deletionTimestamp"]).is_some();
            let path = Path::ROOT.field("status.Phase");
            if is_going && phase != "Terminating" {
                let detail = "may only be 'Terminating' if `deletionTimestamp` is not empty";
                errors.invalid(&path, phase, detail);
            } else if !is_going && phase != "Active" {
                errors.invalid(&path, phase, "may only be 'Active' if `deletionTimestamp` is empty");
            }
        }
        errors.into_vec()
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(Cow<'static, str>, String)> {
        let phase = object.dig(&["status", "phase"]).and_then(Value::as_str).unwrap_or_default();
        vec![("status.phase".into(), phase.to_string())]
    }
}
