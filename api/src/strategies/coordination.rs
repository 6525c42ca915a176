//! Leases.

use serde_json::Value;

use super::common::spec;
use crate::{
    FieldError, Strategy,
    field::{Errors, Look, Path, PathExt},
};

/// What is special about leases.
pub struct Lease;

impl Strategy for Lease {
    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        if let Some(seconds) = spec.int("leaseDurationSeconds").filter(|s| *s <= 0) {
            errors.invalid(&path.field("leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        if let Some(count) = spec.int("leaseTransitions").filter(|c| *c < 0) {
            errors.invalid(&path.field("leaseTransitions"), count, "must be greater than or equal to 0");
        }
        if !spec.text("preferredHolder").is_empty() && spec.text("strategy").is_empty() {
            let detail = "may only be specified if `strategy` is defined";
            errors.forbidden(&path.field("preferredHolder"), detail);
        }
        errors.into_vec()
    }
}
