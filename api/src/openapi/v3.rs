//! One group and version as OpenAPI 3.0.

use serde_json::{Map, Value, json};

use super::Source;
use super::definitions::{self, PATCH, gvk};
use super::operations::{self, Body, Operation, PathItem};
use super::shape::Flavour;
use super::v2::{info, meaning, patch_types, put, security};
use crate::ServedVersion;

const PRODUCES: [&str; 2] = ["application/json", "application/yaml"];

/// In JSON.
pub(super) fn json(source: &Source<'_>, served: &ServedVersion) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 * 1024);
    out.extend_from_slice(br#"{"openapi":"3.0.0","info":"#);
    put(&mut out, &info());
    out.extend_from_slice(br#","components":{"securitySchemes":"#);
    put(&mut out, &security());
    out.extend_from_slice(br#","schemas":{"#);
    let mut separator: &[u8] = b"";
    definitions::each(source, &[served], Flavour::V3, &mut |name, definition| {
        out.extend_from_slice(separator);
        separator = b",";
        put(&mut out, &Value::from(name));
        out.push(b':');
        put(&mut out, &definition);
    });
    out.extend_from_slice(br#"}},"paths":{"#);
    let mut separator: &[u8] = b"";
    for row in source.rows.iter().filter(|row| row.served.contains(served)) {
        for item in operations::paths(row, served) {
            out.extend_from_slice(separator);
            separator = b",";
            put(&mut out, &Value::from(item.path.as_str()));
            out.push(b':');
            put(&mut out, &path_item(&item));
        }
    }
    out.extend_from_slice(b"}}\n");
    out
}

fn path_item(item: &PathItem) -> Value {
    let mut described: Map<String, Value> =
        item.operations.iter().map(|operation| (operation.method.to_string(), describe(operation))).collect();
    let parameters = item.parameters.iter().map(|p| p.describe(Flavour::V3)).collect();
    let _absent = described.insert("parameters".to_string(), parameters);
    described.into()
}

fn describe(operation: &Operation) -> Value {
    let mut responses: Map<String, Value> = operation
        .responses
        .iter()
        .map(|(code, name)| {
            let answer = match name {
                Some(name) => json!({"description": meaning(code),
                    "content": content(&PRODUCES, &Flavour::V3.reference(name))}),
                None => json!({"description": meaning(code),
                    "content": content(&["*/*"], &json!({"type": "string"}))}),
            };
            (code.to_string(), answer)
        })
        .collect();
    let _absent = responses.insert("401".to_string(), json!({"description": meaning("401")}));
    let (group, version, kind) = &operation.kind;
    let parameters: Vec<Value> = operation.parameters.iter().map(|p| p.describe(Flavour::V3)).collect();
    let mut described = json!({
        "description": operation.description,
        "operationId": operation.id,
        "tags": [operation.tag],
        "parameters": parameters,
        "responses": responses,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": gvk(group, version, kind),
    });
    if let (Value::Object(map), Some(body)) = (&mut described, body(&operation.body)) {
        let _absent = map.insert("requestBody".to_string(), body);
    }
    described
}

fn body(body: &Body) -> Option<Value> {
    let any = || json!({"type": "object"});
    Some(match body {
        Body::Nothing => return None,
        Body::Object(name) => {
            let schema = name.as_ref().map_or_else(any, |name| Flavour::V3.reference(name));
            json!({"required": true, "content": content(&["*/*"], &schema)})
        }
        Body::Optional(name) => json!({"content": content(&["*/*"], &Flavour::V3.reference(name))}),
        Body::Patch { strategic } => {
            let patch = Flavour::V3.reference(PATCH);
            json!({"required": true, "content": content(patch_types(*strategic), &patch)})
        }
    })
}

fn content(types: &[&str], schema: &Value) -> Value {
    Value::Object(types.iter().map(|media| (media.to_string(), json!({"schema": schema}))).collect())
}
