//! Checks of environment variables, and of references to fields and resources.

use serde_json::Value;

use crate::{
    field::{Errors, Look, Path, PathExt},
    names, quantity,
};

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
pub(super) fn validate(errors: &mut Errors, path: &Path, container: &Value) {
    let variables = path.field("env");
    for (index, variable) in container.items("env").iter().enumerate() {
        let path = variables.index(index);
        let name = variable.text("name");
        if name.is_empty() {
            errors.required(&path.field("name"), "");
        } else {
            errors.invalid_each(&path.field("name"), name, names::environment_name(name));
        }
        if let Some(source) = variable.at("valueFrom") {
            value_from(errors, &path.field("valueFrom"), source, !variable.text("value").is_empty());
        }
    }
    let sources = path.field("envFrom");
    for (index, source) in container.items("envFrom").iter().enumerate() {
        let path = sources.index(index);
        let prefix = source.text("prefix");
        if !prefix.is_empty() {
            errors.invalid_each(&path.field("prefix"), prefix, names::environment_name(prefix));
        }
        let given: Vec<&str> =
            ["configMapRef", "secretRef"].into_iter().filter(|name| source.at(name).is_some()).collect();
        for name in &given {
            if source.at(name).is_some_and(|r| r.text("name").is_empty()) {
                errors.required(&path.field(name).field("name"), "");
            }
        }
        match given.len() {
            // Upstream names the list here.
            0 => errors.invalid(&sources, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(&sources, "", "may not have more than one field specified at a time"),
        }
    }
}

fn value_from(errors: &mut Errors, path: &Path, source: &Value, has_value: bool) {
    if let Some(reference) = source.at("fieldRef") {
        field_reference(errors, &path.field("fieldRef"), reference, Place::Environment);
    }
    if let Some(reference) = source.at("resourceFieldRef") {
        resource_reference(errors, &path.field("resourceFieldRef"), reference, Place::Environment);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        let Some(reference) = source.at(name) else { continue };
        let path = path.field(name);
        if reference.text("name").is_empty() {
            errors.required(&path.field("name"), "");
        }
        let key = reference.text("key");
        if key.is_empty() {
            errors.required(&path.field("key"), "");
        } else {
            errors.invalid_each(&path.field("key"), key, names::config_map_key(key));
        }
    }
    match SOURCES.iter().filter(|name| source.at(name).is_some()).count() {
        0 => errors.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        _ if has_value => errors.invalid(path, "", "may not be specified when `value` is not empty"),
        1 => {}
        _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
    }
}

/// Checks a reference to a field of the pod.
pub(super) fn field_reference(errors: &mut Errors, path: &Path, reference: &Value, place: Place) {
    if reference.text("apiVersion").is_empty() {
        return errors.required(&path.field("apiVersion"), "");
    }
    let text = reference.text("fieldPath");
    let field_path = path.field("fieldPath");
    if text.is_empty() {
        return errors.required(&field_path, "");
    }
    if let Some((field, subscript)) = subscripted(text) {
        match field {
            "metadata.annotations" => {
                let key = subscript.to_lowercase();
                errors.invalid_each(path, &key, names::qualified_name(&key));
            }
            "metadata.labels" => errors.invalid_each(path, subscript, names::qualified_name(subscript)),
            other => errors.invalid(path, other, "does not support subscript"),
        }
        return;
    }
    let is_known = ENVIRONMENT_FIELDS.contains(&text) || VOLUME_FIELDS.contains(&text);
    let supported = if place == Place::Environment { ENVIRONMENT_FIELDS } else { VOLUME_FIELDS };
    if !is_known {
        let detail = format!("error converting fieldPath: field label not supported: {text}");
        errors.invalid(&field_path, text, detail);
    } else if !supported.contains(&text) {
        errors.not_supported(&field_path, text, supported);
    }
}

/// `metadata.labels['app']`
fn subscripted(text: &str) -> Option<(&str, &str)> {
    let (field, rest) = text.split_once("['")?;
    Some((field, rest.strip_suffix("']")?))
}

/// Checks a reference to a container's resources.
pub(super) fn resource_reference(errors: &mut Errors, path: &Path, reference: &Value, place: Place) {
    let resource = reference.text("resource");
    if place == Place::Volume && reference.text("containerName").is_empty() {
        errors.required(&path.field("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.field("resource"), "");
    } else if !RESOURCES.contains(&resource)
        && !["limits.hugepages-", "requests.hugepages-"].iter().any(|prefix| resource.starts_with(prefix))
    {
        errors.not_supported(&path.field("resource"), resource, RESOURCES);
    }
    let Some(divisor) = reference.at("divisor") else { return };
    let Ok(amount) = quantity::Quantity::from_json(divisor) else { return };
    let allowed: &[&str] = if resource.ends_with(".cpu") {
        &["0", "1", "1m"]
    } else {
        &["0", "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"]
    };
    if !allowed.contains(&amount.to_string().as_str()) {
        let listed = if resource.ends_with(".cpu") {
            "only divisor's values 1m and 1 are supported with the cpu resource"
        } else {
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the \
             memory resource"
        };
        errors.invalid(&path.field("divisor"), divisor.clone(), listed);
    }
}
