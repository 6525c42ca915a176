//! OpenAPI schemas to schema trees.
//!
//! Custom resources bring OpenAPI v3 without references. Built-in definitions refer to each other by name
//! (`$ref: #/…/<name>`, alone or in a single `allOf`), also recursively.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use crate::node::{
    Additional, Checks, Link, ListType, MapType, Patch, Pattern, Property, Rule, ScalarFormat, Type,
};
use crate::{Schema, SchemaError};

/// Named definitions that schemas refer to. Grows as kinds are first used; a name once given never changes.
#[derive(Debug, Default)]
pub struct Definitions {
    cells: HashMap<Box<str>, Arc<OnceLock<Arc<Schema>>>>,
}

impl Definitions {
    /// The definition, if it is there.
    pub fn get(&self, name: &str) -> Option<Arc<Schema>> {
        self.cells.get(name)?.get().cloned()
    }

    /// Reads a definition. What it refers to may be defined later.
    pub fn define(&mut self, name: &str, source: &Value) -> Result<(), SchemaError> {
        if self.get(name).is_some() {
            return Ok(());
        }
        let mut schema = Parser { definitions: Some(&mut *self) }.schema(source, name)?;
        schema.name = Some(short_name(name).into());
        if schema.value_type == Type::Object && schema.properties.is_empty() && !schema.is_map() {
            // A built-in without described fields holds raw JSON, and is owned as a whole.
            schema.additional = Additional::Any;
            schema.preserve_unknown = true;
            schema.map_type = MapType::Atomic;
        }
        self.define_as(name, schema);
        Ok(())
    }

    /// Gives a name to a schema that was made by hand.
    pub fn define_as(&mut self, name: &str, schema: Schema) {
        // A second definition of the same name is the same one; the first stays.
        let _already_there = self.cell(name).set(Arc::new(schema));
    }

    fn cell(&mut self, name: &str) -> Arc<OnceLock<Arc<Schema>>> {
        self.cells.entry(name.into()).or_default().clone()
    }
}

/// `v1.DeploymentSpec` of `io.k8s.api.apps.v1.DeploymentSpec`.
fn short_name(name: &str) -> &str {
    let mut dots = name.rmatch_indices('.');
    dots.next();
    dots.next().map_or(name, |(at, _)| name.get(at + 1..).unwrap_or(name))
}

impl Schema {
    /// Reads the OpenAPI v3 schema of a custom resource, in which there are no references.
    pub fn from_openapi(source: &Value) -> Result<Schema, SchemaError> {
        Parser { definitions: None }.schema(source, "openAPIV3Schema")
    }
}

struct Parser<'d> {
    definitions: Option<&'d mut Definitions>,
}

impl Parser<'_> {
    fn schema(&mut self, source: &Value, at: &str) -> Result<Schema, SchemaError> {
        let Some(source) = source.as_object() else {
            return Err(keyword(at, "schema"));
        };
        let mut schema = Schema {
            value_type: value_type(source),
            nullable: flag(source, "nullable"),
            properties: self.properties(source, at)?,
            additional: self.additional(source, at)?,
            required: strings(source, "required"),
            items: self.items(source, at)?,
            list_type: list_type(source),
            list_map_keys: strings(source, "x-kubernetes-list-map-keys"),
            map_type: map_type(source).unwrap_or_default(),
            preserve_unknown: flag(source, "x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag(source, "x-kubernetes-embedded-resource"),
            checks: self.checks(source, at)?,
            default: source.get("default").filter(|v| !v.is_null()).cloned().map(Arc::new),
            name: None,
        };
        if schema.embedded_resource {
            envelop(&mut schema);
        }
        Ok(schema)
    }

    fn link(&mut self, source: &Value, at: &str) -> Result<Link, SchemaError> {
        let Some(name) = reference(source) else {
            return Ok(Link::Direct(share(self.schema(source, at)?)));
        };
        match &mut self.definitions {
            Some(definitions) => Ok(Link::Named(definitions.cell(name))),
            None => Err(SchemaError::Reference { at: at.to_string(), name: name.to_string() }),
        }
    }

    /// A link from a property, which remembers its default itself.
    fn property(&mut self, source: &Value, at: &str) -> Result<Link, SchemaError> {
        if reference(source).is_some() {
            return self.link(source, at);
        }
        let mut schema = self.schema(source, at)?;
        schema.default = None;
        Ok(Link::Direct(share(schema)))
    }

    fn properties(&mut self, source: &Map<String, Value>, at: &str) -> Result<Box<[Property]>, SchemaError> {
        let Some(described) = source.get("properties") else { return Ok(Box::default()) };
        let described = described.as_object().ok_or_else(|| keyword(at, "properties"))?;
        let mut properties = Vec::with_capacity(described.len());
        for (name, source) in described {
            let at = format!("{at}.{name}");
            let schema = self.property(source, &at)?;
            let is_reference = matches!(schema, Link::Named(_));
            properties.push(Property {
                name: name.as_str().into(),
                schema,
                default: source.get("default").filter(|v| !v.is_null()).cloned().map(Arc::new),
                patch: patch(source),
                map_type: source.as_object().filter(|_| is_reference).and_then(map_type),
            });
        }
        properties.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(properties.into())
    }

    fn additional(&mut self, source: &Map<String, Value>, at: &str) -> Result<Additional, SchemaError> {
        match source.get("additionalProperties") {
            None | Some(Value::Bool(false)) if untyped(source) => Ok(Additional::Any),
            None | Some(Value::Bool(false)) => Ok(Additional::Unknown),
            Some(Value::Bool(true)) => Ok(Additional::Any),
            Some(described) => Ok(Additional::Schema(self.link(described, &format!("{at}.*"))?)),
        }
    }

    fn items(&mut self, source: &Map<String, Value>, at: &str) -> Result<Option<Link>, SchemaError> {
        source.get("items").map(|items| self.link(items, &format!("{at}[]"))).transpose()
    }

    fn checks(&mut self, source: &Map<String, Value>, at: &str) -> Result<Option<Box<Checks>>, SchemaError> {
        let number = |name: &str| source.get(name).and_then(Value::as_f64);
        let count = |name: &str| source.get(name).and_then(Value::as_u64);
        let format = source.get("format").and_then(Value::as_str);
        let checks = Checks {
            enumeration: source.get("enum").and_then(Value::as_array).map(|v| v.clone().into()),
            pattern: pattern(source, at)?,
            format: format.filter(|f| !matches!(*f, "int32" | "int64" | "double" | "float")).map(Into::into),
            minimum: number("minimum"),
            exclusive_minimum: flag(source, "exclusiveMinimum"),
            maximum: number("maximum"),
            exclusive_maximum: flag(source, "exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique_items: flag(source, "uniqueItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            all_of: self.alternatives(source, "allOf", at)?,
            any_of: self.alternatives(source, "anyOf", at)?,
            one_of: self.alternatives(source, "oneOf", at)?,
            not: source.get("not").map(|v| self.schema(v, at).map(Arc::new)).transpose()?,
            rules: rules(source),
        };
        Ok(if checks.is_empty() { None } else { Some(Box::new(checks)) })
    }

    fn alternatives(
        &mut self,
        source: &Map<String, Value>,
        name: &str,
        at: &str,
    ) -> Result<Box<[Arc<Schema>]>, SchemaError> {
        let Some(list) = source.get(name) else { return Ok(Box::default()) };
        let list = list.as_array().ok_or_else(|| keyword(at, name))?;
        list.iter().map(|v| self.schema(v, at).map(Arc::new)).collect()
    }
}

/// Puts the schema on the heap; plain scalars, which most fields are, exist once for all.
fn share(schema: Schema) -> Arc<Schema> {
    static PLAIN: [OnceLock<Arc<Schema>>; 5] = [const { OnceLock::new() }; 5];
    let at = match schema.value_type {
        Type::String(ScalarFormat::Plain) => 0,
        Type::Int32 => 1,
        Type::Int64 => 2,
        Type::Boolean => 3,
        Type::Number => 4,
        _ => return Arc::new(schema),
    };
    match PLAIN.get(at) {
        Some(cell) if schema.is_plain_scalar() => cell.get_or_init(|| Arc::new(schema)).clone(),
        _ => Arc::new(schema),
    }
}

/// Adds what every embedded resource has.
fn envelop(schema: &mut Schema) {
    let text = Arc::new(Schema { value_type: Type::String(ScalarFormat::Plain), ..Schema::default() });
    let mut properties = std::mem::take(&mut schema.properties).into_vec();
    for (name, described) in
        [("apiVersion", text.clone()), ("kind", text), ("metadata", Schema::anything().clone())]
    {
        if properties.iter().all(|p| &*p.name != name) {
            properties.push(Property::plain(name, described));
        }
    }
    properties.sort_by(|a, b| a.name.cmp(&b.name));
    schema.properties = properties.into();
    let mut required = std::mem::take(&mut schema.required).into_vec();
    required.extend(["apiVersion", "kind"].map(Box::from));
    required.sort();
    required.dedup();
    schema.required = required.into();
}

/// The name that a `$ref` leads to.
fn reference(source: &Value) -> Option<&str> {
    let target = source.get("$ref").or_else(|| match source.get("allOf")?.as_array()?.as_slice() {
        [only] => only.get("$ref"),
        _ => None,
    })?;
    target.as_str()?.rsplit('/').next()
}

fn value_type(source: &Map<String, Value>) -> Type {
    if flag(source, "x-kubernetes-int-or-string") {
        return Type::IntOrString;
    }
    let format = source.get("format").and_then(Value::as_str);
    match source.get("type").and_then(Value::as_str) {
        Some("object") => Type::Object,
        Some("array") => Type::Array,
        Some("string") => Type::String(match format {
            Some("byte") => ScalarFormat::Bytes,
            Some("date-time") => ScalarFormat::Time,
            Some("int-or-string") => return Type::IntOrString,
            _ => ScalarFormat::Plain,
        }),
        Some("integer") if format == Some("int32") => Type::Int32,
        Some("integer") => Type::Int64,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        _ if source.contains_key("properties") => Type::Object,
        _ => Type::Any,
    }
}

/// Whether nothing at all is said about the value's shape.
fn untyped(source: &Map<String, Value>) -> bool {
    value_type(source) == Type::Any
}

fn list_type(source: &Map<String, Value>) -> ListType {
    match source.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map,
        _ => ListType::Atomic,
    }
}

fn map_type(source: &Map<String, Value>) -> Option<MapType> {
    match source.get("x-kubernetes-map-type").and_then(Value::as_str)? {
        "atomic" => Some(MapType::Atomic),
        _ => Some(MapType::Granular),
    }
}

fn patch(source: &Value) -> Option<Box<Patch>> {
    let strategy = source.get("x-kubernetes-patch-strategy").and_then(Value::as_str).unwrap_or_default();
    let merge_key = source.get("x-kubernetes-patch-merge-key").and_then(Value::as_str);
    let has = |word: &str| strategy.split(',').any(|s| s == word);
    let patch = Patch {
        merge: has("merge"),
        replace: has("replace"),
        retain_keys: has("retainKeys"),
        merge_key: merge_key.map(Into::into),
    };
    (patch != Patch::default()).then(|| Box::new(patch))
}

fn pattern(source: &Map<String, Value>, at: &str) -> Result<Option<Pattern>, SchemaError> {
    let Some(text) = source.get("pattern").and_then(Value::as_str) else { return Ok(None) };
    match Pattern::new(text) {
        Ok(pattern) => Ok(Some(pattern)),
        Err(why) => Err(SchemaError::Pattern { at: at.to_string(), pattern: text.to_string(), why }),
    }
}

fn rules(source: &Map<String, Value>) -> Box<[Rule]> {
    let Some(list) = source.get("x-kubernetes-validations").and_then(Value::as_array) else {
        return Box::default();
    };
    let text =
        |rule: &Value, name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
    list.iter()
        .map(|rule| Rule {
            rule: text(rule, "rule"),
            message: text(rule, "message"),
            message_expression: text(rule, "messageExpression"),
            reason: text(rule, "reason"),
            field_path: text(rule, "fieldPath"),
            optional_old_self: rule.get("optionalOldSelf").and_then(Value::as_bool),
        })
        .collect()
}

fn flag(source: &Map<String, Value>, name: &str) -> bool {
    source.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn strings(source: &Map<String, Value>, name: &str) -> Box<[Box<str>]> {
    let list = source.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect()
}

fn keyword(at: &str, keyword: &str) -> SchemaError {
    SchemaError::Keyword { at: at.to_string(), keyword: keyword.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn recursive_definitions_should_resolve() {
        let mut definitions = Definitions::default();
        let source = json!({"type": "object", "properties": {
            "child": {"$ref": "#/definitions/io.example.v1.Tree", "default": {}},
            "name": {"type": "string"},
        }});
        definitions.define("io.example.v1.Tree", &source).unwrap();
        let tree = definitions.get("io.example.v1.Tree").unwrap();
        let deep = tree.property("child").unwrap().schema.get().property("child").unwrap().schema.get();
        assert_eq!(deep.name.as_deref(), Some("v1.Tree"));
        assert!(deep.property("name").is_some());
    }

    #[test]
    fn what_cannot_be_used_should_be_refused_with_its_place() {
        let error = Schema::from_openapi(&json!({"properties": {"a": {"type": "string", "pattern": "("}}}));
        assert!(matches!(error, Err(SchemaError::Pattern { at, .. }) if at == "openAPIV3Schema.a"));
        let error = Schema::from_openapi(&json!({"properties": {"a": {"$ref": "#/definitions/x"}}}));
        assert!(matches!(error, Err(SchemaError::Reference { name, .. }) if name == "x"));
    }
}
