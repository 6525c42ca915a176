//! Pod templates that stand on their own.

use serde_json::Value;

use super::super::{common::default_template, pod_spec};
use crate::{Strategy, at::At};

/// What is special about pod templates.
pub struct PodTemplate;

impl Strategy for PodTemplate {
    fn set_defaults(&self, object: &mut Value) {
        default_template(object);
    }

    fn generation_grows(&self, new: &Value, old: &Value) -> bool {
        new.get("template") != old.get("template")
    }

    fn check(&self, object: &At) {
        pod_spec::check_template(&object.field("template"));
    }
}
