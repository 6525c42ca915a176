//! The shapes of custom resources, from their structural schemas.
//!
//! What upstream does not expose to expressions has no shape: values that are kept without being described, lists and
//! maps of such, and fields whose names expressions cannot write.

use std::collections::BTreeMap;
use std::sync::Arc;

use schema::{Additional, ListType, Schema, Type};

use crate::parser::RESERVED;
use crate::shape::{Field, Kind, Merge, Shape};

/// The most bytes of a request: nothing in it can be larger.
pub const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;
/// The most characters of a duration or a time, in quotes.
const TIME_MAX: u64 = 32;
const DATE: u64 = 12;

/// The shape of a value; `None` where expressions do not see it. Of a resource they see its type and its names, described
/// or not.
pub fn shape(schema: &Schema, is_resource: bool) -> Option<Arc<Shape>> {
    let checks = schema.checks.as_deref();
    let characters = checks.and_then(|checks| checks.max_length);
    let of = |kind, elements_max, bytes_min| {
        let shape = Shape { kind, nullable: schema.nullable, elements_max, bytes_min };
        Some(Arc::new(shape))
    };
    match schema.value_type {
        Type::IntOrString => {
            of(Kind::Any, characters.map_or(REQUEST_BYTES_MAX - 2, |most| most.saturating_mul(4)), 1)
        }
        _ if is_resource => of(object(schema, true), 0, bytes_min(schema)),
        Type::Boolean => of(Kind::Bool, 0, 4),
        Type::Number => of(Kind::Double, 0, 1),
        Type::Int32 | Type::Int64 => of(Kind::Int, 0, 1),
        Type::String(_) => match checks.and_then(|checks| checks.format.as_deref()) {
            Some("byte") => of(Kind::Bytes, characters.unwrap_or(REQUEST_BYTES_MAX - 2), 2),
            Some("duration") => of(Kind::Duration, TIME_MAX, 3),
            Some("date") => of(Kind::Date, DATE, DATE),
            Some("date-time") => of(Kind::Timestamp, TIME_MAX, 21),
            _ => of(Kind::String, text_max(schema), 2),
        },
        Type::Array => {
            let items = schema.items.as_ref()?.get();
            let items = shape(items, items.embedded_resource)?;
            let most = checks.and_then(|checks| checks.max_items);
            let most = most.unwrap_or((REQUEST_BYTES_MAX - 2) / (items.bytes_min + 1));
            of(Kind::List { items, merge: merge(schema) }, most, 2)
        }
        Type::Object => match &schema.additional {
            Additional::Schema(values) => {
                let values = shape(values.get(), values.get().embedded_resource)?;
                let most = checks.and_then(|checks| checks.max_properties);
                let most = most.unwrap_or((REQUEST_BYTES_MAX - 2) / (values.bytes_min + 6));
                of(Kind::Map { values }, most, 2)
            }
            _ => of(object(schema, schema.embedded_resource), 0, bytes_min(schema)),
        },
        Type::Any => None,
    }
}

fn text_max(schema: &Schema) -> u64 {
    let checks = schema.checks.as_deref();
    if let Some(most) = checks.and_then(|checks| checks.max_length) {
        return most.saturating_mul(4);
    }
    let words = checks.and_then(|checks| checks.enumeration.as_deref()).unwrap_or_default();
    let lengths = words.iter().map(|word| word.as_str().map_or(0, str::len) as u64);
    lengths.max().unwrap_or(REQUEST_BYTES_MAX - 2)
}

fn object(schema: &Schema, is_resource: bool) -> Kind {
    let field =
        |name: &str, shape| (escaped(name).map(|name| name.into()), Field { name: name.into(), shape });
    let text = || Shape::new(Kind::String, REQUEST_BYTES_MAX - 2, 2);
    let described = schema.properties.iter().filter_map(|property| {
        let of = property.schema.get();
        Some(field(&property.name, shape(of, of.embedded_resource)?))
    });
    let mut fields: BTreeMap<Box<str>, Field> =
        described.filter_map(|(name, field)| Some((name?, field))).collect();
    if is_resource && !describes_names(schema) {
        let names = [("name", text()), ("generateName", text())];
        let names = names.into_iter().map(|(name, shape)| (name.into(), Field { name: name.into(), shape }));
        let metadata = Shape::new(Kind::Object { fields: names.collect() }, 0, 2);
        for (name, shape) in [("apiVersion", text()), ("kind", text()), ("metadata", metadata)] {
            fields.insert(name.into(), Field { name: name.into(), shape });
        }
    }
    Kind::Object { fields }
}

/// Whether a resource describes its type and its names itself. What was put there for it to have them does not.
fn describes_names(schema: &Schema) -> bool {
    let is_text = |schema: &Schema, name: &str| {
        schema
            .property(name)
            .is_some_and(|property| matches!(property.schema.get().value_type, Type::String(_)))
    };
    let metadata = schema.property("metadata").map(|property| property.schema.get());
    let has_names = metadata.is_some_and(|metadata| {
        !metadata.is_built_in() && is_text(metadata, "name") && is_text(metadata, "generateName")
    });
    has_names && is_text(schema, "kind") && is_text(schema, "apiVersion")
}

fn bytes_min(schema: &Schema) -> u64 {
    let required = schema.properties.iter().filter(|property| {
        property.default.is_none() && schema.required.iter().any(|name| **name == *property.name)
    });
    let sizes = required.filter_map(|property| {
        let of = property.schema.get();
        Some(property.name.len() as u64 + shape(of, of.embedded_resource)?.bytes_min + 4)
    });
    2 + sizes.sum::<u64>()
}

fn merge(schema: &Schema) -> Merge {
    match schema.list_type {
        ListType::Atomic => Merge::Atomic,
        ListType::Set => Merge::Set,
        ListType::Map => {
            let keys = schema.list_map_keys.iter();
            Merge::Map(keys.map(|key| escaped(key).map_or_else(|| key.clone(), Into::into)).collect())
        }
    }
}

/// A field's name as expressions write it: what they cannot spell, or mean something else by, is spelled out. `None` for
/// names that have no spelling.
pub fn escaped(name: &str) -> Option<String> {
    if RESERVED.contains(&name) || matches!(name, "true" | "null") {
        return Some(format!("__{name}__"));
    }
    let is_spelled = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    if name.is_empty()
        || name.starts_with(|first: char| first.is_ascii_digit())
        || !name.bytes().all(is_spelled)
    {
        return None;
    }
    let mut out = name.replace("__", "__underscores__");
    for (sign, spelled) in [(".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")] {
        out = out.replace(sign, spelled);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn names_should_be_spelled_as_upstream_spells_them() {
        for (name, spelled) in [
            ("plain", Some("plain")),
            ("namespace", Some("__namespace__")),
            ("x-y", Some("x__dash__y")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("a__b", Some("a__underscores__b")),
            ("1st", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(escaped(name).as_deref(), spelled, "{name}");
        }
    }
}
