//! JSON Patch, RFC 6902.

use serde_json::Value;

use super::PatchError;

/// A parsed patch.
#[derive(Clone, Debug)]
pub struct JsonPatch {}

impl JsonPatch {
    /// Reads a patch.
    pub fn parse(patch: &Value) -> Result<Self, PatchError> {
        todo!()
    }

    /// Applies it. On an error the target is half-changed and has to be dropped.
    pub fn apply(&self, target: &mut Value) -> Result<(), PatchError> {
        todo!()
    }
}
