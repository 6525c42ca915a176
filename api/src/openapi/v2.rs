//! The whole API as Swagger 2.0.

use serde_json::{Map, Value, json};

use super::definitions::{self, PATCH, gvk};
use super::operations::{self, Body, Operation, PathItem};
use super::shape::Flavour;
use super::{Source, gnostic, served};

const PRODUCES: [&str; 2] = ["application/json", "application/yaml"];

/// In JSON.
pub(super) fn json(source: &Source<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 << 20);
    out.extend_from_slice(br#"{"swagger":"2.0","info":"#);
    put(&mut out, &info());
    out.extend_from_slice(br#","securityDefinitions":"#);
    put(&mut out, &security());
    out.extend_from_slice(br#","security":[{"BearerToken":[]}],"definitions":{"#);
    let mut separator: &[u8] = b"";
    each_definition(source, &mut |name, definition| {
        out.extend_from_slice(separator);
        separator = b",";
        put(&mut out, &Value::from(name));
        out.push(b':');
        put(&mut out, &definition);
    });
    out.extend_from_slice(br#"},"paths":{"#);
    let mut separator: &[u8] = b"";
    each_path(source, &mut |path, item| {
        out.extend_from_slice(separator);
        separator = b",";
        put(&mut out, &Value::from(path));
        out.push(b':');
        put(&mut out, &item);
    });
    out.extend_from_slice(b"}}\n");
    out
}

/// As a protobuf message.
pub(super) fn protobuf(source: &Source<'_>) -> Vec<u8> {
    let mut document = gnostic::Document::new(&info());
    each_definition(source, &mut |name, definition| document.definition(name, &definition));
    each_path(source, &mut |path, item| document.path(path, &item));
    document.finish()
}

/// Appends JSON; writing to memory does not fail.
pub(super) fn put(out: &mut Vec<u8>, value: &Value) {
    out.extend_from_slice(value.to_string().as_bytes());
}

pub(super) fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.36.0"})
}

/// How requests are authenticated.
pub(super) fn security() -> Value {
    json!({"BearerToken": {"description": "Bearer Token authentication", "type": "apiKey", "name": "authorization",
        "in": "header"}})
}

fn each_definition(source: &Source<'_>, emit: &mut dyn FnMut(&str, Value)) {
    definitions::each(source, &served(source), Flavour::V2, emit);
}

fn each_path(source: &Source<'_>, emit: &mut dyn FnMut(&str, Value)) {
    for row in source.rows {
        for served in &row.served {
            for item in operations::paths(row, served) {
                emit(&item.path, path_item(&item));
            }
        }
    }
}

fn path_item(item: &PathItem) -> Value {
    let mut described: Map<String, Value> =
        item.operations.iter().map(|operation| (operation.method.to_string(), describe(operation))).collect();
    let parameters = item.parameters.iter().map(|p| p.describe(Flavour::V2)).collect();
    let _absent = described.insert("parameters".to_string(), parameters);
    described.into()
}

fn describe(operation: &Operation) -> Value {
    let mut parameters: Vec<Value> = body(&operation.body).into_iter().collect();
    parameters.extend(operation.parameters.iter().map(|p| p.describe(Flavour::V2)));
    let mut responses: Map<String, Value> = operation
        .responses
        .iter()
        .map(|(code, name)| {
            let schema =
                name.as_ref().map_or_else(|| json!({"type": "string"}), |n| Flavour::V2.reference(n));
            (code.to_string(), json!({"description": meaning(code), "schema": schema}))
        })
        .collect();
    let _absent = responses.insert("401".to_string(), json!({"description": meaning("401")}));
    let consumes: &[&str] = match operation.body {
        Body::Patch { strategic } => patch_types(strategic),
        _ => &["*/*"],
    };
    let (group, version, kind) = &operation.kind;
    json!({
        "description": operation.description,
        "operationId": operation.id,
        "tags": [operation.tag],
        "consumes": consumes,
        "produces": PRODUCES,
        "schemes": ["https"],
        "parameters": parameters,
        "responses": responses,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": gvk(group, version, kind),
    })
}

fn body(body: &Body) -> Option<Value> {
    let (schema, required) = match body {
        Body::Nothing => return None,
        Body::Object(None) => (json!({"type": "object"}), true),
        Body::Object(Some(name)) => (Flavour::V2.reference(name), true),
        Body::Optional(name) => (Flavour::V2.reference(name), false),
        Body::Patch { .. } => (Flavour::V2.reference(PATCH), true),
    };
    let mut described = json!({"in": "body", "name": "body", "schema": schema});
    if let (Value::Object(map), true) = (&mut described, required) {
        let _absent = map.insert("required".to_string(), true.into());
    }
    Some(described)
}

/// The content types of patches; the strategic form is for built-ins only.
pub(super) fn patch_types(strategic: bool) -> &'static [&'static str] {
    const ALL: [&str; 4] = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/apply-patch+yaml",
        "application/strategic-merge-patch+json",
    ];
    let [general @ .., _] = &ALL;
    if strategic { &ALL } else { general }
}

/// What a status code says.
pub(super) fn meaning(code: &str) -> &'static str {
    match code {
        "200" => "OK",
        "201" => "Created",
        "202" => "Accepted",
        _ => "Unauthorized",
    }
}
