//! Brings a tree into the shape that its schema knows.
//!
//! Guarantees: afterwards no unknown field and no null is left where the schema does not admit it; in built-in
//! structures every value has the type that its field can hold, and times, quantities and base64 texts are in their
//! canonical form, as upstream's decoder leaves them.
//! Deliberately absent: dropping of empty values. Upstream's structs lose `""`, `0`, `false` and `{}` in optional
//! fields that are not pointers; here they stay as the client wrote them.

use serde_json::{Map, Value};

use crate::decode::{FAULTS_MAX, told};
use crate::node::{Additional, ScalarFormat, Schema, Type};
use crate::path::{Path, Step};
use crate::scalar;

/// What the walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conformed {
    /// The paths of the unknown fields that were dropped, the first hundred: `spec.template.spec.containers[0].foo`. The message of
    /// strict decoding is `unknown field "spec.foo"`.
    pub unknown: Vec<String>,
}

/// A value that the built-in type cannot hold: 400 BadRequest. The API server puts
/// `Deployment in version "v1" cannot be handled as a Deployment: ` before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TypeError {
    /// The path of the field, with indexes.
    pub field: String,
    /// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`
    pub message: String,
}

/// One walk that drops nulls as upstream's decoder does, drops unknown fields, and finds values of the wrong type in
/// built-in structures. In custom resources types are left to [`crate::validate`].
pub fn conform(schema: &Schema, value: &mut Value) -> Result<Conformed, TypeError> {
    let mut walk = Walk { found: Conformed::default() };
    let place = Place { path: &Path::ROOT, owner: "", built_in: schema.is_built_in() };
    walk.value(schema, value, place)?;
    Ok(walk.found)
}

struct Walk {
    found: Conformed,
}

/// Where the walk is.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a Path<'a>,
    /// The structure that the field belongs to, for messages.
    owner: &'a str,
    built_in: bool,
}

impl Walk {
    fn value(&mut self, schema: &Schema, value: &mut Value, place: Place<'_>) -> Result<(), TypeError> {
        let place = Place { built_in: place.built_in || schema.is_built_in(), ..place };
        if place.built_in {
            fit(schema, value, place)?;
        }
        match value {
            Value::Object(map) => self.object(schema, map, place),
            Value::Array(list) => self.list(schema, list, place),
            _ => Ok(()),
        }
    }

    fn object(
        &mut self,
        schema: &Schema,
        map: &mut Map<String, Value>,
        place: Place<'_>,
    ) -> Result<(), TypeError> {
        if schema.properties.is_empty() && matches!(schema.additional, Additional::Any) {
            return Ok(());
        }
        let owner = schema.name.as_deref().unwrap_or(place.owner);
        let mut failed = None;
        map.retain(|key, value| {
            if failed.is_some() {
                return true;
            }
            let path = place.path.child(Step::Field(key));
            let keep = self.field(schema, key, value, Place { path: &path, owner, ..place });
            keep.unwrap_or_else(|error| {
                failed = Some(error);
                true
            })
        });
        failed.map_or(Ok(()), Err)
    }

    /// Whether the field stays.
    fn field(
        &mut self,
        schema: &Schema,
        key: &str,
        value: &mut Value,
        place: Place<'_>,
    ) -> Result<bool, TypeError> {
        if let Some(property) = schema.property(key) {
            let described = property.schema.get();
            if value.is_null() {
                return Ok(!place.built_in && described.nullable);
            }
            return self.value(described, value, place).map(|()| true);
        }
        match &schema.additional {
            Additional::Any => Ok(true),
            Additional::Schema(link) => {
                let described = link.get();
                if value.is_null() && !fill_null(described, value, place.built_in) {
                    return Ok(false);
                }
                self.value(described, value, place).map(|()| true)
            }
            Additional::Unknown if schema.preserve_unknown => Ok(true),
            Additional::Unknown => {
                if self.found.unknown.len() < FAULTS_MAX {
                    self.found.unknown.push(told(&place.path.to_string()));
                }
                Ok(false)
            }
        }
    }

    fn list(&mut self, schema: &Schema, list: &mut [Value], place: Place<'_>) -> Result<(), TypeError> {
        let Some(items) = &schema.items else { return Ok(()) };
        let items = items.get();
        for (index, item) in list.iter_mut().enumerate() {
            if item.is_null() {
                fill_null(items, item, place.built_in);
            }
            let path = place.path.child(Step::Index(index));
            self.value(items, item, Place { path: &path, ..place })?;
        }
        Ok(())
    }
}

/// What a null becomes in a free map or a list: the zero value in built-ins, the default (if any) in custom resources.
/// Returns whether it stays at all in a map.
fn fill_null(schema: &Schema, value: &mut Value, built_in: bool) -> bool {
    if schema.nullable {
        return true;
    }
    if !built_in {
        let Some(default) = &schema.default else { return false };
        *value = (**default).clone();
        return true;
    }
    *value = match schema.value_type {
        Type::String(ScalarFormat::Quantity) => Value::from("0"),
        Type::String(_) => Value::from(""),
        Type::Int32 | Type::Int64 | Type::Number | Type::IntOrString => Value::from(0),
        Type::Boolean => Value::from(false),
        Type::Object => Value::Object(Map::new()),
        Type::Array | Type::Any => Value::Null,
    };
    true
}

/// Checks that the built-in type can hold the value, and brings scalars into their canonical form.
fn fit(schema: &Schema, value: &mut Value, place: Place<'_>) -> Result<(), TypeError> {
    let fits = match (schema.value_type, &*value) {
        (Type::Any, _) | (_, Value::Null) => true,
        (Type::Object, Value::Object(_)) | (Type::Array, Value::Array(_)) => true,
        (Type::Boolean, Value::Bool(_)) | (Type::Number, Value::Number(_)) => true,
        (Type::String(ScalarFormat::Quantity), Value::Number(_)) => return canonical(schema, value, place),
        (Type::String(ScalarFormat::Plain), Value::String(_)) => true,
        (Type::String(_), Value::String(_)) => return canonical(schema, value, place),
        (Type::Int32 | Type::IntOrString, Value::Number(n)) => {
            n.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
        }
        (Type::Int64, Value::Number(n)) => n.as_i64().is_some(),
        (Type::IntOrString, Value::String(_)) => true,
        _ => false,
    };
    if fits { Ok(()) } else { Err(mismatch(schema, value, place)) }
}

fn canonical(schema: &Schema, value: &mut Value, place: Place<'_>) -> Result<(), TypeError> {
    let Type::String(format) = schema.value_type else { return Ok(()) };
    let number;
    let text = match &*value {
        Value::String(text) => text.as_str(),
        other => {
            number = other.to_string();
            number.as_str()
        }
    };
    let result = match format {
        ScalarFormat::Plain => Ok(None),
        ScalarFormat::Bytes => scalar::canonical_base64(text),
        ScalarFormat::Time => scalar::canonical_time(text, 0),
        ScalarFormat::MicroTime => scalar::canonical_time(text, 6),
        ScalarFormat::Quantity => scalar::canonical_quantity(text),
    };
    match result {
        Ok(None) if value.is_number() => *value = Value::String(text.to_string()),
        Ok(None) => {}
        Ok(Some(better)) => *value = Value::String(better),
        Err(message) => return Err(TypeError { field: place.path.to_string(), message }),
    }
    Ok(())
}

fn mismatch(schema: &Schema, value: &Value, place: Place<'_>) -> TypeError {
    let is_integer_field = matches!(schema.value_type, Type::Int32 | Type::Int64 | Type::IntOrString);
    let got = match value {
        Value::Null => "null".to_string(),
        Value::Bool(_) => "bool".to_string(),
        Value::Number(number) if is_integer_field => format!("number {number}"),
        Value::Number(_) => "number".to_string(),
        Value::String(_) => "string".to_string(),
        Value::Array(_) => "array".to_string(),
        Value::Object(_) => "object".to_string(),
    };
    let structure = place.owner.rsplit('.').next().unwrap_or_default();
    let fields = place.path.field_names();
    let into = if structure.is_empty() || fields.is_empty() {
        format!("Go value of type {}", go_type(schema))
    } else {
        format!("Go struct field {structure}.{fields} of type {}", go_type(schema))
    };
    TypeError { field: place.path.to_string(), message: format!("json: cannot unmarshal {got} into {into}") }
}

/// The type's name as upstream's decoder shows it.
fn go_type(schema: &Schema) -> String {
    if let Some(name) = &schema.name {
        return name.to_string();
    }
    let of = |items: Option<&Schema>| items.map_or_else(|| "interface {}".to_string(), go_type);
    match schema.value_type {
        Type::Any => "interface {}".to_string(),
        Type::Object => match &schema.additional {
            Additional::Schema(link) => format!("map[string]{}", of(Some(link.get()))),
            _ => "map[string]interface {}".to_string(),
        },
        Type::Array => format!("[]{}", of(schema.items.as_ref().map(|link| link.get()))),
        Type::String(ScalarFormat::Bytes) => "[]uint8".to_string(),
        Type::String(_) => "string".to_string(),
        Type::Int32 | Type::IntOrString => "int32".to_string(),
        Type::Int64 => "int64".to_string(),
        Type::Number => "float64".to_string(),
        Type::Boolean => "bool".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::Definitions;

    fn built_in() -> Arc<Schema> {
        let mut definitions = Definitions::default();
        definitions.define_as(
            "io.x.resource.Quantity",
            Schema { value_type: Type::String(ScalarFormat::Quantity), ..Schema::default() },
        );
        let spec = json!({"type": "object", "properties": {
            "replicas": {"type": "integer", "format": "int32"},
            "containers": {"type": "array", "items": {"$ref": "#/io.x.v1.Container"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        }});
        let container = json!({"type": "object", "properties": {
            "image": {"type": "string"},
            "limits": {"type": "object", "additionalProperties": {"$ref": "#/io.x.resource.Quantity"}},
            "at": {"type": "string", "format": "date-time"},
            "raw": {"type": "object"},
        }});
        definitions.define("io.x.v1.Container", &container).unwrap();
        definitions.define("io.x.v1.ThingSpec", &spec).unwrap();
        let thing = json!({"type": "object", "properties": {"spec": {"$ref": "#/io.x.v1.ThingSpec"}}});
        definitions.define("io.x.v1.Thing", &thing).unwrap();
        definitions.get("io.x.v1.Thing").unwrap()
    }

    #[test]
    fn unknown_fields_should_be_dropped_and_named_and_nulls_should_vanish() {
        let mut value = json!({"foo": 1, "spec": {"replicas": null, "labels": {"a": null, "b": "c"},
            "containers": [{"image": "x", "imagee": 1, "limits": {"cpu": 0.5, "memory": "1024Mi"}}, null]}});
        let found = conform(&built_in(), &mut value).unwrap();
        assert_eq!(found.unknown, ["foo", "spec.containers[0].imagee"]);
        assert_eq!(
            value,
            json!({"spec": {"labels": {"a": "", "b": "c"},
                "containers": [{"image": "x", "limits": {"cpu": "500m", "memory": "1Gi"}}, {}]}})
        );
    }

    #[test]
    fn wrong_types_should_be_told_as_upstreams_decoder_does() {
        let told = |mut value: Value| conform(&built_in(), &mut value).unwrap_err();
        let error = told(json!({"spec": {"replicas": "three"}}));
        assert_eq!(
            error.message,
            "json: cannot unmarshal string into Go struct field ThingSpec.spec.replicas of type int32"
        );
        let error = told(json!({"spec": {"containers": [{}, {"image": 1}]}}));
        assert_eq!(error.field, "spec.containers[1].image");
        assert_eq!(
            error.message,
            "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string"
        );
        let error = told(json!({"spec": {"containers": {}}}));
        assert!(error.message.ends_with("Go struct field ThingSpec.spec.containers of type []v1.Container"));
        let error = told(json!({"spec": {"containers": [{"limits": {"cpu": "lots"}}]}}));
        assert!(error.message.starts_with("quantities must match"), "{error}");
    }

    #[test]
    fn custom_resources_should_keep_what_their_schema_preserves() {
        let schema = Schema::from_openapi(&json!({"type": "object", "properties": {
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}}},
            "maybe": {"type": "string", "nullable": true},
            "strict": {"type": "object", "properties": {"n": {"type": "integer"}}},
        }}))
        .unwrap();
        let mut value = json!({"free": {"x": {"y": null}, "known": {"a": 1, "b": 2}}, "maybe": null,
            "strict": {"n": "wrong but kept", "m": null}});
        let found = conform(&schema, &mut value).unwrap();
        assert_eq!(found.unknown, ["free.known.b", "strict.m"]);
        assert_eq!(
            value,
            json!({"free": {"x": {"y": null}, "known": {"a": 1}}, "maybe": null,
                "strict": {"n": "wrong but kept"}})
        );
    }
}
