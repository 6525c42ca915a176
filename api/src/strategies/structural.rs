//! What a definition's versions say of their objects: structural schemas, selectable fields, printer columns and the
//! paths of scale.
//!
//! Deliberately absent: compilation of rules, which is the business of whoever evaluates them, and whether defaults keep
//! the rules.

use std::collections::BTreeSet;

use schema::{Schema, conform, validate};
use serde_json::{Value, json};

use crate::{at::At, field::Look};

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
pub(super) fn version(version: &At) {
    let schema = version.field("schema.openAPIV3Schema");
    node(&schema, Level::Root);
    if let Err(fault) = crate::schemas::custom(schema.value()) {
        schema.invalid_unnamed(fault.to_string());
    }
    selectable_fields(&version.field("selectableFields"), schema.value());
    version.each("additionalPrinterColumns", printer_column);
    version.optional("subresources.scale", scale_paths);
}

fn node(schema: &At, level: Level) {
    let kind = schema.field("type");
    let free = schema.field("x-kubernetes-preserve-unknown-fields");
    let is_free = schema.flag("x-kubernetes-preserve-unknown-fields");
    let int_or_string = schema.flag("x-kubernetes-int-or-string");
    match (kind.str(), level) {
        ("", _) if is_free || int_or_string => {}
        ("", Level::Root) => kind.required("must not be empty at the root"),
        ("", Level::Field) => kind.required("must not be empty for specified object fields"),
        ("", Level::Item) => kind.required("must not be empty for specified array items"),
        (other, Level::Root) if other != "object" => kind.invalid("must be object at the root"),
        _ => kind.among(&TYPES),
    }
    if schema.flag("x-kubernetes-embedded-resource") && !["", "object"].contains(&kind.str()) {
        kind.invalid("must be object if x-kubernetes-embedded-resource is true");
    }
    if int_or_string && is_free {
        free.invalid("must be false if x-kubernetes-int-or-string is true");
    }
    if free.value() == &Value::Bool(false) {
        free.invalid("must be true or undefined");
    }
    schema.optional("default", |default| check_default(default, schema));
    children(schema, level);
    lists(schema);
    value_validations(schema, int_or_string);
    schema.optional("not", |nested| value_validation(nested, false));
}

/// A default has to be what an object could hold there.
fn check_default(default: &At, schema: &At) {
    // Why the schema is none is said of the version as a whole.
    let Ok(described) = Schema::from_openapi(schema.value()) else { return };
    let mut pruned = default.value().clone();
    if conform::conform(&described, &mut pruned).is_ok() && pruned != *default.value() {
        default.invalid("must not have unknown fields");
    }
    default.found(validate::validate(&described, default.value()));
}

fn children(schema: &At, level: Level) {
    let items = schema.field("items");
    if items.is_given() {
        node(&items, Level::Item);
    } else if schema.text("type") == "array" {
        items.required("must be specified");
    }
    let properties = schema.field("properties");
    for (name, property) in properties.members() {
        let more = |name: &String| name != "name" && name != "generateName";
        let metadata = name == "metadata" && level == Level::Root;
        if metadata && property.entries("properties").any(|(name, _)| more(name)) {
            property.forbidden(
                "must not specify anything other than name and generateName, but metadata is implicitly specified",
            );
        }
        node(&property, Level::Field);
    }
    let additional = schema.field("additionalProperties");
    match additional.value() {
        Value::Null => {}
        _ if level == Level::Root => additional.forbidden("must not be used at the root"),
        _ if !properties.is_empty() => {
            additional.forbidden("additionalProperties and properties are mutual exclusive");
        }
        Value::Object(_) => node(&additional, Level::Field),
        Value::Bool(false) => additional.forbidden("additionalProperties cannot be set to false"),
        _ => {}
    }
}

fn lists(schema: &At) {
    let kind = schema.field("x-kubernetes-list-type");
    kind.among_or_none(&["atomic", "map", "set"]);
    if !kind.is_empty() && schema.text("type") != "array" {
        schema.field("type").invalid_text("must be array if x-kubernetes-list-type is specified");
    }
    let keys = schema.field("x-kubernetes-list-map-keys");
    if kind.str() == "map" {
        keys.filled("must not be empty if x-kubernetes-list-type is map");
    } else if !keys.is_empty() {
        kind.required("must be map if x-kubernetes-list-map-keys is non-empty");
    }
    let properties = schema.field("items.properties");
    for key in keys.elements() {
        let described = properties.key(key.str());
        if !described.is_given() {
            key.invalid(format!("the key {:?} must be a property of the list's items", key.str()));
            continue;
        }
        let required = schema.field("items.required");
        if described.at("default").is_none() && !required.list().contains(key.value()) {
            described.field("default").required(
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            );
        }
    }
}

fn value_validations(schema: &At, int_or_string: bool) {
    for junctor in ["allOf", "anyOf", "oneOf"] {
        schema.each(junctor, |nested| value_validation(nested, int_or_string));
    }
}

/// What stands below a junctor may restrict values, and say nothing of structure.
fn value_validation(schema: &At, int_or_string: bool) {
    // The one exception: what makes a field a number or a text.
    let is_exception = int_or_string
        && (["integer", "string"].contains(&schema.text("type"))
            || schema.at("anyOf") == Some(&json!([{"type": "integer"}, {"type": "string"}])));
    if is_exception {
        return;
    }
    for name in ["type", "additionalProperties", "default", "description", "title", "nullable"] {
        schema.optional(name, |field| {
            let said = if name == "additionalProperties" { "undefined" } else { "empty" };
            field.forbidden(&format!("must be {said} to be structural"));
        });
    }
    let properties = schema.field("properties");
    properties.members().for_each(|(_, nested)| value_validation(&nested, false));
    value_validations(schema, false);
}

fn selectable_fields(fields: &At, schema: &Value) {
    let mut seen = BTreeSet::new();
    let mut count = 0;
    for field in fields.elements() {
        let target = field.field("jsonPath");
        if target.is_empty() {
            target.required("");
            continue;
        }
        let steps: Vec<&str> = target.str().split('.').skip(1).collect();
        let found = (target.str().starts_with('.') && !target.str().contains('['))
            .then(|| steps.iter().try_fold(schema, |here, name| here.dig(&["properties", name])))
            .flatten();
        let Some(found) = found else {
            target.invalid("is an invalid path: does not refer to a valid field");
            continue;
        };
        if steps.first() == Some(&"metadata") {
            field.invalid_value(target.str(), "must not point to fields in metadata");
        }
        if !["string", "boolean", "integer"].contains(&found.text("type")) {
            field.invalid_value(
                target.str(),
                "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                 formats are allowed.",
            );
        }
        if !seen.insert(target.str()) {
            field.duplicate_value(target.str());
        }
        count += 1;
    }
    if count > SELECTABLE_MAX {
        fields.too_many(count, SELECTABLE_MAX);
    }
}

fn printer_column(column: &At) {
    let one_of = |words: &[&str]| format!("must be one of {}", words.join(","));
    column.field("name").filled("");
    let kind = column.field("type");
    if kind.is_empty() {
        kind.required(&one_of(&COLUMN_TYPES));
    } else if !COLUMN_TYPES.contains(&kind.str()) {
        kind.invalid(one_of(&COLUMN_TYPES));
    }
    let format = column.field("format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format.str()) {
        format.invalid(one_of(&COLUMN_FORMATS));
    }
    let target = column.field("jsonPath");
    target.filled("");
    if !target.is_empty() && !target.str().starts_with('.') {
        target.invalid("must be a simple json path starting with .");
    }
}

fn scale_paths(scale: &At) {
    for (name, root) in
        [("specReplicasPath", ".spec"), ("statusReplicasPath", ".status"), ("labelSelectorPath", ".status")]
    {
        let target = scale.field(name);
        let is_optional = name == "labelSelectorPath";
        if target.is_empty() {
            if !is_optional {
                target.required("");
            }
            continue;
        }
        let is_below = |root: &str| target.str().strip_prefix(root).is_some_and(|rest| rest.starts_with('.'));
        if !(is_below(root) || is_optional && is_below(".spec")) {
            let roots = if is_optional { "either .status or .spec" } else { root };
            target.invalid(format!("should be a json path under {roots}"));
        }
    }
}
