//! What many strategies share.

use serde_json::Value;

use crate::{
    at::At,
    field::{Look, Touch},
    names,
    selector::{self, LabelSelector},
};

const UNSELECTED: &str = "`selector` does not match template `labels`";

/// `spec`, or null.
pub(super) fn spec(object: &Value) -> &Value {
    static NULL: Value = Value::Null;
    object.get("spec").unwrap_or(&NULL)
}

/// The `spec` of an object that has one, to be changed.
pub(super) fn spec_mut(object: &mut Value) -> Option<&mut Value> {
    object.get_mut("spec").filter(|spec| spec.is_object())
}

/// The name of an object.
pub(super) fn name_of(object: &Value) -> &str {
    object.dig(&["metadata", "name"]).and_then(Value::as_str).unwrap_or_default()
}

/// A required selector that is not empty and selects the template's labels. `what` is the kind in upstream's words.
pub(super) fn selector_of_template(spec: &At, what: &str) {
    let selector = spec.field("selector");
    if !selector.is_given() {
        return selector.required("");
    }
    selector::check(&selector);
    if selector.field("matchLabels").is_empty() && selector.field("matchExpressions").is_empty() {
        selector.invalid(format!("empty selector is invalid for {what}"));
    }
    match LabelSelector::from_object(Some(selector.value())) {
        Err(_) => selector.invalid("invalid label selector"),
        Ok(selector) => labels_of_template(spec, &selector),
    }
}

/// The template's labels, which a selector has to select.
pub(super) fn labels_of_template(spec: &At, selector: &LabelSelector) {
    let labels = spec.field("template.metadata.labels");
    if !selector.matches(labels.value()) {
        labels.invalid(UNSELECTED);
    }
}

/// A template whose pods run for ever.
pub(super) fn endless_template(spec: &At, kind: &str) {
    let template = spec.field("template");
    super::pod_spec::check_template(&template);
    let pod = template.field("spec");
    pod.field("restartPolicy").among(&["Always"]);
    pod.optional("activeDeadlineSeconds", |seconds| {
        seconds.forbidden(&format!("activeDeadlineSeconds in {kind} is not Supported"));
    });
}

/// Fills in the defaults of `spec.template`.
pub(super) fn default_template(spec: &mut Value) {
    spec.inside("template.spec", super::pod_spec::defaults::set);
}

/// An object without labels has those of its template.
pub(super) fn take_labels_of_template(object: &mut Value) {
    let labels = object.dig(&["spec", "template", "metadata", "labels"]).cloned();
    let has_labels = object.get("metadata").is_some_and(|m| m.entries("labels").next().is_some());
    if let Some(labels) = labels
        && !has_labels
        && let Some(metadata) = object.object_mut("metadata")
    {
        metadata.put("labels", labels);
    }
}

/// `example.com/anything`
pub(super) fn domain_prefixed_path(path: &At) {
    match path.str().split_once('/') {
        _ if path.is_empty() => path.required(""),
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            path.invalid_each(host, names::dns1123_subdomain(host));
        }
        _ => path.invalid_text("must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
}
