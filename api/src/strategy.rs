//! What is special about a kind. Most kinds need little of it, many need nothing; the pipeline does the rest.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    FieldError,
    at::{self, At},
    field::same_meaning,
};

/// What a strategy may know of the request.
#[derive(Clone, Debug, Default)]
pub struct WriteContext<'a> {
    /// The time of the request, RFC 3339 with seconds.
    pub now: &'a str,
    /// Who asks.
    pub user: &'a str,
    /// The asker's UID, empty when there is none.
    pub uid: &'a str,
    /// The asker's groups.
    pub groups: &'a [String],
    /// Whatever else the authenticator knows of the asker.
    pub extra: Option<&'a BTreeMap<String, Vec<String>>>,
    /// The subresource written to, if any.
    pub subresource: Option<&'a str>,
}

/// The parts of a write that differ by kind. All on JSON trees in the storage version, all pure.
///
/// The pipeline itself validates `metadata` ([`crate::meta`]), sets and grows `metadata.generation` where
/// the row [counts it](crate::Row::counts_generation), keeps `status` on a write to the object and everything but
/// `status` on a write to `/status` (for rows that have that subresource).
pub trait Strategy: Send + Sync {
    /// Defaults that a schema cannot express, because they depend on other fields. Runs after the schema's defaults,
    /// and again after mutating admission: it changes nothing the second time.
    fn set_defaults(&self, _object: &mut Value) {}

    /// Whether this change of the object (never of a subresource other than those that write `spec`) makes the
    /// generation grow.
    fn generation_grows(&self, new: &Value, old: &Value) -> bool {
        !same_meaning(new.get("spec"), old.get("spec"))
    }

    /// Brings a new object into its first state, beyond the first status of its row. Its name and UID are there
    /// already.
    fn prepare_for_create(&self, _object: &mut Value, _context: &WriteContext) {}

    /// Decides which part of the object the verb may change, beyond what the pipeline has done.
    fn prepare_for_update(&self, _new: &mut Value, _old: &Value, _context: &WriteContext) {}

    /// Checks what the schema cannot. Not run for writes to `/status`.
    fn check(&self, _object: &At) {}

    /// Checks a new object beyond that: what may only come about later.
    fn check_create(&self, _object: &At) {}

    /// Checks the change: immutable fields, forbidden transitions. `check` runs as well, except for writes to
    /// `/status`.
    fn check_update(&self, _new: &At, _old: &Value, _context: &WriteContext) {}

    /// What [`check`](Self::check) finds.
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        at::check(object, |object| self.check(object))
    }

    /// What [`check_create`](Self::check_create) finds.
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        at::check(object, |object| self.check_create(object))
    }

    /// What [`check_update`](Self::check_update) finds.
    fn validate_update(&self, new: &Value, old: &Value, context: &WriteContext) -> Vec<FieldError> {
        at::check(new, |new| self.check_update(new, old, context))
    }

    /// What the user should know though the write succeeds.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// For kinds that are deleted gracefully, the grace period in seconds for a request that names `requested`;
    /// `None` deletes at once.
    fn grace_period_seconds(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }
}
