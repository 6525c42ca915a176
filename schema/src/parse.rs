//! OpenAPI schemas to schema trees.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::{Schema, SchemaError};

/// Named definitions that schemas refer to. Grows as kinds are first used; a name once given never changes.
#[derive(Debug, Default)]
pub struct Definitions {
    cells: HashMap<Box<str>, Arc<OnceLock<Arc<Schema>>>>,
}

impl Schema {
    /// Reads the OpenAPI v3 schema of a custom resource, in which there are no references.
    pub fn from_openapi(source: &Value) -> Result<Schema, SchemaError> {
        todo!()
    }
}
