//! Config maps.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{Strategy, WriteContext, at::At, field::Look, names};

/// The most that a config map or secret may hold.
pub(super) const BYTES_MAX: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

/// What is special about config maps.
pub struct ConfigMap;

impl Strategy for ConfigMap {
    fn check(&self, object: &At) {
        let mut bytes = 0;
        for (key, value) in object.field("data").members() {
            value.invalid_each(key, names::config_map_key(key));
            if object.dig(&["binaryData", key]).is_some() {
                value.invalid_value(key, "duplicate of key present in binaryData");
            }
            bytes += value.str().len();
        }
        bytes += check_bytes(&object.field("binaryData"));
        if bytes > BYTES_MAX {
            object.field("").too_long(BYTES_MAX);
        }
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        frozen(new, old, &["data", "binaryData"]);
    }
}

/// What is marked immutable stays as it is.
pub(super) fn frozen(new: &At, old: &Value, fields: &[&str]) {
    if !old.flag("immutable") {
        return;
    }
    if !new.flag("immutable") {
        new.field("immutable").forbidden(FROZEN);
    }
    for field in fields {
        if !new.entries(field).eq(old.entries(field)) {
            new.field(field).forbidden(FROZEN);
        }
    }
}

/// Checks the keys of data in base64; how many bytes it is.
pub(super) fn check_bytes(data: &At) -> usize {
    let mut bytes = 0;
    for (key, value) in data.members() {
        value.invalid_each(key, names::config_map_key(key));
        bytes += STANDARD.decode(value.str()).map(|bytes| bytes.len()).unwrap_or_default();
    }
    bytes
}
