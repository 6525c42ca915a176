//! `scale`: the replicas of anything that has them, as `autoscaling/v1 Scale`.

use api::field::Look;
use api::{ApiError, Row, ScalePaths};
use serde_json::{Value, json};

/// The scale of an object.
pub(crate) fn of(object: &Value, row: &Row) -> Result<Value, ApiError> {
    let paths = paths(row)?;
    let metadata = object.get("metadata");
    let meta = |field: &str| metadata.and_then(|m| m.get(field)).cloned().unwrap_or(Value::Null);
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta("name"), "namespace": meta("namespace"), "uid": meta("uid"),
            "resourceVersion": meta("resourceVersion"), "creationTimestamp": meta("creationTimestamp"),
        },
        "spec": {"replicas": at(object, &paths.spec_replicas).and_then(Value::as_i64).unwrap_or(0)},
        "status": {"replicas": at(object, &paths.status_replicas).and_then(Value::as_i64).unwrap_or(0)},
    });
    let selector = match &paths.label_selector {
        Some(path) => at(object, path).map(selector_text).unwrap_or_default(),
        None => String::new(),
    };
    if !selector.is_empty() {
        crate::tree::set(&mut scale, &["status", "selector"], selector);
    }
    Ok(scale)
}

/// The object with the replicas of a scale.
pub(crate) fn written(live: &Value, scale: &Value, row: &Row) -> Result<Value, ApiError> {
    let paths = paths(row)?;
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let error = api::FieldError {
            reason: "FieldValueInvalid",
            field: "spec.replicas".to_string(),
            message: format!("Invalid value: {replicas}: must be greater than or equal to 0"),
        };
        return Err(ApiError::invalid("autoscaling", "Scale", api::object::name(live), &[error]));
    }
    let mut new = live.clone();
    if let (Some(new), Some(submitted)) = (
        new.get_mut("metadata").and_then(Value::as_object_mut),
        scale.get("metadata").and_then(Value::as_object),
    ) {
        for field in ["resourceVersion", "uid"] {
            match submitted.get(field) {
                Some(value) => new.insert(field.to_string(), value.clone()),
                None => new.remove(field),
            };
        }
    }
    let path: Vec<&str> = paths.spec_replicas.split('.').filter(|part| !part.is_empty()).collect();
    crate::tree::set(&mut new, &path, replicas);
    Ok(new)
}

fn paths(row: &Row) -> Result<ScalePaths, ApiError> {
    if let Some(custom) = &row.custom {
        let scale = custom.versions.get(&row.storage.version).and_then(|v| v.scale.clone());
        return scale.ok_or_else(|| ApiError::internal("the resource has no scale"));
    }
    Ok(ScalePaths {
        spec_replicas: ".spec.replicas".to_string(),
        status_replicas: ".status.replicas".to_string(),
        label_selector: Some(".spec.selector".to_string()),
    })
}

fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').filter(|part| !part.is_empty()).try_fold(object, |value, part| value.at(part))
}

/// A selector in the form of a query: a label selector, a map of labels, or text already.
pub(crate) fn selector_text(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.to_string();
    }
    let structured = selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let labels = if structured { selector.get("matchLabels") } else { Some(selector) };
    let mut parts: Vec<String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in selector.items("matchExpressions") {
        let key = expression.text("key");
        let mut values: Vec<&str> = expression.items("values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        parts.push(match expression.text("operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_string(),
            _ => format!("!{key}"),
        });
    }
    parts.sort();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_should_be_written_as_queries() {
        let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["b", "a"]}, {"key": "x", "operator": "DoesNotExist"}]});
        assert_eq!(selector_text(&selector), "!x,app=web,tier in (a,b)");
        assert_eq!(selector_text(&json!({"app": "web"})), "app=web");
    }
}
