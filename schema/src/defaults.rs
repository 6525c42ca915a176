//! Fills in what is absent.

use serde_json::{Map, Value};

use crate::Schema;
use crate::node::{Additional, Type};

/// Fills in the defaults of all absent fields, also inside values that come from defaults. Nulls count as present:
/// [`crate::conform`] has dropped those that are not values of their own.
///
/// In built-ins, required fields that upstream's structs hold by value become their zero value: booleans everywhere,
/// numbers in the status. Elsewhere a number that is missing is a mistake, which validation finds.
pub fn fill(schema: &Schema, value: &mut Value) {
    fill_node(schema, value, Part::Whole);
}

/// Which part of an object the walk is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Status,
    Other,
}

fn fill_node(schema: &Schema, value: &mut Value, part: Part) {
    match value {
        Value::Object(map) => {
            fill_fields(schema, map, part);
            if schema.properties.is_empty() && !matches!(schema.additional, Additional::Schema(_)) {
                return;
            }
            for (key, child) in map.iter_mut() {
                if is_branch(child)
                    && let Some(described) = schema.field(key)
                {
                    fill_node(described, child, part.of_field(key));
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            let items = items.get();
            for item in list.iter_mut().filter(|item| is_branch(item)) {
                fill_node(items, item, part);
            }
        }
        _ => {}
    }
}

fn fill_fields(schema: &Schema, map: &mut Map<String, Value>, part: Part) {
    for property in &schema.properties {
        let Some(default) = &property.default else { continue };
        let present = map.get(&*property.name);
        // An empty text in a built-in is the absent one: that is how its decoder reads it.
        let is_blank = schema.is_built_in() && present.is_some_and(|v| v == "");
        if present.is_none() || is_blank {
            let _blank = map.insert(property.name.to_string(), (**default).clone());
        }
    }
    for name in schema.required.iter().filter(|_| schema.is_built_in()) {
        if map.contains_key(&**name) {
            continue;
        }
        let zero = match schema.property(name).map(|p| p.schema.get().value_type) {
            Some(Type::Boolean) => Value::from(false),
            Some(Type::Int32 | Type::Int64) if part == Part::Status => Value::from(0),
            _ => continue,
        };
        let _absent = map.insert(name.to_string(), zero);
    }
}

impl Part {
    fn of_field(self, name: &str) -> Self {
        match self {
            Self::Whole if name == "status" => Self::Status,
            Self::Whole => Self::Other,
            other => other,
        }
    }
}

fn is_branch(value: &Value) -> bool {
    value.is_object() || value.is_array()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_should_also_fill_what_defaults_made() {
        let schema = Schema::from_openapi(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "replicas": {"type": "integer", "default": 1},
                "ports": {"type": "array", "items": {"type": "object", "properties": {
                    "protocol": {"type": "string", "default": "TCP"}}}},
                "byName": {"type": "object", "additionalProperties": {"type": "object", "properties": {
                    "on": {"type": "boolean", "default": true}}}},
            }},
        }}))
        .unwrap();
        let mut value = json!({});
        fill(&schema, &mut value);
        assert_eq!(value, json!({"spec": {"replicas": 1}}));
        let mut value =
            json!({"spec": {"replicas": 3, "ports": [{}, {"protocol": "UDP"}], "byName": {"a": {}}}});
        fill(&schema, &mut value);
        assert_eq!(
            value,
            json!({"spec": {"replicas": 3, "ports": [{"protocol": "TCP"}, {"protocol": "UDP"}],
                "byName": {"a": {"on": true}}}})
        );
    }

    #[test]
    fn built_ins_should_get_the_zero_values_that_upstream_writes() {
        let mut definitions = crate::Definitions::default();
        let version = json!({"type": "object", "required": ["storage", "weight"], "properties": {
            "storage": {"type": "boolean"}, "weight": {"type": "integer"}}});
        let thing = json!({"type": "object", "properties": {
            "spec": {"$ref": "#/x.v1.Version"}, "status": {"$ref": "#/x.v1.Version"}}});
        definitions.define("x.v1.Version", &version).unwrap();
        definitions.define("x.v1.Thing", &thing).unwrap();
        let mut value = json!({"spec": {}, "status": {}});
        fill(&definitions.get("x.v1.Thing").unwrap(), &mut value);
        assert_eq!(value, json!({"spec": {"storage": false}, "status": {"storage": false, "weight": 0}}));
    }
}
