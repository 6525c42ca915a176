//! The fields of metadata that belong to the server: what a client says of them is set aside.

use api::{ApiError, FieldError, Row};
use rand::Rng;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::call::{Call, Target};

/// The letters of generated names, as upstream: no vowels, nothing that looks like something else.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// How many letters a generated name gets.
const SUFFIX_LENGTH: usize = 5;
/// The longest base of a generated name.
const BASE_LENGTH_MAX: usize = 63 - SUFFIX_LENGTH;

/// `metadata`, made when absent.
pub(crate) fn metadata_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let map = object.as_object_mut()?;
    let metadata = map.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut()
}

/// Whether a metadata field is absent, null or empty.
fn is_empty(metadata: &Map<String, Value>, field: &str) -> bool {
    metadata.get(field).is_none_or(|v| v.is_null() || v == "")
}

/// Fills in the name and namespace that the path says, and refuses others.
pub(crate) fn fit_to_path(object: &mut Value, target: &Target) -> Result<(), ApiError> {
    let metadata = metadata_mut(object).ok_or_else(|| ApiError::bad_request("metadata must be an object"))?;
    if target.row.is_namespaced() {
        if is_empty(metadata, "namespace") {
            metadata.insert("namespace".to_string(), target.namespace.as_str().into());
        } else if metadata.get("namespace").and_then(Value::as_str) != Some(target.namespace.as_str()) {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    } else {
        metadata.remove("namespace");
    }
    if target.name.is_empty() {
        return Ok(());
    }
    if is_empty(metadata, "name") {
        metadata.insert("name".to_string(), target.name.as_str().into());
    } else if metadata.get("name").and_then(Value::as_str) != Some(target.name.as_str()) {
        let said = metadata.get("name").and_then(Value::as_str).unwrap_or_default();
        return Err(ApiError::bad_request(format!(
            "the name of the object ({said}) does not match the name on the URL ({})",
            target.name
        )));
    }
    Ok(())
}

/// Gives a new object its name, if it is to be generated, and everything that the server knows of it.
pub(crate) fn fill_on_create(object: &mut Value, row: &Row, call: &Call) -> Result<(), ApiError> {
    let metadata = metadata_mut(object).ok_or_else(|| ApiError::bad_request("metadata must be an object"))?;
    if is_empty(metadata, "name")
        && let Some(base) = metadata.get("generateName").and_then(Value::as_str).filter(|b| !b.is_empty())
    {
        let name = generated_name(base);
        metadata.insert("name".to_string(), name.into());
    }
    if is_empty(metadata, "name") {
        let error = FieldError {
            reason: "FieldValueRequired",
            field: "metadata.name".to_string(),
            message: "Required value: name or generateName is required".to_string(),
        };
        return Err(ApiError::invalid(row.group(), &row.kind, "", &[error]));
    }
    check_path_segment(metadata.get("name").and_then(Value::as_str).unwrap_or_default())?;
    for field in
        ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"]
    {
        metadata.remove(field);
    }
    metadata.insert("uid".to_string(), Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_string(), call.now.as_str().into());
    if row.counts_generation {
        metadata.insert("generation".to_string(), 1.into());
    }
    Ok(())
}

/// What the metadata of every kind leaves out when it is empty, as upstream's types do.
pub(crate) fn drop_empty_metadata(object: &mut Value) {
    let Some(metadata) = metadata_mut(object) else { return };
    for field in ["annotations", "finalizers", "labels", "ownerReferences"] {
        let is_empty = match metadata.get(field) {
            Some(Value::Object(entries)) => entries.is_empty(),
            Some(Value::Array(items)) => items.is_empty(),
            _ => false,
        };
        if is_empty {
            metadata.remove(field);
        }
    }
}

/// A name is one segment of a path, and of the store's key, whatever else its kind admits.
pub(super) fn check_path_segment(name: &str) -> Result<(), ApiError> {
    let fault = match name {
        "." | ".." => Some(format!("may not be '{name}'")),
        _ => ['/', '%'].into_iter().find(|c| name.contains(*c)).map(|c| format!("may not contain '{c}'")),
    };
    match fault {
        Some(fault) => Err(ApiError::bad_request(format!("Name parameter invalid: {name:?}: {fault}"))),
        None => Ok(()),
    }
}

/// Puts back what an update may not change.
pub(crate) fn keep_on_update(new: &mut Value, live: &Value) {
    let kept = ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];
    let live = live.get("metadata").and_then(Value::as_object);
    let Some(metadata) = metadata_mut(new) else { return };
    metadata.remove("selfLink");
    for field in kept {
        match live.and_then(|m| m.get(field)) {
            Some(value) => metadata.insert(field.to_string(), value.clone()),
            None => metadata.remove(field),
        };
    }
    // The name once generated stays; what it was generated from is history.
    if let Some(base) = live.and_then(|m| m.get("generateName")) {
        metadata.entry("generateName").or_insert_with(|| base.clone());
    }
}

/// A name from its beginning.
fn generated_name(base: &str) -> String {
    let mut end = base.len().min(BASE_LENGTH_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut random = rand::rng();
    let suffix = (0..SUFFIX_LENGTH)
        .filter_map(|_| ALPHABET.get(random.random_range(0..ALPHABET.len())).map(|byte| *byte as char));
    base.get(..end).unwrap_or_default().chars().chain(suffix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_should_be_one_segment_of_a_path() {
        assert!(check_path_segment("system:node").is_ok());
        for bad in ["a/b", "..", "%2f"] {
            assert!(check_path_segment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn generated_names_should_stay_within_a_label() {
        let name = generated_name(&"a".repeat(100));
        assert_eq!(name.len(), 63);
        assert!(generated_name("web-").starts_with("web-"));
        assert_eq!(generated_name("web-").len(), 9);
    }
}
