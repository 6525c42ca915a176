//! The columns that a CustomResourceDefinition describes.
//!
//! Of JSONPath the part that such columns use is understood: fields, quoted fields, indexes, `[*]` and filters of the
//! form `[?(@.type=="Ready")]`. Anything else yields an empty cell, as a path that leads nowhere does.

use serde_json::{Value, json};

use super::Subject;
use crate::{CustomVersion, PrinterColumn};

/// `columnDefinitions`, with the name before what is described.
pub(super) fn definitions(version: &CustomVersion) -> Value {
    let name =
        json!({"name": "Name", "type": "string", "format": "name", "description": "Name", "priority": 0});
    let described = version.columns.iter().map(|column| {
        json!({
            "name": column.name, "type": column.column_type, "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    });
    std::iter::once(name).chain(described).collect()
}

/// The cells of one object.
pub(super) fn cells(version: &CustomVersion, subject: &Subject) -> Vec<Value> {
    let name = std::iter::once(Value::from(subject.name()));
    name.chain(version.columns.iter().map(|column| cell(column, subject))).collect()
}

fn cell(column: &PrinterColumn, subject: &Subject) -> Value {
    let found = find(subject.object, &column.json_path);
    let Some(first) = found.first() else { return Value::Null };
    match column.column_type.as_str() {
        "integer" if first.is_i64() || first.is_u64() => (*first).clone(),
        "integer" => first.as_f64().map_or(Value::Null, |n| json!(n.trunc())),
        "number" if first.is_number() => (*first).clone(),
        "boolean" if first.is_boolean() => (*first).clone(),
        "date" => first.as_str().map_or(Value::Null, |time| subject.since(time).into()),
        "string" => match first {
            Value::String(text) if found.len() == 1 => text.as_str().into(),
            _ => {
                let texts: Vec<String> = found
                    .iter()
                    .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_string))
                    .collect();
                texts.join(" ").into()
            }
        },
        _ => Value::Null,
    }
}

/// Every value that a path leads to.
pub(super) fn find<'a>(root: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut here = vec![root];
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    while !rest.is_empty() {
        let step = if let Some(inner) = rest.strip_prefix('[') {
            let Some(end) = closing(inner) else { return Vec::new() };
            let (step, after) = inner.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            Step::bracketed(step)
        } else {
            let name = rest.trim_start_matches('.');
            let end = name.find(['.', '[']).unwrap_or(name.len());
            // A dot after a backslash belongs to the name.
            let end = unescaped_end(name, end);
            let (field, after) = name.split_at(end);
            rest = after;
            Some(Step::Field(field.replace("\\.", ".")))
        };
        let Some(step) = step else { return Vec::new() };
        here =
            here.into_iter().flat_map(|value| step.apply(value)).filter(|value| !value.is_null()).collect();
    }
    here
}

fn unescaped_end(name: &str, mut end: usize) -> usize {
    while name.get(..end).is_some_and(|n| n.ends_with('\\')) && end < name.len() {
        let from = end + 1;
        end = name.get(from..).and_then(|n| n.find(['.', '['])).map_or(name.len(), |next| from + next);
    }
    end
}

/// Where the bracket closes, quotes aside.
fn closing(inner: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in inner.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, ']') => return Some(at),
            (None, _) => {}
        }
    }
    None
}

enum Step {
    Field(String),
    Index(i64),
    All,
    /// Elements whose field at the path has the value.
    Where(String, Value),
}

impl Step {
    fn bracketed(text: &str) -> Option<Self> {
        let text = text.trim();
        if text == "*" {
            return Some(Self::All);
        }
        if let Some(condition) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
            let (path, value) = condition.split_once("==")?;
            let path = path.trim().strip_prefix('@')?;
            return Some(Self::Where(path.to_string(), literal(value.trim())?));
        }
        if let Ok(index) = text.parse() {
            return Some(Self::Index(index));
        }
        match literal(text)? {
            Value::String(name) => Some(Self::Field(name)),
            _ => None,
        }
    }

    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Field(name), _) => value.get(name).into_iter().collect(),
            (Self::Index(index), Value::Array(items)) => {
                let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
                let index = if *index < 0 { length + index } else { *index };
                usize::try_from(index).ok().and_then(|index| items.get(index)).into_iter().collect()
            }
            (Self::All, Value::Array(items)) => items.iter().collect(),
            (Self::All, Value::Object(fields)) => fields.values().collect(),
            (Self::Where(path, wanted), Value::Array(items)) => {
                items.iter().filter(|item| find(item, path).first() == Some(&wanted)).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn literal(text: &str) -> Option<Value> {
    for quote in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote)) {
            return Some(inner.into());
        }
    }
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_should_lead_to_values() {
        let object = json!({"spec": {"replicas": 3, "hosts": ["a", "b"]}, "metadata": {"labels": {"a.b/c": "d"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]}});
        for (path, expected) in [
            (".spec.replicas", json!([3])),
            ("{.spec.replicas}", json!([3])),
            (".spec.hosts[*]", json!(["a", "b"])),
            (".spec.hosts[-1]", json!(["b"])),
            (".metadata.labels.a\\.b/c", json!(["d"])),
            (".metadata.labels['a.b/c']", json!(["d"])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type=='Ready')].status", json!(["True"])),
            (".spec.missing.more", json!([])),
            (".spec[", json!([])),
        ] {
            assert_eq!(json!(find(&object, path)), expected, "{path}");
        }
    }
}
