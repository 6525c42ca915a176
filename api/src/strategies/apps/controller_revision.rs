//! Controller revisions: past states of daemon sets and stateful sets.

use serde_json::Value;

use crate::{Strategy, WriteContext, at::At, field::Look};

/// What is special about controller revisions.
pub struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn check(&self, object: &At) {
        if object.at("data").is_none() {
            object.field("data").required("data is mandatory");
        }
        object.non_negative(&["revision"]);
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        new.fixed(old, &["data"]);
    }
}
