//! Fills in what is absent.

use serde_json::Value;

use crate::Schema;

/// Fills in the defaults of all absent fields, also inside values that come from defaults.
pub fn fill(schema: &Schema, value: &mut Value) {
    todo!()
}
