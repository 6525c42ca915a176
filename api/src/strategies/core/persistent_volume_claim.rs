//! Persistent volume claims.

use serde_json::Value;

use super::super::{
    common::{spec, spec_mut},
    pod_spec::{defaults::canonicalize_requirements, resources},
};
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch, same_meaning},
    names,
    quantity::Quantity,
    selector,
};

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// What is special about persistent volume claims.
pub struct PersistentVolumeClaim;

/// What absent fields become, also of a stateful set's templates.
pub(in super::super) fn set_defaults(object: &mut Value) {
    if let Some(spec) = spec_mut(object) {
        spec.default_text("volumeMode", "Filesystem");
        spec.inside("resources", canonicalize_requirements);
    }
    if let Some(status) = object.object_mut("status") {
        status.default_text("phase", "Pending");
    }
}

impl Strategy for PersistentVolumeClaim {
    fn set_defaults(&self, object: &mut Value) {
        set_defaults(object);
    }

    fn check(&self, object: &At) {
        check_spec(&object.field("spec"));
    }

    fn check_update(&self, new: &At, old: &Value, context: &WriteContext) {
        if context.subresource.is_some() {
            return;
        }
        let is_bound = old.dig(&["status", "phase"]).is_some_and(|phase| phase == "Bound");
        let (new, old) = (new.field("spec"), spec(old));
        let mut rest = new.value().clone();
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
            new.forbidden(
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
                 claims",
            );
        }
        let size = |spec: &Value| {
            spec.dig(&["resources", "requests", "storage"]).and_then(|s| Quantity::from_json(s).ok())
        };
        if let (Some(size), Some(before)) = (size(&new), size(old))
            && size < before
        {
            new.field("resources.requests.storage").forbidden("field can not be less than status.capacity");
        }
    }
}

/// Checks a claim's spec, also of a stateful set's templates.
pub(in super::super) fn check_spec(spec: &At) {
    let modes = spec.field("accessModes");
    check_modes(&modes, "at least 1 access mode is required");
    if modes.list().len() > 1 && modes.list().iter().any(|mode| mode == "ReadWriteOncePod") {
        modes.forbidden("may not use ReadWriteOncePod with other access modes");
    }
    spec.optional("selector", selector::check);
    let size = spec.field("resources.requests.storage");
    let resources = spec.field("resources");
    let storage = resources.key("storage").with(size.value());
    if storage.is_given() {
        check_positive(&storage)
    } else {
        storage.required("")
    }
    spec.field("storageClassName").name_or_none(names::dns1123_subdomain);
    spec.optional("volumeMode", |mode| mode.one_of(&["Block", "Filesystem"]));
}

pub(super) fn check_modes(modes: &At, missing: &str) {
    modes.filled(missing);
    modes.list().iter().for_each(|mode| modes.with(mode).among(ACCESS_MODES));
}

/// An amount of storage above zero.
pub(super) fn check_positive(size: &At) {
    match Quantity::from_json(size) {
        Ok(amount) if amount.is_zero() || amount.is_negative() => {
            size.invalid_value(amount.to_string(), "must be greater than zero");
        }
        _ => resources::check_amount(size, "storage"),
    }
}
