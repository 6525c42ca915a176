//! Kinds that extend the API itself.

use serde_json::{Value, json};

use super::common::{reset_status, spec};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch},
    names,
};

/// What is special about API services.
pub struct ApiService;

impl Strategy for ApiService {
    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        reset_status(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        let (group, version) = (spec.text("group"), spec.text("version"));
        let required = if group.is_empty() { format!("{version}.") } else { format!("{version}.{group}") };
        let name = object.dig(&["metadata", "name"]).and_then(Value::as_str).unwrap_or_default();
        if name != required {
            let detail = format!("must be `spec.version+\".\"+spec.group`: {required:?}");
            errors.invalid(&Path::ROOT.field("metadata.name"), name, detail);
        }
        if version.is_empty() {
            errors.required(&path.field("version"), "");
        } else {
            errors.invalid_each(&path.field("version"), version, names::dns1035_label(version));
        }
        for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
            let priority = spec.int(field).unwrap_or_default();
            if priority <= 0 || priority > most {
                let detail = format!("must be positive and less than {most}");
                errors.invalid(&path.field(field), priority, detail);
            }
        }
        errors.into_vec()
    }
}

/// What is special about CustomResourceDefinitions.
pub struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
        if let Some(names) = spec.get_mut("names").filter(|n| n.is_object()) {
            let kind = names.text("kind").to_string();
            if !kind.is_empty() {
                names.default_text("singular", &kind.to_lowercase());
                names.default_text("listKind", &format!("{kind}List"));
            }
        }
        spec.default_to("conversion", json!({"strategy": "None"}));
    }

    fn tracks_generation(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        let stored: Vec<Value> = spec(object)
            .items("versions")
            .iter()
            .filter(|version| version.flag("storage"))
            .filter_map(|version| version.at("name").cloned())
            .collect();
        object.put("status", json!({"storedVersions": stored}));
    }

    fn prepare_for_update(&self, new: &mut Value, _old: &Value, context: &WriteContext) {
        if context.subresource.is_some() {
            return;
        }
        // Objects may be stored in any version that was ever the one for storage.
        let storage: Option<Value> = spec(new)
            .items("versions")
            .iter()
            .find(|version| version.flag("storage"))
            .and_then(|version| version.at("name").cloned());
        let Some(status) = new.object_mut("status") else { return };
        let mut stored = status.items("storedVersions").to_vec();
        if let Some(storage) = storage
            && !stored.contains(&storage)
        {
            stored.push(storage);
            status.put("storedVersions", stored);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        let group = spec.text("group");
        let plural = spec.get("names").unwrap_or(&Value::Null).text("plural");
        let name = object.dig(&["metadata", "name"]).and_then(Value::as_str).unwrap_or_default();
        if name != format!("{plural}.{group}") {
            let detail = "must be spec.names.plural+\".\"+spec.group";
            errors.invalid(&Path::ROOT.field("metadata.name"), name, detail);
        }
        if group.is_empty() {
            errors.required(&path.field("group"), "");
        } else {
            errors.invalid_each(&path.field("group"), group, names::dns1123_subdomain(group));
            if !group.contains('.') {
                errors.invalid(&path.field("group"), group, "should be a domain with at least one dot");
            }
        }
        let scope = spec.text("scope");
        if !["Cluster", "Namespaced"].contains(&scope) {
            errors.not_supported(&path.field("scope"), scope, &["Cluster", "Namespaced"]);
        }
        definition_names(&mut errors, &path.field("names"), spec.get("names").unwrap_or(&Value::Null));
        definition_versions(&mut errors, &path.field("versions"), spec.items("versions"));
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if context.subresource.is_some() {
            return errors.into_vec();
        }
        let path = Path::ROOT.field("spec");
        let null = Value::Null;
        let (new, old) = (spec(new), spec(old));
        super::common::immutable(&mut errors, &path, new, old, &["group", "scope"]);
        let names = |spec: &Value| spec.get("names").cloned().unwrap_or_default();
        let (new_names, old_names) = (names(new), names(old));
        for field in ["kind", "plural"] {
            if new_names.get(field) != old_names.get(field) {
                let path = path.field("names");
                errors.immutable(&path.field(field), new_names.get(field).unwrap_or(&null));
            }
        }
        errors.into_vec()
    }
}

fn definition_names(errors: &mut Errors, path: &Path, described: &Value) {
    for field in ["plural", "singular"] {
        let name = described.text(field);
        if name.is_empty() {
            errors.required(&path.field(field), "");
        } else {
            errors.invalid_each(&path.field(field), name, names::dns1035_label(name));
        }
    }
    for field in ["kind", "listKind"] {
        let name = described.text(field);
        if name.is_empty() {
            errors.required(&path.field(field), "");
        } else {
            let lower = name.to_lowercase();
            let faults = names::dns1035_label(&lower);
            let faults = faults
                .into_iter()
                .map(|fault| format!("may have mixed case, but should otherwise match: {fault}"));
            errors.invalid_each(&path.field(field), name, faults);
        }
    }
    if described.text("kind") == described.text("listKind") && !described.text("kind").is_empty() {
        let detail = "kind and listKind may not be the same";
        errors.invalid(&path.field("listKind"), described.text("listKind"), detail);
    }
    for field in ["shortNames", "categories"] {
        let list = path.field(field);
        for (index, name) in described.items(field).iter().filter_map(Value::as_str).enumerate() {
            errors.invalid_each(&list.index(index), name, names::dns1035_label(name));
        }
    }
}

fn definition_versions(errors: &mut Errors, path: &Path, versions: &[Value]) {
    for (index, version) in versions.iter().enumerate() {
        let path = path.index(index);
        let name = version.text("name");
        errors.invalid_each(&path.field("name"), name, names::dns1035_label(name));
        if versions.iter().take(index).any(|before| before.text("name") == name) {
            errors.duplicate(&path.field("name"), name);
        }
        if version.dig(&["schema", "openAPIV3Schema"]).is_none() {
            errors.required(&path.field("schema.openAPIV3Schema"), "schemas are required");
        } else {
            super::structural::version(errors, &path, version);
        }
    }
    if versions.iter().filter(|version| version.flag("storage")).count() != 1 {
        errors.invalid(path, versions.to_vec(), "must have exactly one version marked as storage version");
    }
}
