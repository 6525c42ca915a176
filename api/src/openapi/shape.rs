//! From JSON Schema to what each OpenAPI version can say.

use serde_json::{Map, Value, json};

/// The version of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    /// Swagger 2.0.
    V2,
    /// OpenAPI 3.0.
    V3,
}

impl Flavour {
    /// A reference to a definition.
    pub fn reference(self, name: &str) -> Value {
        let prefix = match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        };
        json!({ "$ref": format!("{prefix}{name}") })
    }
}

/// Reshapes a definition; some are special.
pub(super) fn reshape_named(name: &str, definition: &mut Value, flavour: Flavour) {
    let special = match name.rsplit('.').next().unwrap_or_default() {
        "Quantity" if name.starts_with("io.k8s.apimachinery.") => match flavour {
            Flavour::V2 => json!({"type": "string"}),
            Flavour::V3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        },
        "IntOrString" if name.starts_with("io.k8s.apimachinery.") => match flavour {
            Flavour::V2 => json!({"type": "string", "format": "int-or-string"}),
            Flavour::V3 => {
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            }
        },
        "JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray"
            if name.starts_with("io.k8s.apiextensions-apiserver.") =>
        {
            json!({})
        }
        _ => return reshape(definition, flavour),
    };
    let description = definition.get("description").cloned();
    *definition = special;
    if let (Value::Object(map), Some(description)) = (definition, description) {
        let _absent = map.insert("description".to_string(), description);
    }
}

fn reshape(node: &mut Value, flavour: Flavour) {
    let Value::Object(map) = node else { return };
    each_child(map, &mut |child| reshape(child, flavour));
    if flavour == Flavour::V2 {
        let _unknown_to_clients_of_v2 = map.remove("default");
    }
    let Some(Value::String(target)) = map.remove("$ref") else { return };
    let reference = flavour.reference(target.rsplit('/').next().unwrap_or_default());
    if flavour == Flavour::V3 && !map.is_empty() {
        // OpenAPI 3.0 ignores what stands beside a reference.
        let _absent = map.insert("allOf".to_string(), json!([reference]));
    } else if let Value::Object(reference) = reference {
        map.extend(reference);
    }
}

/// Visits all schemas directly below a schema.
fn each_child(map: &mut Map<String, Value>, visit: &mut dyn FnMut(&mut Value)) {
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(&mut *visit);
    }
    for keyword in ["items", "additionalProperties", "not"] {
        if let Some(child @ Value::Object(_)) = map.get_mut(keyword) {
            visit(child);
        }
    }
    for keyword in ["allOf", "anyOf", "oneOf"] {
        if let Some(Value::Array(children)) = map.get_mut(keyword) {
            children.iter_mut().for_each(&mut *visit);
        }
    }
}

/// Drops from a custom resource's schema what Swagger 2.0 cannot say, and all types where clients that validate by it
/// would refuse what the server takes: nulls, unknown fields, numbers for strings.
pub(super) fn simplify_for_v2(node: &mut Value) {
    let Value::Object(map) = node else { return };
    for keyword in ["allOf", "anyOf", "oneOf", "not", "default", "example", "x-kubernetes-validations"] {
        let _unsayable = map.remove(keyword);
    }
    let is = |name: &str, map: &Map<String, Value>| map.get(name).and_then(Value::as_bool).unwrap_or(false);
    let nullable = is("nullable", map);
    let _unsayable = map.remove("nullable");
    let free = is("x-kubernetes-preserve-unknown-fields", map) || is("x-kubernetes-int-or-string", map);
    if nullable || free {
        for keyword in ["type", "format", "items", "properties", "additionalProperties", "required"] {
            let _too_strict = map.remove(keyword);
        }
    }
    each_child(map, &mut simplify_for_v2);
}
