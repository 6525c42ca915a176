//! Structural validation, in upstream's words.

use serde_json::Value;

use crate::{FieldError, Schema};

/// What is wrong with the value. Empty when nothing is.
pub fn validate(schema: &Schema, value: &Value) -> Vec<FieldError> {
    todo!()
}
