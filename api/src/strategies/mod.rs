//! What is special about each built-in kind: one file per kind or family.

pub mod pod;
pub mod pod_spec;

use std::sync::Arc;

use crate::Strategy;

/// Nothing is special.
pub struct Plain;

impl Strategy for Plain {}

/// The strategy of a built-in kind.
pub fn for_kind(group: &str, kind: &str) -> Arc<dyn Strategy> {
    match (group, kind) {
        ("", "Pod") => Arc::new(pod::Pod),
        _ => Arc::new(Plain),
    }
}
