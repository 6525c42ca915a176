//! Persistent volumes.

use serde_json::{Value, json};

use super::{
    super::{
        common::{spec, spec_mut},
        pod_spec::defaults::canonicalize_list,
    },
    persistent_volume_claim::{check_modes, check_positive},
};
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch, same_meaning},
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
        let Some(spec) = spec_mut(object) else { return };
        spec.default_text("persistentVolumeReclaimPolicy", "Retain");
        spec.default_text("volumeMode", "Filesystem");
        canonicalize_list(spec, "capacity");
        spec.inside("hostPath", |host_path| host_path.default_to("type", ""));
    }

    fn prepare_for_create(&self, object: &mut Value, context: &WriteContext) {
        object.put("status", json!({"phase": "Pending", "lastPhaseTransitionTime": context.now}));
    }

    fn check(&self, object: &At) {
        let spec = object.field("spec");
        check_modes(&spec.field("accessModes"), "");
        let capacity = spec.field("capacity");
        if capacity.key("storage").is_given() {
            check_positive(&capacity.key("storage"));
        } else if capacity.is_empty() {
            capacity.required("");
        } else {
            capacity.not_supported_value(capacity.value().clone(), &["storage"]);
        }
        spec.field("persistentVolumeReclaimPolicy").one_of(&["Delete", "Recycle", "Retain"]);
        spec.field("volumeMode").one_of(&["Block", "Filesystem"]);
        spec.field("storageClassName").name_or_none(names::dns1123_subdomain);
        check_sources(&spec);
    }

    fn check_update(&self, new: &At, old: &Value, context: &WriteContext) {
        if context.subresource.is_some() {
            return;
        }
        let source = |object: &Value| {
            let mut spec = spec(object).clone();
            COMMON.iter().for_each(|name| spec.drop_field(name));
            spec
        };
        if !same_meaning(Some(&source(new)), Some(&source(old))) {
            new.field("spec.persistentvolumesource")
                .forbidden("spec.persistentvolumesource is immutable after creation");
        }
        let mode = new.field("spec.volumeMode");
        if new.dig(&["spec", "volumeMode"]) != old.dig(&["spec", "volumeMode"]) {
            new.field("volumeMode").with(mode.value()).immutable();
        }
    }
}

fn check_sources(spec: &At) {
    let fields = spec.as_object().into_iter().flatten();
    let given = fields.filter(|(name, value)| !COMMON.contains(&name.as_str()) && !value.is_null());
    let given: Vec<&String> = given.map(|(name, _)| name).collect();
    if given.is_empty() {
        spec.required("must specify a volume type");
    }
    for name in given.iter().skip(1) {
        spec.field(name).forbidden("may not specify more than 1 volume type");
    }
    if spec.at("local").is_some() && spec.at("nodeAffinity").is_none() {
        spec.field("nodeAffinity").required("Local volume requires node affinity");
    }
    spec.optional("hostPath", |host_path| {
        let target = host_path.field("path");
        target.filled("");
        if target.str().split('/').any(|part| part == "..") {
            target.invalid("must not contain '..'");
        }
        let policy = spec.field("persistentVolumeReclaimPolicy");
        if target.str() == "/" && policy.str() == "Recycle" {
            policy.forbidden("may not be 'recycle' for a hostPath mount of '/'");
        }
    });
}
