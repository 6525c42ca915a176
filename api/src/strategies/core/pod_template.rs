//! Pod templates that stand on their own.

use serde_json::Value;

use super::super::pod_spec;
use crate::{
    FieldError, Strategy,
    field::{Errors, Path, PathExt},
};

/// What is special about pod templates.
pub struct PodTemplate;

impl Strategy for PodTemplate {
    fn set_defaults(&self, object: &mut Value) {
        let spec = object.get_mut("template").and_then(|template| template.get_mut("spec"));
        if let Some(spec) = spec.filter(|s| s.is_object()) {
            pod_spec::defaults::set(spec);
        }
    }

    fn tracks_generation(&self) -> bool {
        true
    }

    fn generation_grows(&self, new: &Value, old: &Value) -> bool {
        new.get("template") != old.get("template")
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let template = object.get("template").unwrap_or(&Value::Null);
        pod_spec::validate_template(&mut errors, &Path::ROOT.field("template"), template);
        errors.into_vec()
    }
}
