//! Swagger 2.0 as the protobuf message `openapi.v2.Document` of the gnostic project, which older clients ask for.
//!
//! Translates the JSON form piece by piece. Field numbers are those of `OpenAPIv2.proto`; fields that our documents do
//! not use are left out.

use serde_json::{Map, Value};

use super::protobuf::Message;

/// A document under construction.
pub(super) struct Document {
    head: Message,
    definitions: Message,
    paths: Message,
}

impl Document {
    /// A document with this `info`.
    pub fn new(about: &Value) -> Self {
        let mut info = Message::default();
        info.text(1, text(about, "title"));
        info.text(2, text(about, "version"));
        let mut head = Message::default();
        head.text(1, "2.0");
        head.message(2, &info);
        Self { head, definitions: Message::default(), paths: Message::default() }
    }

    /// Adds a definition.
    pub fn definition(&mut self, name: &str, definition: &Value) {
        self.definitions.message(1, &named(name, &schema(definition)));
    }

    /// Adds a path.
    pub fn path(&mut self, path: &str, item: &Value) {
        self.paths.message(2, &named(path, &path_item(item)));
    }

    /// The encoded document.
    pub fn finish(self) -> Vec<u8> {
        let mut document = self.head;
        document.message(8, &self.paths);
        document.message(9, &self.definitions);
        document.into_bytes()
    }
}

fn text<'a>(node: &'a Value, name: &str) -> &'a str {
    node.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn flag(node: &Value, name: &str) -> bool {
    node.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn list<'a>(node: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    node.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn entries<'a>(node: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    node.get(name).and_then(Value::as_object).into_iter().flatten()
}

fn named(name: &str, value: &Message) -> Message {
    let mut pair = Message::default();
    pair.text(1, name);
    pair.message(2, value);
    pair
}

/// A message that holds nothing but another.
fn within(field: u32, inner: &Message) -> Message {
    let mut outer = Message::default();
    outer.message(field, inner);
    outer
}

/// `Any` as YAML, of which JSON is a part.
fn any(value: &Value) -> Message {
    let mut message = Message::default();
    message.text(2, &format!("{value}\n"));
    message
}

fn extensions(node: &Value, field: u32, message: &mut Message) {
    let empty = Map::new();
    for (name, value) in node.as_object().unwrap_or(&empty) {
        if name.starts_with("x-") {
            message.message(field, &named(name, &any(value)));
        }
    }
}

fn schema(node: &Value) -> Message {
    let mut message = Message::default();
    let number = |name: &str| node.get(name).and_then(Value::as_f64).unwrap_or_default();
    let count = |name: &str| node.get(name).and_then(Value::as_u64).unwrap_or_default();
    message.text(1, text(node, "$ref"));
    message.text(2, text(node, "format"));
    message.text(3, text(node, "title"));
    message.text(4, text(node, "description"));
    message.double(6, number("multipleOf"));
    message.double(7, number("maximum"));
    message.flag(8, flag(node, "exclusiveMaximum"));
    message.double(9, number("minimum"));
    message.flag(10, flag(node, "exclusiveMinimum"));
    message.integer(11, count("maxLength"));
    message.integer(12, count("minLength"));
    message.text(13, text(node, "pattern"));
    message.integer(14, count("maxItems"));
    message.integer(15, count("minItems"));
    message.flag(16, flag(node, "uniqueItems"));
    message.integer(17, count("maxProperties"));
    message.integer(18, count("minProperties"));
    for name in list(node, "required").filter_map(Value::as_str) {
        message.text(19, name);
    }
    for value in list(node, "enum") {
        message.message(20, &any(value));
    }
    match node.get("additionalProperties") {
        Some(Value::Bool(allowed)) => {
            let mut item = Message::default();
            item.flag(2, *allowed);
            message.message(21, &item);
        }
        Some(described) => message.message(21, &within(1, &schema(described))),
        None => {}
    }
    if let Some(kind) = node.get("type").and_then(Value::as_str) {
        let mut item = Message::default();
        item.text(1, kind);
        message.message(22, &item);
    }
    if let Some(items) = node.get("items") {
        message.message(23, &within(1, &schema(items)));
    }
    if node.get("properties").is_some_and(Value::is_object) {
        let mut properties = Message::default();
        for (name, property) in entries(node, "properties") {
            properties.message(1, &named(name, &schema(property)));
        }
        message.message(25, &properties);
    }
    extensions(node, 31, &mut message);
    message
}

fn path_item(item: &Value) -> Message {
    let mut message = Message::default();
    for (method, field) in [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)] {
        if let Some(described) = item.get(method) {
            message.message(field, &operation(described));
        }
    }
    for described in list(item, "parameters") {
        message.message(9, &within(1, &parameter(described)));
    }
    message
}

fn operation(node: &Value) -> Message {
    let mut message = Message::default();
    for tag in list(node, "tags").filter_map(Value::as_str) {
        message.text(1, tag);
    }
    message.text(3, text(node, "description"));
    message.text(5, text(node, "operationId"));
    for (name, field) in [("produces", 6), ("consumes", 7)] {
        for media in list(node, name).filter_map(Value::as_str) {
            message.text(field, media);
        }
    }
    for described in list(node, "parameters") {
        message.message(8, &within(1, &parameter(described)));
    }
    let mut responses = Message::default();
    for (code, described) in entries(node, "responses") {
        let mut response = Message::default();
        response.text(1, text(described, "description"));
        if let Some(body) = described.get("schema") {
            response.message(2, &within(1, &schema(body)));
        }
        responses.message(1, &named(code, &within(1, &response)));
    }
    message.message(9, &responses);
    for scheme in list(node, "schemes").filter_map(Value::as_str) {
        message.text(10, scheme);
    }
    extensions(node, 13, &mut message);
    message
}

/// A `Parameter`: of the body, the query or the path.
fn parameter(node: &Value) -> Message {
    let mut message = Message::default();
    if text(node, "in") == "body" {
        message.text(1, text(node, "description"));
        message.text(2, text(node, "name"));
        message.text(3, "body");
        message.flag(4, flag(node, "required"));
        if let Some(body) = node.get("schema") {
            message.message(5, &schema(body));
        }
        return within(1, &message);
    }
    let in_path = text(node, "in") == "path";
    message.flag(1, flag(node, "required"));
    message.text(2, text(node, "in"));
    message.text(3, text(node, "description"));
    message.text(4, text(node, "name"));
    message.text(if in_path { 5 } else { 6 }, text(node, "type"));
    message.flag(if in_path { 19 } else { 20 }, flag(node, "uniqueItems"));
    within(2, &within(if in_path { 4 } else { 3 }, &message))
}
