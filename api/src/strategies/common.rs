//! What many strategies share.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    field::{Errors, Look, Path, PathExt, Touch, same_meaning},
    names,
    selector::{self, LabelSelector},
};

/// Drops what a client says of the status of a new object.
pub(super) fn reset_status(object: &mut Value) {
    object.put("status", json!({}));
}

/// A text field that has to be one of the given words.
pub(super) fn one_of(errors: &mut Errors, path: &Path, parent: &Value, words: &[&str]) {
    let name = path.to_string();
    let value = parent.text(name.rsplit('.').next().unwrap_or_default());
    if value.is_empty() {
        errors.required(path, "");
    } else if !words.contains(&value) {
        errors.not_supported(path, value, words);
    }
}

/// Number fields that must not be below zero.
pub(super) fn non_negative(errors: &mut Errors, path: &Path, parent: &Value, names: &[&str]) {
    for name in names {
        if let Some(value) = parent.int(name).filter(|v| *v < 0) {
            errors.invalid(&path.field(name), value, "must be greater than or equal to 0");
        }
    }
}

/// Fields below `spec` that must not change.
pub(super) fn immutable(errors: &mut Errors, path: &Path, new: &Value, old: &Value, names: &[&str]) {
    let null = Value::Null;
    for name in names {
        if !same_meaning(new.get(name), old.get(name)) {
            errors.immutable(&path.field(name), new.get(name).unwrap_or(&null));
        }
    }
}

/// `spec`, or null.
pub(super) fn spec(object: &Value) -> &Value {
    static NULL: Value = Value::Null;
    object.get("spec").unwrap_or(&NULL)
}

/// A required selector that is not empty and selects the template's labels. `what` is the kind in upstream's words.
pub(super) fn selector_of_template(errors: &mut Errors, path: &Path, spec: &Value, what: &str) {
    let selector_path = path.field("selector");
    let Some(object) = spec.at("selector") else {
        return errors.required(&selector_path, "");
    };
    selector::validate_object(errors, &selector_path, object);
    if object.entries("matchLabels").next().is_none() && object.items("matchExpressions").is_empty() {
        errors.invalid(&selector_path, object.clone(), format!("empty selector is invalid for {what}"));
    }
    let Ok(selector) = LabelSelector::from_object(Some(object)) else {
        return errors.invalid(&selector_path, object.clone(), "invalid label selector");
    };
    let labels = spec.dig(&["template", "metadata", "labels"]).unwrap_or(&Value::Null);
    if !selector.matches(labels) {
        let path = path.field("template.metadata.labels");
        errors.invalid(&path, labels.clone(), "`selector` does not match template `labels`");
    }
}

/// A template whose pods run for ever.
pub(super) fn endless_template(errors: &mut Errors, path: &Path, spec: &Value, kind: &str) {
    let template = spec.get("template").unwrap_or(&Value::Null);
    let path = path.field("template");
    super::pod_spec::validate_template(errors, &path, template);
    let pod = template.get("spec").unwrap_or(&Value::Null);
    let pod_path = path.field("spec");
    let policy = pod.text("restartPolicy");
    if policy != "Always" {
        errors.not_supported(&pod_path.field("restartPolicy"), policy, &["Always"]);
    }
    if pod.at("activeDeadlineSeconds").is_some() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&pod_path.field("activeDeadlineSeconds"), &detail);
    }
}

/// Fills in the defaults of `spec.template`.
pub(super) fn default_template(spec: &mut Value) {
    if let Some(pod) = spec.get_mut("template").and_then(|t| t.get_mut("spec")).filter(|s| s.is_object()) {
        super::pod_spec::defaults::set(pod);
    }
}

/// `example.com/anything`
pub(super) fn domain_prefixed_path(errors: &mut Errors, path: &Path, value: &str) {
    match value.split_once('/') {
        _ if value.is_empty() => errors.required(path, ""),
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            errors.invalid_each(path, host, names::dns1123_subdomain(host));
        }
        _ => errors.invalid(path, value, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
}

/// Names that came up before, so that the second of two is told.
#[derive(Default)]
pub(super) struct Seen<'a>(BTreeSet<&'a str>);

impl<'a> Seen<'a> {
    /// Whether the name is new; it is not any more.
    pub(super) fn is_new(&mut self, name: &'a str) -> bool {
        self.0.insert(name)
    }
}
