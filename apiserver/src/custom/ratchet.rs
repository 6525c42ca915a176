//! Ratcheting: a schema that has become stricter does not stand in the way of changes elsewhere in an object.
//!
//! Deliberately simple: elements of lists count as unchanged only where the whole list is.

use api::FieldError;
use serde_json::Value;

/// What upstream lets pass where the value at fault was there before. What is missing, or there twice, is never let
/// pass.
const RATCHETED: [&str; 4] =
    ["FieldValueInvalid", "FieldValueNotSupported", "FieldValueTooLong", "FieldValueTooMany"];

/// Whether the fault is of a value that this write has not touched.
pub(crate) fn is_old(fault: &FieldError, new: &Value, old: &Value) -> bool {
    RATCHETED.contains(&fault.reason)
        && at(new, &fault.field).is_some_and(|value| Some(value) == at(old, &fault.field))
}

/// The value at a path, or the list that the path leads through.
fn at<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    let mut here = tree;
    let mut rest = path;
    while !rest.is_empty() {
        let (key, after) = match rest.strip_prefix('[') {
            Some(_) if here.is_array() => return Some(here),
            Some(inner) => inner.split_once(']')?,
            None => rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len())),
        };
        here = here.get(key)?;
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    Some(here)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_was_wrong_before_should_be_let_pass() {
        let old = json!({"spec": {"a": 1, "map": {"x.y": 5}, "list": [{"b": 1}]}});
        let mut new = old.clone();
        new["spec"]["list"][0]["b"] = 2.into();
        let fault = |reason, field: &str| FieldError { reason, field: field.into(), message: String::new() };
        for (reason, field, passes) in [
            ("FieldValueInvalid", "spec.a", true),
            ("FieldValueInvalid", "spec.map[x.y]", true),
            ("FieldValueInvalid", "spec.list[0].b", false),
            ("FieldValueRequired", "spec.a", false),
            ("FieldValueInvalid", "spec.missing", false),
            ("FieldValueInvalid", "spec", false),
        ] {
            assert_eq!(is_old(&fault(reason, field), &new, &old), passes, "{reason} {field}");
        }
        assert!(is_old(&fault("FieldValueTooLong", "spec.list[0].b"), &old, &old));
    }
}
