//! Fills in what is absent.

use serde_json::Value;

use crate::Schema;
use crate::node::Additional;

/// Fills in the defaults of all absent fields, also inside values that come from defaults. Nulls count as present:
/// [`crate::conform`] has dropped those that are not values of their own.
pub fn fill(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for property in &schema.properties {
                let Some(default) = &property.default else { continue };
                let present = map.get(&*property.name);
                // An empty text in a built-in is the absent one: that is how its decoder reads it.
                let is_blank = schema.is_built_in() && present.is_some_and(|v| v == "");
                if present.is_none() || is_blank {
                    let _blank = map.insert(property.name.to_string(), (**default).clone());
                }
            }
            if schema.properties.is_empty() && !matches!(schema.additional, Additional::Schema(_)) {
                return;
            }
            for (key, child) in map.iter_mut() {
                if is_branch(child)
                    && let Some(described) = schema.field(key)
                {
                    fill(described, child);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            let items = items.get();
            for item in list.iter_mut().filter(|item| is_branch(item)) {
                fill(items, item);
            }
        }
        _ => {}
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
}
