//! Storage classes and what CSI drivers say about themselves.

use serde_json::Value;

use super::common::{immutable, one_of};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch},
    names,
};

/// What is special about storage classes.
pub struct StorageClass;

impl Strategy for StorageClass {
    fn set_defaults(&self, object: &mut Value) {
        object.default_text("reclaimPolicy", "Delete");
        object.default_text("volumeBindingMode", "Immediate");
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let provisioner = object.text("provisioner");
        let path = Path::ROOT.field("provisioner");
        if provisioner.is_empty() {
            errors.required(&path, "");
        } else {
            errors.invalid_each(&path, provisioner, names::qualified_name(&provisioner.to_lowercase()));
        }
        let parameters = Path::ROOT.field("parameters");
        for (key, _) in object.entries("parameters").filter(|(key, _)| key.is_empty()) {
            errors.invalid(&parameters, key.as_str(), "field can not be empty.");
        }
        one_of(&mut errors, &Path::ROOT.field("reclaimPolicy"), object, &["Delete", "Retain"]);
        let modes = ["Immediate", "WaitForFirstConsumer"];
        one_of(&mut errors, &Path::ROOT.field("volumeBindingMode"), object, &modes);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let fixed = ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"];
        immutable(&mut errors, &Path::ROOT, new, old, &fixed);
        errors.into_vec()
    }
}

/// What is special about volume attachments.
pub struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.put("status", serde_json::json!({"attached": false}));
    }

    fn validate_update(&self, new: &Value, old: &Value, context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if context.subresource.is_none() {
            immutable(&mut errors, &Path::ROOT, new, old, &["spec"]);
        }
        errors.into_vec()
    }
}
