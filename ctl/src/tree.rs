//! Reading JSON trees by pointer: what is not there is empty, zero or false.

use serde_json::{Value, json};

/// A text.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A whole number.
pub fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// Whether something is there, and true.
pub fn flag(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

/// The items of a list.
pub fn items<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// The fields of an object, by name.
pub fn fields<'a>(object: &'a Value, pointer: &str) -> Vec<(&'a str, &'a Value)> {
    let fields = object.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    let mut fields: Vec<(&str, &Value)> = fields.map(|(key, value)| (key.as_str(), value)).collect();
    fields.sort_by_key(|(key, _)| *key);
    fields
}

/// Whether a write of ours changed nothing, whatever others did to the status meanwhile.
pub fn same_but_status(before: &Value, after: &Value) -> bool {
    let ours = |object: &Value| {
        let mut object = object.clone();
        object["status"].take();
        for field in ["resourceVersion", "managedFields"] {
            object["metadata"][field].take();
        }
        object
    };
    ours(before) == ours(after)
}

/// Any scalar as text, without quotes.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The scalar at a pointer as text.
pub fn shown(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).map(plain).unwrap_or_default()
}

/// The items of a list as one text.
pub fn joined(object: &Value, pointer: &str, separator: &str) -> String {
    items(object, pointer).map(plain).collect::<Vec<_>>().join(separator)
}

/// The items of a list as Go writes them: `[a b]`.
pub fn listed(object: &Value, pointer: &str) -> String {
    format!("[{}]", joined(object, pointer, " "))
}

/// What a rule is about, once per kind and group: the group, the kind as the rule has it, and `kind.group/part`.
pub fn rule_kinds(rule: &Value) -> Vec<(&str, &str, String)> {
    let mut groups: Vec<&str> = items(rule, "/apiGroups").filter_map(Value::as_str).collect();
    if groups.is_empty() {
        groups.push("");
    }
    let mut all = Vec::new();
    for kind in items(rule, "/resources").filter_map(Value::as_str) {
        let (plural, part) = kind.split_once('/').unwrap_or((kind, ""));
        for group in &groups {
            let dot = if group.is_empty() { "" } else { "." };
            let slash = if part.is_empty() { "" } else { "/" };
            all.push((*group, kind, format!("{plural}{dot}{group}{slash}{part}")));
        }
    }
    all
}

/// A label selector as text: `app=web,tier in (a,b),!old`; `<none>` for one that is not there.
pub fn selector(selector: &Value) -> String {
    if selector.is_null() {
        return "<none>".into();
    }
    let labels = fields(selector, "/matchLabels");
    let mut parts: Vec<(String, String)> =
        labels.iter().map(|(key, value)| (key.to_string(), format!("{key}={}", plain(value)))).collect();
    for expression in items(selector, "/matchExpressions") {
        let key = text(expression, "/key");
        let mut values: Vec<String> = items(expression, "/values").map(plain).collect();
        values.sort();
        let values = values.join(",");
        parts.push((
            key.to_string(),
            match text(expression, "/operator") {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "Exists" => key.to_string(),
                _ => format!("!{key}"),
            },
        ));
    }
    parts.sort();
    let parts: Vec<String> = parts.into_iter().map(|(_, part)| part).collect();
    if parts.is_empty() { "<none>".into() } else { parts.join(",") }
}

/// Plain labels as a selector: `a=b,c=d`; `<none>` without any.
pub fn labels(object: &Value, pointer: &str) -> String {
    let pairs: Vec<String> =
        fields(object, pointer).iter().map(|(key, value)| format!("{key}={}", plain(value))).collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",") }
}

/// `key=value` pairs as a map. `place` says in messages where they stand.
pub fn pairs<'a>(all: impl IntoIterator<Item = &'a str>, place: &str) -> anyhow::Result<Value> {
    let mut map = json!({});
    for pair in all {
        let Some((key, value)) = pair.split_once('=') else {
            anyhow::bail!("error: {place}{pair:?} is not of the form key=value");
        };
        map[key] = value.into();
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_are_told_as_users_would_type_them() {
        let all = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["b", "a"]},
            {"key": "old", "operator": "DoesNotExist"}, {"key": "x", "operator": "Exists"}]});
        assert_eq!(selector(&all), "app=web,!old,tier in (a,b),x");
        assert_eq!(selector(&Value::Null), "<none>");
    }
}
