//! Events. Stored as core/v1, whichever of its two groups they are written in.

use std::borrow::Cow;

use serde_json::Value;

use crate::{Strategy, at::At, field::Look, names};

/// What is special about events.
pub struct Event;

impl Strategy for Event {
    fn check(&self, object: &At) {
        let involved = object.field("involvedObject.namespace");
        let own = object.field("metadata.namespace").str();
        // Events about objects without a namespace are kept in `default`; only the node lease's writer may differ.
        let fits = match involved.str() {
            "" => ["default", "kube-system", ""].contains(&own),
            namespace => namespace == own,
        };
        if !fits {
            involved.invalid_text("does not match event.namespace");
        }
        if !own.is_empty() {
            object.field("namespace").invalid_each(own, names::dns1123_subdomain(own));
        }
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
