//! JSON Merge Patch, RFC 7386.

use serde_json::Value;

/// Applies a merge patch. It cannot fail; whether the result is an object is for the caller to check.
pub fn apply(patch: &Value, target: &mut Value) {
    todo!()
}
