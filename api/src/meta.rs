//! What is wrong with `metadata`, for every kind alike.

use serde_json::Value;

use crate::{
    Row,
    field::{Errors, FieldError, Look, Path, PathExt},
    names::{self, NameRule},
};

const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Checks the metadata of an object that is about to be created; its name has been generated already.
pub fn validate(object: &Value, row: &Row) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::ROOT.field("metadata");
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    let rule = row.strategy.name_rule();
    let prefix = metadata.text("generateName");
    if !prefix.is_empty() {
        errors.invalid_each(&path.field("generateName"), prefix, rule.check_prefix(prefix));
    }
    let name = metadata.text("name");
    if name.is_empty() {
        errors.required(&path.field("name"), "name or generateName is required");
    } else {
        errors.invalid_each(&path.field("name"), name, rule.check(name));
    }
    let namespace = metadata.text("namespace");
    let namespace_path = path.field("namespace");
    if !row.is_namespaced() {
        if !namespace.is_empty() {
            errors.forbidden(&namespace_path, "not allowed on this type");
        }
    } else if namespace.is_empty() {
        errors.required(&namespace_path, "");
    } else {
        errors.invalid_each(&namespace_path, namespace, NameRule::Label.check(namespace));
    }
    validate_common(&mut errors, &path, metadata);
    validate_finalizers(&mut errors, &path.field("finalizers"), metadata);
    errors.into_vec()
}

/// Checks the metadata of an object that takes the place of another.
pub fn validate_update(new: &Value, old: &Value, _row: &Row) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::ROOT.field("metadata");
    let null = Value::Null;
    let (new, old) = (new.get("metadata").unwrap_or(&null), old.get("metadata").unwrap_or(&null));
    if old.at("deletionTimestamp").is_some() {
        let added: Vec<String> = new
            .items("finalizers")
            .iter()
            .filter(|f| !old.items("finalizers").contains(f))
            .map(ToString::to_string)
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.forbidden(&path.field("finalizers"), &detail);
        }
    } else {
        validate_finalizers(&mut errors, &path.field("finalizers"), new);
    }
    for name in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        if new.at(name) != old.at(name) {
            errors.immutable(&path.field(name), new.get(name).unwrap_or(&null));
        }
    }
    validate_common(&mut errors, &path, new);
    errors.into_vec()
}

/// Whether a field is one that these checks speak of, where a schema has something to say of it as well.
pub fn checks(field: &str) -> bool {
    field.starts_with("metadata.ownerReferences")
}

fn validate_common(errors: &mut Errors, path: &Path, metadata: &Value) {
    validate_labels(errors, &path.field("labels"), metadata);
    validate_annotations(errors, &path.field("annotations"), metadata);
    validate_owners(errors, &path.field("ownerReferences"), metadata);
}

/// Checks the `labels` of metadata, also of a pod template's.
pub fn validate_labels(errors: &mut Errors, path: &Path, metadata: &Value) {
    for (key, value) in metadata.entries("labels") {
        errors.invalid_each(path, key, names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        errors.invalid_each(path, value, names::label_value(value));
    }
}

/// Checks the `annotations` of metadata, also of a pod template's.
pub fn validate_annotations(errors: &mut Errors, path: &Path, metadata: &Value) {
    let mut bytes = 0;
    for (key, value) in metadata.entries("annotations") {
        errors.invalid_each(path, key, names::qualified_name(&key.to_lowercase()));
        bytes += key.len() + value.as_str().unwrap_or_default().len();
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.too_long(path, ANNOTATIONS_BYTES_MAX);
    }
}

fn validate_owners(errors: &mut Errors, path: &Path, metadata: &Value) {
    let mut controller: Option<String> = None;
    let owners = metadata.items("ownerReferences");
    for owner in owners {
        // Upstream names the list, not the element.
        let api_version = owner.text("apiVersion");
        if api_version.rsplit('/').next().unwrap_or_default().is_empty() {
            errors.invalid(&path.field("apiVersion"), api_version, "version must not be empty");
        }
        for name in ["kind", "name", "uid"] {
            if owner.text(name).is_empty() {
                errors.invalid(&path.field(name), "", "must not be empty");
            }
        }
        if api_version == "v1" && owner.text("kind") == "Event" {
            errors.invalid(path, owner.clone(), "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.flag("controller") {
            let this = format!("{}/{}", owner.text("kind"), owner.text("name"));
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} \
                         and {this}"
                    );
                    errors.invalid(path, owners.to_vec(), detail);
                }
            }
        }
    }
}

fn validate_finalizers(errors: &mut Errors, path: &Path, metadata: &Value) {
    let finalizers = metadata.items("finalizers");
    for finalizer in finalizers.iter().filter_map(Value::as_str) {
        errors.invalid_each(path, finalizer, names::qualified_name(finalizer));
    }
    if [ORPHAN, FOREGROUND].iter().all(|wanted| finalizers.iter().any(|f| f == wanted)) {
        let detail = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.invalid(path, finalizers.to_vec(), detail);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ResourceTable;

    fn said(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
    }

    #[test]
    fn new_metadata_should_be_checked_by_the_rule_of_its_kind() {
        let table = ResourceTable::built_in();
        let pods = table.resource("", "v1", "pods").unwrap();
        let nodes = table.resource("", "v1", "nodes").unwrap();
        let good = json!({"metadata": {"name": "a.b", "namespace": "default", "labels": {"a/b": "c"}}});
        assert!(validate(&good, pods).is_empty());
        assert_eq!(
            said(&validate(&json!({"metadata": {}}), pods)),
            [
                "metadata.name: Required value: name or generateName is required",
                "metadata.namespace: Required value"
            ]
        );
        assert_eq!(
            said(&validate(&good, nodes)),
            ["metadata.namespace: Forbidden: not allowed on this type"]
        );
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true});
        let two = json!({"metadata": {"name": "a", "namespace": "d", "ownerReferences": [owner, owner],
            "finalizers": ["orphan", "foregroundDeletion", "a/b/c"]}});
        assert_eq!(validate(&two, pods).len(), 3);
    }

    #[test]
    fn changed_metadata_should_keep_its_identity() {
        let table = ResourceTable::built_in();
        let pods = table.resource("", "v1", "pods").unwrap();
        let old =
            json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "t", "finalizers": ["a/b"]}});
        let new =
            json!({"metadata": {"name": "b", "uid": "1", "deletionTimestamp": "t", "finalizers": ["c/d"]}});
        assert_eq!(
            said(&validate_update(&new, &old, pods)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, \
              found new finalizers []string{\"c/d\"}",
                "metadata.name: Invalid value: \"b\": field is immutable"
            ]
        );
        assert!(validate_update(&old, &old, pods).is_empty());
    }
}
