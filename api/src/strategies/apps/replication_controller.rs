//! Replication controllers.

use std::borrow::Cow;

use serde_json::Value;

use super::{
    super::common::{default_template, endless_template, non_negative, spec},
    replica_set,
};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch},
    selector::LabelSelector,
};

/// What is special about replication controllers.
pub struct ReplicationController;

impl Strategy for ReplicationController {
    fn set_defaults(&self, object: &mut Value) {
        let labels = object.dig(&["spec", "template", "metadata", "labels"]).cloned();
        let has_labels = object.get("metadata").is_some_and(|m| m.entries("labels").next().is_some());
        if let Some(labels) = &labels
            && !has_labels
            && let Some(metadata) = object.object_mut("metadata")
        {
            metadata.put("labels", labels.clone());
        }
        let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
        spec.default_to("replicas", 1);
        if let Some(labels) = labels
            && spec.entries("selector").next().is_none()
        {
            spec.put("selector", labels);
        }
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
        non_negative(&mut errors, &path, spec, &["minReadySeconds", "replicas"]);
        let empty = serde_json::Map::new();
        let map = spec.at("selector").and_then(Value::as_object).unwrap_or(&empty);
        if map.is_empty() {
            errors.required(&path.field("selector"), "");
        }
        if spec.at("template").is_none() {
            errors.required(&path.field("template"), "");
            return errors.into_vec();
        }
        let labels = spec.dig(&["template", "metadata", "labels"]).unwrap_or(&Value::Null);
        if !LabelSelector::from_map(map).matches(labels) {
            let path = path.field("template.metadata.labels");
            errors.invalid(&path, labels.clone(), "`selector` does not match template `labels`");
        }
        endless_template(&mut errors, &path, spec, "ReplicationController");
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, _old: &Value, context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if context.subresource == Some("status") {
            let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
            replica_set::replica_counts(&mut errors, new.get("status").unwrap_or(&Value::Null), &parts);
        }
        errors.into_vec()
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(Cow<'static, str>, String)> {
        let replicas = object.dig(&["status", "replicas"]).and_then(Value::as_i64).unwrap_or_default();
        vec![("status.replicas".into(), replicas.to_string())]
    }
}
