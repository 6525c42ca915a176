//! The form in which objects are stored and held.

use std::io::Write;

use serde_json::Value;

/// Encodes an object for the store: `kind`, `apiVersion` and `metadata` first, without `metadata.resourceVersion`, which
/// the store's revision gives on the way out.
pub(crate) fn encode(object: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"{\"kind\":");
    write_json(&mut out, object.get("kind").unwrap_or(&Value::Null));
    out.extend_from_slice(b",\"apiVersion\":");
    write_json(&mut out, object.get("apiVersion").unwrap_or(&Value::Null));
    out.extend_from_slice(b",\"metadata\":");
    match object.get("metadata").and_then(Value::as_object) {
        Some(metadata) => {
            write_members(&mut out, metadata.iter().filter(|(key, _)| *key != "resourceVersion"));
        }
        None => out.extend_from_slice(b"{}"),
    }
    for (key, value) in object.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
            out.push(b',');
            write_member(&mut out, key, value);
        }
    }
    out.push(b'}');
    // The store and the cache keep the buffer as it is.
    out.shrink_to_fit();
    out
}

fn write_members<'a>(out: &mut Vec<u8>, members: impl Iterator<Item = (&'a String, &'a Value)>) {
    out.push(b'{');
    for (index, (key, value)) in members.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_member(out, key, value);
    }
    out.push(b'}');
}

fn write_member(out: &mut Vec<u8>, key: &str, value: &Value) {
    write_json(out, &key);
    out.push(b':');
    write_json(out, value);
}

fn write_json(out: &mut impl Write, value: &impl serde::Serialize) {
    // Writing a tree to memory cannot fail: its keys are strings.
    if let Err(error) = serde_json::to_writer(out, value) {
        tracing::error!(%error, "a tree could not be encoded");
    }
}
