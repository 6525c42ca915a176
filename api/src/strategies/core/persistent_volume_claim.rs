//! Persistent volume claims.

use serde_json::{Value, json};

use super::super::{
    common::{one_of, spec},
    pod_spec::{defaults::canonicalize_requirements, resources},
};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch, same_meaning},
    names,
    quantity::Quantity,
    selector,
};

pub(super) const ACCESS_MODES: &[&str] =
    &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// What is special about persistent volume claims.
pub struct PersistentVolumeClaim;

/// What absent fields become, also of a stateful set's templates.
pub(in super::super) fn set_defaults(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) {
        spec.default_text("volumeMode", "Filesystem");
        if let Some(resources) = spec.get_mut("resources") {
            canonicalize_requirements(resources);
        }
    }
    if let Some(status) = object.object_mut("status") {
        status.default_text("phase", "Pending");
    }
}

impl Strategy for PersistentVolumeClaim {
    fn set_defaults(&self, object: &mut Value) {
        set_defaults(object);
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.put("status", json!({"phase": "Pending"}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        validate_spec(&mut errors, &Path::ROOT.field("spec"), spec(object));
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if context.subresource.is_some() {
            return errors.into_vec();
        }
        let path = Path::ROOT.field("spec");
        let is_bound = old.dig(&["status", "phase"]).is_some_and(|phase| phase == "Bound");
        let (new, old) = (spec(new), spec(old));
        let mut rest = new.clone();
        // A claim is bound once, may grow once it is, and may get the class that it did not name.
        if old.text("volumeName").is_empty() {
            rest.drop_field("volumeName");
        }
        if is_bound && let Some(resources) = old.get("resources") {
            rest.put("resources", resources.clone());
        }
        if old.at("storageClassName").is_none() {
            rest.drop_field("storageClassName");
        }
        match old.at("volumeAttributesClassName") {
            Some(class) => rest.put("volumeAttributesClassName", class.clone()),
            None => rest.drop_field("volumeAttributesClassName"),
        }
        if !same_meaning(Some(&rest), Some(old)) {
            errors.forbidden(
                &path,
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
                 claims",
            );
        }
        let size = |spec: &Value| {
            spec.dig(&["resources", "requests", "storage"]).and_then(|s| Quantity::from_json(s).ok())
        };
        if let (Some(new), Some(old)) = (size(new), size(old))
            && new < old
        {
            let detail = "field can not be less than status.capacity";
            errors.forbidden(&path.field("resources.requests.storage"), detail);
        }
        errors.into_vec()
    }
}

/// Checks a claim's spec, also of a stateful set's templates.
pub(in super::super) fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value) {
    let modes_path = path.field("accessModes");
    let modes = spec.items("accessModes");
    if modes.is_empty() {
        errors.required(&modes_path, "at least 1 access mode is required");
    }
    for mode in modes.iter().filter_map(Value::as_str).filter(|mode| !ACCESS_MODES.contains(mode)) {
        errors.not_supported(&modes_path, mode, ACCESS_MODES);
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        errors.forbidden(&modes_path, "may not use ReadWriteOncePod with other access modes");
    }
    if let Some(selector) = spec.at("selector") {
        selector::validate_object(errors, &path.field("selector"), selector);
    }
    let resources_path = path.field("resources");
    let storage_path = resources_path.key("storage");
    match spec.dig(&["resources", "requests", "storage"]) {
        None => errors.required(&storage_path, ""),
        Some(size) => positive(errors, &storage_path, size),
    }
    let class = spec.text("storageClassName");
    if !class.is_empty() {
        errors.invalid_each(&path.field("storageClassName"), class, names::dns1123_subdomain(class));
    }
    if spec.at("volumeMode").is_some() {
        one_of(errors, &path.field("volumeMode"), spec, &["Block", "Filesystem"]);
    }
}

/// An amount of storage above zero.
pub(super) fn positive(errors: &mut Errors, path: &Path, size: &Value) {
    match Quantity::from_json(size) {
        Ok(amount) if amount.is_zero() || amount.is_negative() => {
            errors.invalid(path, amount.to_string(), "must be greater than zero");
        }
        _ => resources::validate_amount(errors, path, "storage", size),
    }
}
