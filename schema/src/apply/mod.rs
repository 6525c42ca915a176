//! Server-side apply and the tracking of who owns which field.

use serde_json::Value;

use crate::{FieldError, Schema};

mod field_set;

pub use field_set::FieldSet;

/// Fields that nobody comes to own through an endpoint, because it resets them. Paths are dotted: `metadata.labels`.
#[derive(Clone, Copy, Debug, Default)]
pub enum Reset<'a> {
    /// None.
    #[default]
    Nothing,
    /// These, with all below: `["status"]` on writes to the object itself where it has a status subresource.
    Subtrees(&'a [&'a str]),
    /// All but these and what is below: `["status"]` on writes to `/status`.
    AllBut(&'a [&'a str]),
}

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The field manager, see [`manager_name`].
    pub manager: &'a str,
    /// The version in which the request speaks: `apps/v1`.
    pub api_version: &'a str,
    /// The subresource written to, or the empty string.
    pub subresource: &'a str,
    /// The time of the request, RFC 3339 with seconds.
    pub now: &'a str,
    /// What the endpoint resets.
    pub reset: Reset<'a>,
}

/// Why an apply fails.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// Others own fields that the request changes: 409 Conflict, with a cause per field (`FieldManagerConflict`).
    /// Retrying with force takes them over.
    #[error("{message}")]
    Conflicts {
        /// For people.
        message: String,
        /// One per field; the reason is `FieldManagerConflict`.
        causes: Vec<FieldError>,
    },
    /// The request is wrong: 400 BadRequest.
    #[error("{0}")]
    Invalid(String),
}

/// The manager that a request without `fieldManager` writes as: the client's name from its user agent.
pub fn manager_name(user_agent: &str) -> String {
    let name = user_agent.split('/').next().unwrap_or_default();
    name.chars().filter(|c| !c.is_control()).take(128).collect()
}

/// Merges what the manager applies into the live object (null when there is none) and returns the result, with its
/// new `metadata.managedFields`. `applied` must not carry managed fields.
pub fn apply(
    schema: &Schema,
    live: &Value,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    todo!()
}

/// Sets the managed fields of an object that another verb than apply has changed from `live` (null on create) to
/// `new`.
pub fn track_update(schema: &Schema, live: &Value, new: &mut Value, writer: &Writer<'_>) {
    todo!()
}
