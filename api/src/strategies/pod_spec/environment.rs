//! Checks of environment variables, and of references to fields and resources.

use crate::{at::At, field::Look, names, quantity::Quantity};

const ENVIRONMENT_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const VOLUME_FIELDS: &[&str] =
    &["metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid"];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
];
const SOURCES: &[&str] = &["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

/// Where a reference stands, which decides what it may refer to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Environment,
    Volume,
}

/// Checks `env` and `envFrom` of a container.
pub(super) fn check(container: &At) {
    container.each("env", |variable| {
        variable.field("name").name(names::environment_name);
        variable.optional("valueFrom", |source| value_from(source, !variable.text("value").is_empty()));
    });
    let sources = container.field("envFrom");
    for source in sources.elements() {
        source.field("prefix").name_or_none(names::environment_name);
        let mut count = 0;
        for name in ["configMapRef", "secretRef"] {
            source.optional(name, |reference| {
                count += 1;
                reference.field("name").filled("");
            });
        }
        match count {
            // Upstream names the list here.
            0 => sources.invalid_value("", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => sources.invalid_value("", "may not have more than one field specified at a time"),
        }
    }
}

fn value_from(source: &At, has_value: bool) {
    source.optional("fieldRef", |reference| check_field(reference, Place::Environment));
    source.optional("resourceFieldRef", |reference| check_resource(reference, Place::Environment));
    for name in ["configMapKeyRef", "secretKeyRef"] {
        source.optional(name, |reference| {
            reference.field("name").filled("");
            reference.field("key").name(names::config_map_key);
        });
    }
    match SOURCES.iter().filter(|name| source.at(name).is_some()).count() {
        0 => source.invalid_value(
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        _ if has_value => source.invalid_value("", "may not be specified when `value` is not empty"),
        1 => {}
        _ => source.invalid_value("", "may not have more than one field specified at a time"),
    }
}

/// Checks a reference to a field of the pod.
pub(super) fn check_field(reference: &At, place: Place) {
    let (version, path) = (reference.field("apiVersion"), reference.field("fieldPath"));
    if version.is_empty() {
        return version.required("");
    }
    if path.is_empty() {
        return path.required("");
    }
    let text = path.str();
    if let Some((field, subscript)) = subscripted(text) {
        return match field {
            "metadata.annotations" => {
                let key = subscript.to_lowercase();
                reference.invalid_each(&key, names::qualified_name(&key));
            }
            "metadata.labels" => reference.invalid_each(subscript, names::qualified_name(subscript)),
            other => reference.invalid_value(other, "does not support subscript"),
        };
    }
    if ENVIRONMENT_FIELDS.contains(&text) || VOLUME_FIELDS.contains(&text) {
        path.among(if place == Place::Environment { ENVIRONMENT_FIELDS } else { VOLUME_FIELDS });
    } else {
        path.invalid(format!("error converting fieldPath: field label not supported: {text}"));
    }
}

/// `metadata.labels['app']`
fn subscripted(text: &str) -> Option<(&str, &str)> {
    let (field, rest) = text.split_once("['")?;
    Some((field, rest.strip_suffix("']")?))
}

/// Checks a reference to a container's resources.
pub(super) fn check_resource(reference: &At, place: Place) {
    let (container, resource) = (reference.field("containerName"), reference.field("resource"));
    if place == Place::Volume && container.is_empty() {
        container.required("");
    } else if !["limits.hugepages-", "requests.hugepages-"].iter().any(|p| resource.str().starts_with(p)) {
        resource.one_of(RESOURCES);
    }
    let divisor = reference.field("divisor");
    let Ok(amount) = Quantity::from_json(&divisor) else { return };
    let (allowed, listed): (&[&str], _) = if resource.str().ends_with(".cpu") {
        (&["0", "1", "1m"], "only divisor's values 1m and 1 are supported with the cpu resource")
    } else {
        (
            &["0", "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"],
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the \
             memory resource",
        )
    };
    if !allowed.contains(&amount.to_string().as_str()) {
        divisor.invalid(listed);
    }
}
