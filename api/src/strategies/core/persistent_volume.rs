//! Persistent volumes.

use serde_json::{Value, json};

use super::{
    super::{
        common::{one_of, spec},
        pod_spec::defaults::canonicalize_list,
    },
    persistent_volume_claim::{ACCESS_MODES, positive},
};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch, same_meaning},
    names,
};

/// The fields of a spec that are no volume type.
const COMMON: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// What is special about persistent volumes.
pub struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
        spec.default_text("persistentVolumeReclaimPolicy", "Retain");
        spec.default_text("volumeMode", "Filesystem");
        canonicalize_list(spec, "capacity");
        if let Some(host_path) = spec.get_mut("hostPath").filter(|h| h.is_object()) {
            host_path.default_to("type", "");
        }
    }

    fn prepare_for_create(&self, object: &mut Value, context: &WriteContext) {
        object.put("status", json!({"phase": "Pending", "lastPhaseTransitionTime": context.now}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        let modes = spec.items("accessModes");
        let modes_path = path.field("accessModes");
        if modes.is_empty() {
            errors.required(&modes_path, "");
        }
        for mode in modes.iter().filter_map(Value::as_str).filter(|mode| !ACCESS_MODES.contains(mode)) {
            errors.not_supported(&modes_path, mode, ACCESS_MODES);
        }
        let capacity = path.field("capacity");
        match spec.dig(&["capacity", "storage"]) {
            None if spec.entries("capacity").next().is_none() => errors.required(&capacity, ""),
            None => errors.not_supported(&capacity, spec.at("capacity").cloned(), &["storage"]),
            Some(size) => positive(&mut errors, &capacity.key("storage"), size),
        }
        let words = ["Delete", "Recycle", "Retain"];
        one_of(&mut errors, &path.field("persistentVolumeReclaimPolicy"), spec, &words);
        one_of(&mut errors, &path.field("volumeMode"), spec, &["Block", "Filesystem"]);
        let class = spec.text("storageClassName");
        if !class.is_empty() {
            errors.invalid_each(&path.field("storageClassName"), class, names::dns1123_subdomain(class));
        }
        sources(&mut errors, &path, spec);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if context.subresource.is_some() {
            return errors.into_vec();
        }
        let source = |object: &Value| {
            let mut spec = spec(object).clone();
            COMMON.iter().for_each(|name| spec.drop_field(name));
            spec
        };
        if !same_meaning(Some(&source(new)), Some(&source(old))) {
            let path = Path::ROOT.field("spec.persistentvolumesource");
            errors.forbidden(&path, "spec.persistentvolumesource is immutable after creation");
        }
        if spec(new).at("volumeMode") != spec(old).at("volumeMode") {
            let mode = spec(new).at("volumeMode").cloned().unwrap_or_default();
            errors.immutable(&Path::ROOT.field("volumeMode"), &mode);
        }
        errors.into_vec()
    }
}

fn sources(errors: &mut Errors, path: &Path, spec: &Value) {
    let fields = spec.as_object().into_iter().flatten();
    let given: Vec<&String> = fields
        .filter(|(name, value)| !COMMON.contains(&name.as_str()) && !value.is_null())
        .map(|(n, _)| n)
        .collect();
    if given.is_empty() {
        errors.required(path, "must specify a volume type");
    }
    for name in given.iter().skip(1) {
        errors.forbidden(&path.field(name), "may not specify more than 1 volume type");
    }
    if spec.at("local").is_some() && spec.at("nodeAffinity").is_none() {
        errors.required(&path.field("nodeAffinity"), "Local volume requires node affinity");
    }
    if let Some(host_path) = spec.at("hostPath") {
        let target = host_path.text("path");
        if target.is_empty() {
            errors.required(&path.field("hostPath.path"), "");
        } else if target.split('/').any(|part| part == "..") {
            errors.invalid(&path.field("hostPath.path"), target, "must not contain '..'");
        }
        if target == "/" && spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
            let detail = "may not be 'recycle' for a hostPath mount of '/'";
            errors.forbidden(&path.field("persistentVolumeReclaimPolicy"), detail);
        }
    }
}
