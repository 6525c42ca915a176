//! The envelope that every object shares, read from the JSON tree without decoding the rest.

use serde_json::Value;

/// `metadata.<field>` as text.
pub fn metadata<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object.get("metadata")?.get(field)?.as_str()
}

/// `metadata.name`, or the empty string.
pub fn name(object: &Value) -> &str {
    metadata(object, "name").unwrap_or_default()
}

/// `metadata.namespace`, or the empty string.
pub fn namespace(object: &Value) -> &str {
    metadata(object, "namespace").unwrap_or_default()
}
