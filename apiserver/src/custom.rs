//! Custom resources: rows that come and go with their CustomResourceDefinitions.
//!
//! Not yet: definitions are stored, but no rows are made from them.

use api::{Row, ServedVersion};
use serde_json::Value;

/// The `openAPIV3Schema` of a custom resource in one version, for OpenAPI documents.
pub(crate) fn schema_of(_row: &Row, _served: &ServedVersion) -> Option<Value> {
    None
}
