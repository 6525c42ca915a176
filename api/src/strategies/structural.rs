//! What a definition's versions say of their objects: structural schemas, selectable fields, printer columns and the
//! paths of scale.
//!
//! Deliberately absent: compilation of rules, which is the business of whoever evaluates them, and whether defaults fit
//! their own schema.

use serde_json::{Value, json};

use crate::field::{Errors, Look, Path, PathExt};

const SELECTABLE_MAX: usize = 8;
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 11] = [
    "binary",
    "bool",
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
    "string",
];

/// Where in a schema a node stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

/// Checks one version.
pub(super) fn version(errors: &mut Errors, path: &Path, version: &Value) {
    let null = Value::Null;
    let schema = version.dig(&["schema", "openAPIV3Schema"]).unwrap_or(&null);
    let schema_path = path.field("schema.openAPIV3Schema");
    node(errors, &schema_path, schema, Level::Root);
    if let Err(fault) = crate::schemas::custom(schema) {
        errors.invalid_unnamed(&schema_path, fault.to_string());
    }
    selectable_fields(errors, &path.field("selectableFields"), version, schema);
    let columns = path.field("additionalPrinterColumns");
    for (index, column) in version.items("additionalPrinterColumns").iter().enumerate() {
        printer_column(errors, &columns.index(index), column);
    }
    if let Some(scale) = version.dig(&["subresources", "scale"]) {
        scale_paths(errors, &path.field("subresources.scale"), scale);
    }
}

fn node(errors: &mut Errors, path: &Path, schema: &Value, level: Level) {
    let kind = schema.text("type");
    let type_path = path.field("type");
    let free = schema.flag("x-kubernetes-preserve-unknown-fields");
    let int_or_string = schema.flag("x-kubernetes-int-or-string");
    match (kind, level) {
        ("", _) if free || int_or_string => {}
        ("", Level::Root) => errors.required(&type_path, "must not be empty at the root"),
        ("", Level::Field) => errors.required(&type_path, "must not be empty for specified object fields"),
        ("", Level::Item) => errors.required(&type_path, "must not be empty for specified array items"),
        (other, Level::Root) if other != "object" => {
            errors.invalid(&type_path, other, "must be object at the root");
        }
        (other, _) if !TYPES.contains(&other) => errors.not_supported(&type_path, other, &TYPES),
        _ => {}
    }
    if schema.flag("x-kubernetes-embedded-resource") && !["", "object"].contains(&kind) {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.invalid(&type_path, kind, detail);
    }
    if int_or_string && free {
        let detail = "must be false if x-kubernetes-int-or-string is true";
        errors.invalid(&path.field("x-kubernetes-preserve-unknown-fields"), true, detail);
    }
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let detail = "must be true or undefined";
        errors.invalid(&path.field("x-kubernetes-preserve-unknown-fields"), false, detail);
    }
    children(errors, path, schema, level);
    lists(errors, path, schema);
    for junctor in ["allOf", "anyOf", "oneOf"] {
        let path = path.field(junctor);
        for (index, nested) in schema.items(junctor).iter().enumerate() {
            value_validation(errors, &path.index(index), nested, int_or_string);
        }
    }
    if let Some(nested) = schema.at("not") {
        value_validation(errors, &path.field("not"), nested, false);
    }
}

fn children(errors: &mut Errors, path: &Path, schema: &Value, level: Level) {
    let items_path = path.field("items");
    match schema.at("items") {
        Some(items) => node(errors, &items_path, items, Level::Item),
        None if schema.text("type") == "array" => errors.required(&items_path, "must be specified"),
        None => {}
    }
    let properties = path.field("properties");
    for (name, property) in schema.entries("properties") {
        let metadata = name == "metadata" && level == Level::Root;
        let restricts_more =
            |p: &Value| p.entries("properties").any(|(name, _)| name != "name" && name != "generateName");
        if metadata && restricts_more(property) {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly \
                          specified";
            errors.forbidden(&properties.key(name), detail);
        }
        node(errors, &properties.key(name), property, Level::Field);
    }
    let additional = path.field("additionalProperties");
    match schema.at("additionalProperties") {
        Some(_) if level == Level::Root => errors.forbidden(&additional, "must not be used at the root"),
        Some(_) if schema.entries("properties").next().is_some() => {
            errors.forbidden(&additional, "additionalProperties and properties are mutual exclusive");
        }
        Some(nested @ Value::Object(_)) => node(errors, &additional, nested, Level::Field),
        Some(Value::Bool(false)) => {
            errors.forbidden(&additional, "additionalProperties cannot be set to false");
        }
        _ => {}
    }
}

fn lists(errors: &mut Errors, path: &Path, schema: &Value) {
    let kind = schema.text("x-kubernetes-list-type");
    let kind_path = path.field("x-kubernetes-list-type");
    let words = ["atomic", "map", "set"];
    if !kind.is_empty() && !words.contains(&kind) {
        errors.not_supported(&kind_path, kind, &words);
    }
    if !kind.is_empty() && schema.text("type") != "array" {
        errors.invalid(
            &path.field("type"),
            schema.text("type"),
            "must be array if x-kubernetes-list-type is specified",
        );
    }
    let keys = schema.items("x-kubernetes-list-map-keys");
    let keys_path = path.field("x-kubernetes-list-map-keys");
    if kind == "map" && keys.is_empty() {
        errors.required(&keys_path, "must not be empty if x-kubernetes-list-type is map");
    }
    if kind != "map" && !keys.is_empty() {
        errors.required(&kind_path, "must be map if x-kubernetes-list-map-keys is non-empty");
    }
    let items = schema.get("items").unwrap_or(&Value::Null);
    for (index, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        let Some(described) = items.dig(&["properties", key]) else {
            let detail = format!("the key {key:?} must be a property of the list's items");
            errors.invalid(&keys_path.index(index), key, detail);
            continue;
        };
        let is_there = described.at("default").is_some() || items.items("required").iter().any(|r| r == key);
        if !is_there {
            let properties = path.field("items.properties");
            let named = properties.key(key);
            errors.required(
                &named.field("default"),
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            );
        }
    }
}

/// What stands below a junctor may restrict values, and say nothing of structure.
fn value_validation(errors: &mut Errors, path: &Path, schema: &Value, int_or_string: bool) {
    // The one exception: what makes a field a number or a text.
    let alternatives = [json!([{"type": "integer"}, {"type": "string"}])];
    let is_exception = int_or_string
        && (["integer", "string"].contains(&schema.text("type"))
            || schema.at("anyOf").is_some_and(|any| alternatives.contains(any)));
    if is_exception {
        return;
    }
    for name in ["type", "additionalProperties", "default", "description", "title", "nullable"] {
        if schema.at(name).is_some() {
            let said = if name == "additionalProperties" { "undefined" } else { "empty" };
            errors.forbidden(&path.field(name), &format!("must be {said} to be structural"));
        }
    }
    let properties = path.field("properties");
    for (name, nested) in schema.entries("properties") {
        value_validation(errors, &properties.key(name), nested, false);
    }
    for junctor in ["allOf", "anyOf", "oneOf"] {
        let path = path.field(junctor);
        for (index, nested) in schema.items(junctor).iter().enumerate() {
            value_validation(errors, &path.index(index), nested, false);
        }
    }
}

fn selectable_fields(errors: &mut Errors, path: &Path, version: &Value, schema: &Value) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, field) in version.items("selectableFields").iter().enumerate() {
        let here = path.index(index);
        let target = field.text("jsonPath");
        if target.is_empty() {
            errors.required(&here.field("jsonPath"), "");
            continue;
        }
        let steps: Vec<&str> = target.split('.').skip(1).collect();
        let found = (target.starts_with('.') && !target.contains('['))
            .then(|| steps.iter().try_fold(schema, |here, name| here.dig(&["properties", name])))
            .flatten();
        let Some(found) = found else {
            errors.invalid(
                &here.field("jsonPath"),
                target,
                "is an invalid path: does not refer to a valid field",
            );
            continue;
        };
        if steps.first() == Some(&"metadata") {
            errors.invalid(&here, target, "must not point to fields in metadata");
        }
        if !["string", "boolean", "integer"].contains(&found.text("type")) {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings \
                          with formats are allowed.";
            errors.invalid(&here, target, detail);
        }
        if seen.contains(&target) {
            errors.duplicate(&here, target);
        }
        seen.push(target);
    }
    if seen.len() > SELECTABLE_MAX {
        errors.too_many(path, seen.len(), SELECTABLE_MAX);
    }
}

fn printer_column(errors: &mut Errors, path: &Path, column: &Value) {
    if column.text("name").is_empty() {
        errors.required(&path.field("name"), "");
    }
    let kind = column.text("type");
    if kind.is_empty() {
        errors.required(&path.field("type"), &format!("must be one of {}", COLUMN_TYPES.join(",")));
    } else if !COLUMN_TYPES.contains(&kind) {
        errors.invalid(&path.field("type"), kind, format!("must be one of {}", COLUMN_TYPES.join(",")));
    }
    let format = column.text("format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        errors.invalid(&path.field("format"), format, format!("must be one of {}", COLUMN_FORMATS.join(",")));
    }
    let target = column.text("jsonPath");
    if target.is_empty() {
        errors.required(&path.field("jsonPath"), "");
    } else if !target.starts_with('.') {
        errors.invalid(&path.field("jsonPath"), target, "must be a simple json path starting with .");
    }
}

fn scale_paths(errors: &mut Errors, path: &Path, scale: &Value) {
    for (name, root) in
        [("specReplicasPath", ".spec"), ("statusReplicasPath", ".status"), ("labelSelectorPath", ".status")]
    {
        let target = scale.text(name);
        let is_optional = name == "labelSelectorPath";
        if target.is_empty() {
            if !is_optional {
                errors.required(&path.field(name), "");
            }
            continue;
        }
        let is_below = |root: &str| target.strip_prefix(root).is_some_and(|rest| rest.starts_with('.'));
        if !(is_below(root) || is_optional && is_below(".spec")) {
            let roots = if is_optional { "either .status or .spec" } else { root };
            errors.invalid(&path.field(name), target, format!("should be a json path under {roots}"));
        }
    }
}
