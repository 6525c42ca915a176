//! What is wrong with `metadata`, for every kind alike.

use serde_json::Value;

use crate::{
    FieldError, Row,
    at::{self, At},
    field::Look,
    names,
};

const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Checks the metadata of an object that is about to be created; its name has been generated already.
pub fn validate(object: &Value, row: &Row) -> Vec<FieldError> {
    at::check(object, |object| {
        let metadata = object.field("metadata");
        let rule = row.name_rule;
        let prefix = metadata.field("generateName");
        if !prefix.is_empty() {
            prefix.invalid_each(prefix.str(), rule.check_prefix(prefix.str()));
        }
        let name = metadata.field("name");
        if name.is_empty() {
            name.required("name or generateName is required");
        } else {
            name.invalid_each(name.str(), rule.check(name.str()));
        }
        let namespace = metadata.field("namespace");
        if row.is_namespaced() {
            namespace.name(names::dns1123_label);
        } else if !namespace.is_empty() {
            namespace.forbidden("not allowed on this type");
        }
        check_common(&metadata);
        check_finalizers(&metadata.field("finalizers"));
    })
}

/// Checks the metadata of an object that takes the place of another.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let null = Value::Null;
    let old = old.get("metadata").unwrap_or(&null);
    at::check(new, |new| {
        let new = new.field("metadata");
        let finalizers = new.field("finalizers");
        if old.at("deletionTimestamp").is_some() {
            let is_new = |finalizer: &&Value| !old.items("finalizers").contains(finalizer);
            let added: Vec<String> = finalizers.list().iter().filter(is_new).map(Value::to_string).collect();
            if !added.is_empty() {
                finalizers.forbidden(&format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.join(", ")
                ));
            }
        } else {
            check_finalizers(&finalizers);
        }
        for name in [
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            if new.at(name) != old.at(name) {
                new.field(name).immutable();
            }
        }
        check_common(&new);
    })
}

/// Whether a field is one that these checks speak of, where a schema has something to say of it as well.
pub fn checks(field: &str) -> bool {
    field.starts_with("metadata.ownerReferences")
}

fn check_common(metadata: &At) {
    metadata.field("labels").labels();
    check_annotations(&metadata.field("annotations"));
    check_owners(&metadata.field("ownerReferences"));
}

/// Checks annotations, also those of a pod template.
pub fn check_annotations(annotations: &At) {
    let mut bytes = 0;
    for (key, value) in annotations.members() {
        annotations.invalid_each(key, names::qualified_name(&key.to_lowercase()));
        bytes += key.len() + value.str().len();
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        annotations.too_long(ANNOTATIONS_BYTES_MAX);
    }
}

fn check_owners(owners: &At) {
    let mut controller: Option<String> = None;
    for owner in owners.list() {
        // Upstream names the list, not the element.
        let owner = owners.with(owner);
        let version = owner.field("apiVersion");
        if version.str().rsplit('/').next().unwrap_or_default().is_empty() {
            version.invalid_text("version must not be empty");
        }
        for name in ["kind", "name", "uid"].into_iter().filter(|name| owner.text(name).is_empty()) {
            owner.field(name).invalid_value("", "must not be empty");
        }
        if version.str() == "v1" && owner.text("kind") == "Event" {
            owner.invalid("/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.flag("controller") {
            let this = format!("{}/{}", owner.text("kind"), owner.text("name"));
            match &controller {
                None => controller = Some(this),
                Some(first) => owners.invalid(format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} \
                     and {this}"
                )),
            }
        }
    }
}

fn check_finalizers(finalizers: &At) {
    let list = finalizers.list();
    list.iter().for_each(|finalizer| finalizers.with(finalizer).form(names::qualified_name));
    if [ORPHAN, FOREGROUND].iter().all(|wanted| list.iter().any(|f| f == wanted)) {
        finalizers.invalid(format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set"));
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
        let old =
            json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "t", "finalizers": ["a/b"]}});
        let new =
            json!({"metadata": {"name": "b", "uid": "1", "deletionTimestamp": "t", "finalizers": ["c/d"]}});
        assert_eq!(
            said(&validate_update(&new, &old)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, \
              found new finalizers []string{\"c/d\"}",
                "metadata.name: Invalid value: \"b\": field is immutable"
            ]
        );
        assert!(validate_update(&old, &old).is_empty());
    }
}
