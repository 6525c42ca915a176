//! Structural validation, in upstream's words.
//!
//! For custom resources this is all of OpenAPI v3 that structural schemas may use. For built-ins, whose decoder has
//! checked the types already, it comes down to required fields outside `status`; lists count as given when they are
//! absent, because clients leave out or send null for empty ones. The rest is the strategies' business.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::node::{Additional, Checks, ListType, Schema, Type};
use crate::path::{Path, Step};
use crate::{FieldError, formats};

/// How many bytes of errors are told, more or less: a path can be as long as a whole body, and wrong as often as that
/// has elements.
const TOLD_BYTES_MAX: usize = 1 << 20;
/// What an error takes besides its texts.
const ERROR_BYTES: usize = 1 << 10;

/// What is wrong with the value, the first thousand things of it. Empty when nothing is.
pub fn validate(schema: &Schema, value: &Value) -> Vec<FieldError> {
    let mut walk = Walk { errors: Vec::new(), bytes_left: TOLD_BYTES_MAX, built_in: schema.is_built_in() };
    walk.value(schema, value, &Path::ROOT);
    walk.errors
}

struct Walk {
    errors: Vec<FieldError>,
    /// With none left, nothing more is looked for.
    bytes_left: usize,
    built_in: bool,
}

impl Walk {
    fn value(&mut self, schema: &Schema, value: &Value, path: &Path<'_>) {
        if value.is_null() && schema.nullable || self.bytes_left == 0 {
            return;
        }
        if !has_type(schema.value_type, value) {
            let (wanted, got) = (type_name(schema.value_type), json_type(value));
            let message = format!("{path} in body must be of type {wanted}: \"{got}\"");
            self.push("FieldValueTypeInvalid", path, format!("Invalid value: \"{got}\": {message}"));
            return;
        }
        match value {
            Value::Object(map) => self.object(schema, map, path),
            Value::Array(list) => self.list(schema, list, path),
            _ => {}
        }
        if let Some(checks) = &schema.checks {
            self.checks(checks, value, path);
        }
    }

    fn object(&mut self, schema: &Schema, map: &Map<String, Value>, path: &Path<'_>) {
        for name in &schema.required {
            if !map.contains_key(&**name) && !self.may_be_absent(schema, name) {
                let path = path.child(Step::Field(name));
                self.push("FieldValueRequired", &path, "Required value".to_string());
            }
        }
        if schema.properties.is_empty() && !schema.is_map() {
            return;
        }
        for (key, child) in map {
            if let Some(property) = schema.property(key) {
                // What a built-in's status holds is said by components that know what they do.
                let is_status = self.built_in && key == "status" && path.is_root();
                if !is_status {
                    self.value(property.schema.get(), child, &path.child(Step::Field(key)));
                }
            } else if let Additional::Schema(link) = &schema.additional {
                self.value(link.get(), child, &path.child(Step::Key(key)));
            }
        }
    }

    fn may_be_absent(&self, schema: &Schema, name: &str) -> bool {
        self.built_in && schema.property(name).is_none_or(|p| p.schema.get().value_type == Type::Array)
    }

    fn list(&mut self, schema: &Schema, list: &[Value], path: &Path<'_>) {
        if let Some(items) = &schema.items {
            let items = items.get();
            for (index, item) in list.iter().enumerate() {
                self.value(items, item, &path.child(Step::Index(index)));
            }
        }
        if !self.built_in {
            self.duplicates(schema, list, path);
        }
    }

    /// Elements of sets and keyed lists that appear twice.
    fn duplicates(&mut self, schema: &Schema, list: &[Value], path: &Path<'_>) {
        if schema.list_type == ListType::Atomic {
            return;
        }
        let keys_of = |item: &Value| -> Value {
            let keys = schema.list_map_keys.iter();
            keys.filter_map(|key| Some((key.to_string(), item.get(&**key)?.clone())))
                .collect::<Map<_, _>>()
                .into()
        };
        let identity = |item: &Value| match schema.list_type {
            ListType::Map => keys_of(item),
            ListType::Set | ListType::Atomic => item.clone(),
        };
        let mut seen = HashSet::with_capacity(list.len());
        for (index, item) in list.iter().enumerate() {
            let shown = shown(&identity(item));
            let message = format!("Duplicate value: {shown}");
            if !seen.insert(shown) && self.bytes_left > 0 {
                self.push("FieldValueDuplicate", &path.child(Step::Index(index)), message);
            }
        }
    }

    fn checks(&mut self, checks: &Checks, value: &Value, path: &Path<'_>) {
        if let Some(allowed) = &checks.enumeration
            && !allowed.contains(value)
        {
            let allowed: Vec<String> = allowed.iter().map(shown).collect();
            let message =
                format!("Unsupported value: {}: supported values: {}", shown(value), allowed.join(", "));
            self.push("FieldValueNotSupported", path, message);
        }
        match value {
            Value::String(text) => self.text(checks, text, path),
            Value::Number(number) => self.number(checks, number.as_f64().unwrap_or_default(), value, path),
            Value::Array(list) => self.count_of_items(checks, list, path),
            Value::Object(map) => self.count_of_properties(checks, map, path),
            _ => {}
        }
        self.combinations(checks, value, path);
    }

    fn text(&mut self, checks: &Checks, text: &str, path: &Path<'_>) {
        let value = Value::from(text);
        let length = text.chars().count() as u64;
        if let Some(max) = checks.max_length.filter(|max| length > *max) {
            self.push("FieldValueTooLong", path, format!("Too long: may not be more than {max} bytes"));
        }
        if let Some(min) = checks.min_length.filter(|min| length < *min) {
            self.invalid(path, &value, format!("{path} in body should be at least {min} chars long"));
        }
        if let Some(pattern) = checks.pattern.as_ref().filter(|p| !p.is_match(text)) {
            self.invalid(path, &value, format!("{path} in body should match '{}'", pattern.source()));
        }
        if let Some(format) = checks.format.as_deref().filter(|f| !formats::holds(f, text)) {
            self.invalid(path, &value, format!("{path} in body must be of type {format}: {text:?}"));
        }
    }

    fn number(&mut self, checks: &Checks, number: f64, value: &Value, path: &Path<'_>) {
        if let Some(min) = checks.minimum {
            let (fails, or_equal) =
                if checks.exclusive_minimum { (number <= min, "") } else { (number < min, "or equal to ") };
            if fails {
                let or_equal = or_equal.trim_end();
                let gap = if or_equal.is_empty() { "" } else { " " };
                self.invalid(
                    path,
                    value,
                    format!("{path} in body should be greater than{gap}{or_equal} {min}"),
                );
            }
        }
        if let Some(max) = checks.maximum {
            let fails = if checks.exclusive_maximum { number >= max } else { number > max };
            if fails {
                let or_equal = if checks.exclusive_maximum { "" } else { " or equal to" };
                self.invalid(path, value, format!("{path} in body should be less than{or_equal} {max}"));
            }
        }
        if let Some(factor) = checks.multiple_of.filter(|f| *f != 0.0 && (number / f).fract() != 0.0) {
            self.invalid(path, value, format!("{path} in body should be a multiple of {factor}"));
        }
    }

    fn count_of_items(&mut self, checks: &Checks, list: &[Value], path: &Path<'_>) {
        let count = list.len() as u64;
        if let Some(max) = checks.max_items.filter(|max| count > *max) {
            let message = format!("Too many: {count}: must have at most {max} items");
            self.push("FieldValueTooMany", path, message);
        }
        if let Some(min) = checks.min_items.filter(|min| count < *min) {
            let value = Value::from(list);
            self.invalid(path, &value, format!("{path} in body should have at least {min} items"));
        }
        let mut seen = HashSet::new();
        if checks.unique_items && !list.iter().all(|item| seen.insert(item.to_string())) {
            let value = Value::from(list);
            self.invalid(path, &value, format!("{path} in body shouldn't contain duplicates"));
        }
    }

    fn count_of_properties(&mut self, checks: &Checks, map: &Map<String, Value>, path: &Path<'_>) {
        let count = map.len() as u64;
        if let Some(max) = checks.max_properties.filter(|max| count > *max) {
            let message = format!("Too many: {count}: must have at most {max} items");
            self.push("FieldValueTooMany", path, message);
        }
        if let Some(min) = checks.min_properties.filter(|min| count < *min) {
            let value = Value::from(map.clone());
            self.invalid(path, &value, format!("{path} in body should have at least {min} properties"));
        }
    }

    fn combinations(&mut self, checks: &Checks, value: &Value, path: &Path<'_>) {
        // Where does not matter then, and one error is enough.
        let holds = |schema: &Schema| self.errors_of(schema, value, &Path::ROOT, 1).is_empty();
        let mut wrong = Vec::new();
        for schema in &checks.all_of {
            wrong.extend(self.errors_of(schema, value, path, self.bytes_left));
        }
        if !wrong.is_empty() {
            wrong.push(alternative(path, "must validate all the schemas (allOf)"));
        }
        if !checks.any_of.is_empty() && !checks.any_of.iter().any(|s| holds(s)) {
            wrong.push(alternative(path, "must validate at least one schema (anyOf)"));
            let first = checks.any_of.first().map(|s| self.errors_of(s, value, path, self.bytes_left));
            wrong.extend(first.unwrap_or_default());
        }
        if !checks.one_of.is_empty() {
            let valid = checks.one_of.iter().filter(|s| holds(s)).count();
            let found =
                if valid == 0 { "none valid".to_string() } else { format!("{valid} valid alternatives") };
            if valid != 1 {
                let rule = format!("must validate one and only one schema (oneOf). Found {found}");
                wrong.push(alternative(path, &rule));
            }
        }
        if checks.not.as_ref().is_some_and(|s| holds(s)) {
            wrong.push(alternative(path, "must not validate the schema (not)"));
        }
        wrong.into_iter().for_each(|error| self.tell(error));
    }

    fn errors_of(&self, schema: &Schema, value: &Value, path: &Path<'_>, bytes: usize) -> Vec<FieldError> {
        let mut inner = Walk { errors: Vec::new(), bytes_left: bytes, built_in: self.built_in };
        inner.value(schema, value, path);
        inner.errors
    }

    fn invalid(&mut self, path: &Path<'_>, value: &Value, why: String) {
        self.push("FieldValueInvalid", path, format!("Invalid value: {}: {why}", shown(value)));
    }

    fn push(&mut self, reason: &'static str, path: &Path<'_>, message: String) {
        let field = if path.is_root() { "<nil>".to_string() } else { path.to_string() };
        self.tell(FieldError { reason, field, message });
    }

    fn tell(&mut self, error: FieldError) {
        self.bytes_left =
            self.bytes_left.saturating_sub(ERROR_BYTES + error.field.len() + error.message.len());
        self.errors.push(error);
    }
}

fn alternative(path: &Path<'_>, rule: &str) -> FieldError {
    let field = if path.is_root() { "<nil>".to_string() } else { path.to_string() };
    let message = format!("Invalid value: \"\": \"{path}\" {rule}");
    FieldError { reason: "FieldValueInvalid", field, message }
}

/// A value as upstream shows it in messages.
fn shown(value: &Value) -> String {
    value.to_string()
}

fn has_type(wanted: Type, value: &Value) -> bool {
    match wanted {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String(_) => value.is_string(),
        Type::Int32 | Type::Int64 => is_whole(value),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
        Type::IntOrString => value.is_string() || is_whole(value),
    }
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() < 9e15)
}

fn type_name(wanted: Type) -> &'static str {
    match wanted {
        Type::Any => "any",
        Type::Object => "object",
        Type::Array => "array",
        Type::String(_) => "string",
        Type::Int32 | Type::Int64 => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
        Type::IntOrString => "integer,string",
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_whole(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(schema: Value, value: Value) -> Vec<String> {
        let schema =
            Schema::from_openapi(&json!({"type": "object", "properties": {"spec": schema}})).unwrap();
        let errors = validate(&schema, &json!({"spec": value}));
        errors.into_iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
    }

    #[test]
    fn wrong_values_should_be_told_in_upstreams_words() {
        let spec = json!({"type": "object", "required": ["name"], "properties": {
            "replicas": {"type": "integer", "minimum": 1, "maximum": 9},
            "size": {"type": "string", "enum": ["S", "L"]},
            "name": {"type": "string", "pattern": "^a+$", "maxLength": 3},
            "list": {"type": "array", "maxItems": 1, "items": {"type": "string"}},
            "when": {"type": "string", "format": "date-time"},
        }});
        let value = json!({"replicas": 0, "size": "M", "name": "bbbb", "list": ["a", 2], "when": "later"});
        assert_eq!(
            told(spec.clone(), value),
            [
                "spec.list[1]: Invalid value: \"integer\": spec.list[1] in body must be of type string: \"integer\"",
                "spec.list: Too many: 2: must have at most 1 items",
                "spec.name: Too long: may not be more than 3 bytes",
                "spec.name: Invalid value: \"bbbb\": spec.name in body should match '^a+$'",
                "spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1",
                "spec.size: Unsupported value: \"M\": supported values: \"S\", \"L\"",
                "spec.when: Invalid value: \"later\": spec.when in body must be of type date-time: \"later\"",
            ]
        );
        assert_eq!(told(spec, json!({"replicas": 3})), ["spec.name: Required value"]);
    }

    #[test]
    fn combinations_and_list_identities_should_hold() {
        let one_of = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
        assert!(told(one_of.clone(), json!({"a": "x"})).is_empty());
        assert_eq!(
            told(one_of, json!({})),
            [
                "spec: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid"
            ]
        );
        let keyed = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
            "items": {"type": "object", "properties": {"n": {"type": "string"}}}});
        assert_eq!(
            told(keyed, json!([{"n": "a"}, {"n": "b"}, {"n": "a"}])),
            ["spec[2]: Duplicate value: {\"n\":\"a\"}"]
        );
    }

    #[test]
    fn wrong_values_should_be_told_in_few_words_however_many_they_are() {
        let list = json!({"type": "array", "items": {"type": "string", "anyOf": [{"maxLength": 1}]}});
        let wrong = vec![json!(1); 10_000];
        let count = told(list.clone(), wrong.clone().into()).len();
        assert!((500..1000).contains(&count), "{count}");
        let map = json!({"type": "object", "additionalProperties": list});
        let long = "k".repeat(1 << 20);
        assert_eq!(told(map, json!({long: wrong})).len(), 1);
    }
}
