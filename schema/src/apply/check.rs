//! Whether an applied configuration fits its schema: apply, unlike the other verbs, takes nothing that it cannot own.

use std::collections::HashSet;

use serde_json::Value;

use super::field_set::shown;
use super::typed::{Shape, Typed, fields, items};
use crate::node::{Additional, ListType, Schema, Type};

/// What does not fit, in upstream's words: `.spec.foo: field not declared in schema`.
pub(super) fn faults(schema: &Schema, value: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    node(Typed::of(schema), value, "", &mut errors);
    errors
}

fn node(typed: Typed<'_>, value: &Value, path: &str, errors: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    if let Some(wanted) = wanted(typed.schema.value_type, value) {
        errors.push(format!("{path}: expected {wanted}, got {}", got(value)));
        return;
    }
    match value {
        Value::Object(_) => {
            for (key, child) in fields(Some(value)).iter() {
                let path = format!("{path}.{key}");
                let is_unknown = !typed.declares(key)
                    && matches!(typed.schema.additional, Additional::Unknown)
                    && !typed.schema.preserve_unknown;
                if is_unknown {
                    errors.push(format!("{path}: field not declared in schema"));
                } else {
                    node(typed.field(key), child, &path, errors);
                }
            }
        }
        Value::Array(_) => list(typed, value, path, errors),
        _ => {}
    }
}

fn list(typed: Typed<'_>, value: &Value, path: &str, errors: &mut Vec<String>) {
    let is_keyed = typed.shape([Some(value), None]) == Shape::List;
    let mut seen = HashSet::new();
    for (index, item) in items(Some(value)).iter().enumerate() {
        if !is_keyed {
            node(typed.item(), item, &format!("{path}[{index}]"), errors);
            continue;
        }
        if typed.schema.list_type == ListType::Map {
            let missing = typed.schema.list_map_keys.iter().find(|key| typed.key_of(item, key).is_none());
            if let Some(key) = missing {
                errors.push(format!(
                    "{path}: element {index}: associative list with keys has an element that omits key field \
                     {key:?} (and doesn't have default value)"
                ));
                continue;
            }
        }
        let name = typed.name_of(item);
        let path_of_item = format!("{path}{}", shown(&name));
        if !seen.insert(name) {
            let key = path_of_item.strip_prefix(path).unwrap_or_default();
            errors.push(format!("{path}: duplicate entries for key {key}"));
        }
        node(typed.item(), item, &path_of_item, errors);
    }
}

/// What the type asks for, if the value is not it.
fn wanted(value_type: Type, value: &Value) -> Option<&'static str> {
    let (fits, wanted) = match value_type {
        Type::Any => (true, ""),
        Type::Object => (value.is_object(), "map"),
        Type::Array => (value.is_array(), "list"),
        Type::String(crate::ScalarFormat::Quantity) | Type::IntOrString => {
            (value.is_string() || value.is_number(), "scalar")
        }
        Type::String(_) => (value.is_string(), "string"),
        Type::Int32 | Type::Int64 | Type::Number => (value.is_number(), "numeric (int or float)"),
        Type::Boolean => (value.is_boolean(), "boolean"),
    };
    (!fits).then_some(wanted)
}

fn got(value: &Value) -> String {
    match value {
        Value::Object(_) => "map".to_string(),
        Value::Array(_) => "list".to_string(),
        other => other.to_string(),
    }
}
