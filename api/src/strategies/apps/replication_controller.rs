//! Replication controllers.

use serde_json::{Map, Value};

use super::{
    super::common::{
        default_template, endless_template, labels_of_template, spec_mut, take_labels_of_template,
    },
    replica_set,
};
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch},
    selector::LabelSelector,
};

/// What is special about replication controllers.
pub struct ReplicationController;

impl Strategy for ReplicationController {
    fn set_defaults(&self, object: &mut Value) {
        take_labels_of_template(object);
        let Some(spec) = spec_mut(object) else { return };
        spec.default_to("replicas", 1);
        if let Some(labels) = spec.dig(&["template", "metadata", "labels"]).cloned()
            && spec.entries("selector").next().is_none()
        {
            spec.put("selector", labels);
        }
        default_template(spec);
    }

    fn check(&self, object: &At) {
        let spec = object.field("spec");
        spec.non_negative(&["minReadySeconds", "replicas"]);
        spec.field("selector").filled("");
        if spec.at("template").is_none() {
            return spec.field("template").required("");
        }
        let none = Map::new();
        let selector = spec.at("selector").and_then(Value::as_object).unwrap_or(&none);
        labels_of_template(&spec, &LabelSelector::from_map(selector));
        endless_template(&spec, "ReplicationController");
    }

    fn check_update(&self, new: &At, _old: &Value, context: &WriteContext) {
        if context.subresource == Some("status") {
            replica_set::replica_counts(
                &new.field("status"),
                &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
            );
        }
    }
}
