//! Controller revisions: past states of daemon sets and stateful sets.

use serde_json::Value;

use super::super::common::immutable;
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt},
};

/// What is special about controller revisions.
pub struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if object.at("data").is_none() {
            errors.required(&Path::ROOT.field("data"), "data is mandatory");
        }
        let revision = object.int("revision").unwrap_or_default();
        if revision < 0 {
            let detail = "must be greater than or equal to 0";
            errors.invalid(&Path::ROOT.field("revision"), revision, detail);
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        immutable(&mut errors, &Path::ROOT, new, old, &["data"]);
        errors.into_vec()
    }
}
