//! Config maps.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt},
    names,
};

/// The most that a config map or secret may hold.
pub(super) const BYTES_MAX: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

/// What is special about config maps.
pub struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let mut bytes = 0;
        let data = Path::ROOT.field("data");
        let binary = object.get("binaryData").unwrap_or(&Value::Null);
        for (key, value) in object.entries("data") {
            errors.invalid_each(&data.key(key), key, names::config_map_key(key));
            if binary.get(key).is_some() {
                errors.invalid(&data.key(key), key.as_str(), "duplicate of key present in binaryData");
            }
            bytes += value.as_str().unwrap_or_default().len();
        }
        let binary = Path::ROOT.field("binaryData");
        for (key, value) in object.entries("binaryData") {
            errors.invalid_each(&binary.key(key), key, names::config_map_key(key));
            bytes += decoded_length(value);
        }
        if bytes > BYTES_MAX {
            errors.too_long(&Path::ROOT.field(""), BYTES_MAX);
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        frozen(&mut errors, new, old, &["data", "binaryData"]);
        errors.into_vec()
    }
}

/// What is marked immutable stays as it is.
pub(super) fn frozen(errors: &mut Errors, new: &Value, old: &Value, fields: &[&str]) {
    if !old.flag("immutable") {
        return;
    }
    if !new.flag("immutable") {
        errors.forbidden(&Path::ROOT.field("immutable"), FROZEN);
    }
    for field in fields {
        let entries = |object: &Value| object.at(field).cloned().unwrap_or(Value::Object(Map::new()));
        if entries(new) != entries(old) {
            errors.forbidden(&Path::ROOT.field(field), FROZEN);
        }
    }
}

/// The bytes behind base64 text.
pub(super) fn decoded_length(value: &Value) -> usize {
    STANDARD.decode(value.as_str().unwrap_or_default()).map(|bytes| bytes.len()).unwrap_or_default()
}
