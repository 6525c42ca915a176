//! What is special about a kind. Most kinds need little of it, many need nothing; the pipeline does the rest.

use serde_json::Value;

use crate::FieldError;

/// What a strategy may know of the request.
#[derive(Clone, Debug)]
pub struct WriteContext<'a> {
    /// The time of the request, RFC 3339 with seconds.
    pub now: &'a str,
    /// Who asks.
    pub user: &'a str,
    /// The subresource written to, if any.
    pub subresource: Option<&'a str>,
}

/// The parts of a write that differ by kind. All on JSON trees in the storage version, all pure.
pub trait Strategy: Send + Sync {
    /// Defaults that a schema cannot express, because they depend on other fields. Runs after the schema's defaults.
    fn set_defaults(&self, _object: &mut Value) {}

    /// Brings a new object into its first state: drops status, sets generation.
    fn prepare_for_create(&self, _object: &mut Value, _context: &WriteContext) {}

    /// Decides which half of the object the verb may change. The pipeline has already kept `status` on a write to
    /// the object and everything but `status` on a write to `/status`, and grows `generation` when `spec` changes.
    fn prepare_for_update(&self, _new: &mut Value, _old: &Value, _context: &WriteContext) {}

    /// What is wrong with the object, beyond the schema.
    fn validate(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with the change: immutable fields, forbidden transitions. `validate` runs as well.
    fn validate_update(&self, _new: &Value, _old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        Vec::new()
    }

    /// What the user should know though the write succeeds.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Field selectors beyond `metadata.name` and `metadata.namespace`, with the object's values.
    fn selectable_fields(&self, _object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// For kinds that are deleted gracefully, the grace period in seconds for a request that names `requested`;
    /// `None` deletes at once.
    fn grace_period_seconds(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }
}
