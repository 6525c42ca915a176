//! Namespaces: they go when everything in them has gone.

use serde_json::Value;

use super::super::common::name_of;
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch},
    names,
};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";

/// What is special about namespaces.
pub struct Namespace;

impl Strategy for Namespace {
    fn set_defaults(&self, object: &mut Value) {
        let name = name_of(object).to_string();
        if !name.is_empty()
            && let Some(labels) = object.object_mut("metadata").and_then(|m| m.object_mut("labels"))
        {
            labels.put(NAME_LABEL, name);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
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

    fn check(&self, object: &At) {
        object.each("spec.finalizers", |name| {
            name.form(names::qualified_name);
            if !name.str().contains('/') && name.str() != FINALIZER {
                name.invalid("name is neither a standard finalizer name nor is it fully qualified");
            }
        });
    }

    fn check_update(&self, new: &At, old: &Value, context: &WriteContext) {
        if context.subresource != Some("status") {
            return;
        }
        let (phase, said) = (new.field("status.phase").str(), new.field("status.Phase"));
        let is_going = old.dig(&["metadata", "deletionTimestamp"]).is_some();
        if is_going && phase != "Terminating" {
            let detail = "may only be 'Terminating' if `deletionTimestamp` is not empty";
            said.invalid_value(phase, detail);
        } else if !is_going && phase != "Active" {
            said.invalid_value(phase, "may only be 'Active' if `deletionTimestamp` is empty");
        }
    }
}
