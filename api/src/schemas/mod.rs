//! The schemas of the built-in kinds: `k8s-openapi`'s, with our overlay for what they lack.
//!
//! Built when a kind is first used, and shared from then on; definitions that several kinds use exist once.

use std::sync::Arc;

use schema::Schema;

/// The schema of a built-in kind; `None` when there is no such kind.
pub fn for_kind(_group: &str, _version: &str, _kind: &str) -> Option<Arc<Schema>> {
    todo!()
}

/// The schema of `metadata`, for [`Schema::with_envelope`].
pub fn object_meta() -> Arc<Schema> {
    todo!()
}
