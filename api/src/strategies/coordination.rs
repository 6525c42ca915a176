//! Leases.

use crate::{Strategy, at::At, field::Look};

/// What is special about leases.
pub struct Lease;

impl Strategy for Lease {
    fn check(&self, object: &At) {
        let spec = object.field("spec");
        spec.field("leaseDurationSeconds").within(1.., "must be greater than 0");
        spec.non_negative(&["leaseTransitions"]);
        if !spec.text("preferredHolder").is_empty() && spec.text("strategy").is_empty() {
            spec.field("preferredHolder").forbidden("may only be specified if `strategy` is defined");
        }
    }
}
