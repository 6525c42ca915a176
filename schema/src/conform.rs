//! Brings a tree into the shape that its schema knows.

use serde_json::Value;

use crate::Schema;

/// What the walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conformed {
    /// The paths of the unknown fields that were dropped: `spec.template.spec.containers[0].foo`. The message of
    /// strict decoding is `unknown field "spec.foo"`.
    pub unknown: Vec<String>,
}

/// A value that the built-in type cannot hold: 400 BadRequest. The API server puts
/// `Deployment in version "v1" cannot be handled as a Deployment: ` before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TypeError {
    /// The path of the field, with indexes.
    pub field: String,
    /// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`
    pub message: String,
}

/// One walk that drops nulls as upstream's decoder does, drops unknown fields, and finds values of the wrong type in
/// built-in structures. In custom resources types are left to [`crate::validate`].
pub fn conform(schema: &Schema, value: &mut Value) -> Result<Conformed, TypeError> {
    todo!()
}
