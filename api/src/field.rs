//! Field errors in upstream's words, and short ways to look into JSON trees.
//!
//! A message has the form `<what>: <value>: <detail>`; the value is quoted when it is text and JSON otherwise.

use std::fmt::Write as _;

pub use schema::{FieldError, Path, Step};
use serde_json::{Map, Value};

/// The detail of a field that must not change.
pub const IMMUTABLE: &str = "field is immutable";

/// Ways down a path that read like the path itself.
pub trait PathExt<'a> {
    /// `.name`; dots in the name make it several fields at once.
    fn field(&'a self, name: &'a str) -> Path<'a>;
    /// `[index]`
    fn index(&'a self, index: usize) -> Path<'a>;
    /// `[key]`
    fn key(&'a self, key: &'a str) -> Path<'a>;
}

impl<'a> PathExt<'a> for Path<'a> {
    fn field(&'a self, name: &'a str) -> Path<'a> {
        self.child(Step::Field(name))
    }

    fn index(&'a self, index: usize) -> Path<'a> {
        self.child(Step::Index(index))
    }

    fn key(&'a self, key: &'a str) -> Path<'a> {
        self.child(Step::Key(key))
    }
}

/// Where the errors of one validation are gathered.
#[derive(Debug, Default)]
pub struct Errors {
    list: Vec<FieldError>,
}

impl Errors {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was found.
    pub fn into_vec(self) -> Vec<FieldError> {
        self.list
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How much was found.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Adds what another validation found.
    pub fn extend(&mut self, more: impl IntoIterator<Item = FieldError>) {
        self.list.extend(more);
    }

    fn add(&mut self, reason: &'static str, path: &Path, message: String) {
        self.list.push(FieldError { reason, field: path.to_string(), message });
    }

    /// A value has to be there.
    pub fn required(&mut self, path: &Path, detail: &str) {
        self.add("FieldValueRequired", path, with_detail("Required value".to_string(), detail));
    }

    /// A value is malformed or out of bounds.
    pub fn invalid(&mut self, path: &Path, value: impl Into<Value>, detail: impl AsRef<str>) {
        self.add("FieldValueInvalid", path, with_value("Invalid value", &value.into(), detail.as_ref()));
    }

    /// A value is malformed, and is not repeated.
    pub fn invalid_unnamed(&mut self, path: &Path, detail: impl AsRef<str>) {
        self.add("FieldValueInvalid", path, with_detail("Invalid value".to_string(), detail.as_ref()));
    }

    /// One error per complaint about the same value.
    pub fn invalid_each(&mut self, path: &Path, value: &str, details: impl IntoIterator<Item = String>) {
        for detail in details {
            self.invalid(path, value, detail);
        }
    }

    /// A value must not change.
    pub fn immutable(&mut self, path: &Path, value: &Value) {
        self.invalid(path, value.clone(), IMMUTABLE);
    }

    /// A value that is none of those known.
    pub fn not_supported(&mut self, path: &Path, value: impl Into<Value>, supported: &[&str]) {
        let mut sorted: Vec<&str> = supported.to_vec();
        sorted.sort_unstable();
        let quoted: Vec<String> = sorted.iter().map(|s| quoted(s)).collect();
        let detail = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        self.add("FieldValueNotSupported", path, with_value("Unsupported value", &value.into(), &detail));
    }

    /// A value that has to be unique and is not.
    pub fn duplicate(&mut self, path: &Path, value: impl Into<Value>) {
        self.add("FieldValueDuplicate", path, with_value("Duplicate value", &value.into(), ""));
    }

    /// A value that has to be unique and is not, with the reason.
    pub fn duplicate_because(&mut self, path: &Path, value: impl Into<Value>, detail: &str) {
        self.add("FieldValueDuplicate", path, with_value("Duplicate value", &value.into(), detail));
    }

    /// A value that is well formed and not allowed here.
    pub fn forbidden(&mut self, path: &Path, detail: &str) {
        self.add("FieldValueForbidden", path, with_detail("Forbidden".to_string(), detail));
    }

    /// A value that refers to what is not there.
    pub fn not_found(&mut self, path: &Path, value: impl Into<Value>) {
        self.add("FieldValueNotFound", path, with_value("Not found", &value.into(), ""));
    }

    /// Text that is too long.
    pub fn too_long(&mut self, path: &Path, bytes_max: usize) {
        let message = format!("Too long: may not be more than {bytes_max} bytes");
        self.add("FieldValueTooLong", path, message);
    }

    /// A list that is too long.
    pub fn too_many(&mut self, path: &Path, count: usize, count_max: usize) {
        let items = if count_max == 1 { "item" } else { "items" };
        let message = format!("Too many: {count}: must have at most {count_max} {items}");
        self.add("FieldValueTooMany", path, message);
    }
}

fn with_detail(mut message: String, detail: &str) -> String {
    if !detail.is_empty() {
        message.push_str(": ");
        message.push_str(detail);
    }
    message
}

fn with_value(what: &str, value: &Value, detail: &str) -> String {
    let value = match value {
        Value::String(text) => quoted(text),
        other => other.to_string(),
    };
    with_detail(format!("{what}: {value}"), detail)
}

/// Text in double quotes with Go's escapes, as `%q` prints it.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                // Writing to a String cannot fail.
                _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether two values mean the same: absent, null, empty and zero are one, as they are after a round trip through
/// upstream's types. What a client spells out and what it leaves out is then no change.
pub fn same_meaning(one: Option<&Value>, other: Option<&Value>) -> bool {
    match (one, other) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            one.iter().all(|(key, value)| same_meaning(Some(value), other.get(key)))
                && other.iter().all(|(key, value)| one.contains_key(key) || is_nothing(Some(value)))
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| same_meaning(Some(one), Some(other)))
        }
        (one, other) => one == other || is_nothing(one) && is_nothing(other),
    }
}

fn is_nothing(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.values().all(|value| is_nothing(Some(value))),
        Some(Value::Bool(true)) => false,
    }
}

/// Looking into trees of which the schema has already checked the types; what is absent reads as empty.
pub trait Look {
    /// The value of a field, if it is there and not null.
    fn at(&self, name: &str) -> Option<&Value>;
    /// The value at the end of a chain of fields.
    fn dig(&self, path: &[&str]) -> Option<&Value>;
    /// A text field, or the empty string.
    fn text(&self, name: &str) -> &str;
    /// An integer field.
    fn int(&self, name: &str) -> Option<i64>;
    /// A boolean field, or false.
    fn flag(&self, name: &str) -> bool;
    /// The elements of a list field.
    fn items(&self, name: &str) -> &[Value];
    /// The entries of a map field, sorted by key.
    fn entries<'a>(&'a self, name: &str) -> Box<dyn Iterator<Item = (&'a String, &'a Value)> + 'a>;
}

impl Look for Value {
    fn at(&self, name: &str) -> Option<&Value> {
        self.get(name).filter(|v| !v.is_null())
    }

    fn dig(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(self, |value, name| value.at(name))
    }

    fn text(&self, name: &str) -> &str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn int(&self, name: &str) -> Option<i64> {
        self.get(name).and_then(Value::as_i64)
    }

    fn flag(&self, name: &str) -> bool {
        self.get(name).and_then(Value::as_bool).unwrap_or_default()
    }

    fn items(&self, name: &str) -> &[Value] {
        self.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn entries<'a>(&'a self, name: &str) -> Box<dyn Iterator<Item = (&'a String, &'a Value)> + 'a> {
        match self.get(name) {
            Some(Value::Object(map)) => Box::new(map.iter()),
            _ => Box::new(std::iter::empty()),
        }
    }
}

/// Changing trees without a panic when something is not what it should be.
pub trait Touch {
    /// The object at `name`, made when absent; `None` when something else is there.
    fn object_mut(&mut self, name: &str) -> Option<&mut Value>;
    /// The elements of a list field.
    fn items_mut(&mut self, name: &str) -> &mut [Value];
    /// Changes what stands at the end of a chain of fields, if anything does; dots part the fields.
    fn inside(&mut self, path: &str, change: impl FnOnce(&mut Value));
    /// Changes every element of a list field.
    fn each_inside(&mut self, list: &str, change: impl FnMut(&mut Value));
    /// Sets a field that is absent or null.
    fn default_to(&mut self, name: &str, value: impl Into<Value>);
    /// Sets a field that is absent, null or the empty string.
    fn default_text(&mut self, name: &str, value: &str);
    /// Sets a field.
    fn put(&mut self, name: &str, value: impl Into<Value>);
    /// Drops a field.
    fn drop_field(&mut self, name: &str);
}

impl Touch for Value {
    fn object_mut(&mut self, name: &str) -> Option<&mut Value> {
        let map = self.as_object_mut()?;
        if map.get(name).is_none_or(Value::is_null) {
            map.insert(name.to_string(), Value::Object(Map::new()));
        }
        map.get_mut(name).filter(|v| v.is_object())
    }

    fn inside(&mut self, path: &str, change: impl FnOnce(&mut Value)) {
        let found = path.split('.').try_fold(self, |value, name| value.get_mut(name));
        if let Some(value) = found.filter(|value| !value.is_null()) {
            change(value);
        }
    }

    fn each_inside(&mut self, list: &str, change: impl FnMut(&mut Value)) {
        self.items_mut(list).iter_mut().for_each(change);
    }

    fn items_mut(&mut self, name: &str) -> &mut [Value] {
        self.get_mut(name).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
    }

    fn default_to(&mut self, name: &str, value: impl Into<Value>) {
        if let Some(map) = self.as_object_mut()
            && map.get(name).is_none_or(Value::is_null)
        {
            map.insert(name.to_string(), value.into());
        }
    }

    fn default_text(&mut self, name: &str, value: &str) {
        if self.text(name).is_empty() {
            self.put(name, value);
        }
    }

    fn put(&mut self, name: &str, value: impl Into<Value>) {
        if let Some(map) = self.as_object_mut() {
            map.insert(name.to_string(), value.into());
        }
    }

    fn drop_field(&mut self, name: &str) {
        if let Some(map) = self.as_object_mut() {
            map.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_should_mean_the_same_as_nothing() {
        let spelled = json!({"a": [], "b": {"c": false}, "d": 0, "e": "", "f": [{"g": 1, "h": null}]});
        let left_out = json!({"f": [{"g": 1}]});
        assert!(
            same_meaning(Some(&spelled), Some(&left_out)) && same_meaning(Some(&left_out), Some(&spelled))
        );
        assert!(!same_meaning(Some(&json!({"a": true})), Some(&json!({}))));
        assert!(!same_meaning(Some(&json!([1])), Some(&json!([1, 0]))));
        assert!(!same_meaning(Some(&json!({})), Some(&json!({"a": 1}))));
    }

    #[test]
    fn messages_should_read_as_upstream_writes_them() {
        let spec = Path::ROOT.field("spec");
        let mut errors = Errors::new();
        errors.required(&spec.field("selector"), "");
        errors.invalid(&spec.field("replicas"), -1, "must be greater than or equal to 0");
        errors.immutable(&spec.field("selector"), &json!({"matchLabels": {"app": "web"}}));
        errors.not_supported(&spec.field("type"), "X", &["NodePort", "ClusterIP"]);
        errors.duplicate(&spec.field("ports").index(1), json!({"port": 80}));
        errors.too_long(&spec, 63);
        let texts: Vec<String> =
            errors.into_vec().iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
        assert_eq!(
            texts,
            [
                "spec.selector: Required value",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"web\"}}: field is immutable",
                "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"NodePort\"",
                "spec.ports[1]: Duplicate value: {\"port\":80}",
                "spec: Too long: may not be more than 63 bytes",
            ]
        );
    }
}
