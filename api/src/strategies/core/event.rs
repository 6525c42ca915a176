//! Events. Stored as core/v1, whichever of its two groups they are written in.

use std::borrow::Cow;

use serde_json::Value;

use crate::{
    FieldError, Strategy,
    field::{Errors, Look, Path, PathExt},
    names,
};

/// What is special about events.
pub struct Event;

impl Strategy for Event {
    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("involvedObject.namespace");
        let involved = object.get("involvedObject").unwrap_or(&Value::Null).text("namespace");
        let own = object.dig(&["metadata", "namespace"]).and_then(Value::as_str).unwrap_or_default();
        // Events about objects without a namespace are kept in `default`; only the node lease's writer may differ.
        let fits =
            if involved.is_empty() { ["default", "kube-system", ""].contains(&own) } else { involved == own };
        if !fits {
            errors.invalid(&path, involved, "does not match event.namespace");
        }
        if !own.is_empty() {
            errors.invalid_each(&Path::ROOT.field("namespace"), own, names::dns1123_subdomain(own));
        }
        errors.into_vec()
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(Cow<'static, str>, String)> {
        let null = Value::Null;
        let involved = object.get("involvedObject").unwrap_or(&null);
        let component = object.dig(&["source", "component"]).and_then(Value::as_str).unwrap_or_default();
        let reporter = object.text("reportingComponent");
        let source = if component.is_empty() { reporter } else { component };
        let mut fields: Vec<(Cow<'static, str>, String)> = [
            ("involvedObject.kind", "kind"),
            ("involvedObject.namespace", "namespace"),
            ("involvedObject.name", "name"),
            ("involvedObject.uid", "uid"),
            ("involvedObject.apiVersion", "apiVersion"),
            ("involvedObject.resourceVersion", "resourceVersion"),
            ("involvedObject.fieldPath", "fieldPath"),
        ]
        .into_iter()
        .map(|(label, name)| (label.into(), involved.text(name).to_string()))
        .collect();
        fields.extend([
            ("reason".into(), object.text("reason").to_string()),
            ("reportingComponent".into(), reporter.to_string()),
            ("source".into(), source.to_string()),
            ("type".into(), object.text("type").to_string()),
        ]);
        fields
    }
}
