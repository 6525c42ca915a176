//! The fields that an applied configuration names.

use std::collections::BTreeMap;

use serde_json::Value;

use super::field_set::FieldSet;
use super::typed::{Shape, Typed, fields, items};
use crate::Schema;

/// Every field that the object sets.
pub(super) fn collect(schema: &Schema, value: &Value) -> FieldSet {
    node(Typed::of(schema), value).1
}

/// Whether the value itself is owned as a whole, and what is owned below it.
fn node(typed: Typed<'_>, value: &Value) -> (bool, FieldSet) {
    let mut set = FieldSet::default();
    match typed.shape([Some(value), None]) {
        Shape::Leaf => return (true, set),
        Shape::Map => {
            for (key, child) in fields(Some(value)).iter() {
                let (whole, below) = node(typed.field(key), child);
                let is_empty = child.is_null() || child.as_object().is_some_and(|map| map.is_empty());
                set.put(format!("f:{key}"), whole || is_empty || !typed.declares(key), below);
            }
        }
        Shape::List => {
            let mut named: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
            for item in items(Some(value)) {
                named.entry(typed.name_of(item)).or_default().push(item);
            }
            for (name, found) in named {
                let below = match found.as_slice() {
                    [only] => node(typed.item(), only).1,
                    _ => FieldSet::default(),
                };
                set.put(name, true, below);
            }
        }
    }
    (false, set)
}

/// The set with the structures on the way to its members: they are normally nobody's, but when they are to be removed
/// with all that is in them, they have to be named.
pub(super) fn with_structures(typed: Typed<'_>, set: &FieldSet) -> FieldSet {
    let mut complete = FieldSet::default();
    for (element, member, below) in set.elements() {
        let is_structure =
            !below.is_empty() && element.strip_prefix("f:").is_some_and(|name| typed.declares(name));
        let below = with_structures(typed.element(element), &below);
        complete.put(element.clone(), member || is_structure, below);
    }
    complete
}

/// The value without the elements of the set; what loses all its children stays as an empty one.
pub(super) fn remove(typed: Typed<'_>, value: &Value, set: &FieldSet) -> Option<Value> {
    match (typed.shape([Some(value), None]), value) {
        (Shape::Map, Value::Object(map)) => {
            let mut left = serde_json::Map::new();
            let mut touched = map.is_empty();
            for (key, child) in map {
                let element = format!("f:{key}");
                if set.has(&element) {
                    continue;
                }
                let child = match set.below(&element) {
                    Some(below) => {
                        touched = true;
                        remove_below(typed.field(key), child, &below)
                    }
                    None => child.clone(),
                };
                let _absent = left.insert(key.clone(), child);
            }
            (touched || !left.is_empty()).then_some(Value::Object(left))
        }
        (Shape::List, Value::Array(list)) => {
            let mut left = Vec::new();
            let mut touched = list.is_empty();
            for item in list {
                let element = typed.name_of(item);
                if set.has(&element) {
                    continue;
                }
                left.push(match set.below(&element) {
                    Some(below) => {
                        touched = true;
                        remove_below(typed.item(), item, &below)
                    }
                    None => item.clone(),
                });
            }
            (touched || !left.is_empty()).then_some(Value::Array(left))
        }
        (Shape::Leaf, Value::Object(_) | Value::Array(_)) => None,
        (_, other) => Some(other.clone()),
    }
}

fn remove_below(typed: Typed<'_>, value: &Value, set: &FieldSet) -> Value {
    remove(typed, value, set).unwrap_or_else(|| match value {
        Value::Object(_) => Value::Object(serde_json::Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    })
}
