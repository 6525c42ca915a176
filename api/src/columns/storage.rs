//! Volumes, claims and classes.

use serde_json::Value;

use super::{AGE, Column, Kind, NAME, Subject, boolean, integer, named, or_none, text, wide};
use crate::field::Look;

const UNSET: &str = "<unset>";

pub(super) const VOLUME: Kind = &[
    NAME,
    text("Capacity", |s| s.at("spec.capacity.storage").as_str().unwrap_or("0").into()),
    text("Access Modes", |s| access_modes(s.spec()).into()),
    text("Reclaim Policy", |s| s.text("spec.persistentVolumeReclaimPolicy")),
    text("Status", phase),
    text("Claim", |s| match s.spec().at("claimRef") {
        Some(claim) => format!("{}/{}", claim.text("namespace"), claim.text("name")).into(),
        None => "".into(),
    }),
    CLASS_NAME,
    ATTRIBUTES,
    text("Reason", |s| s.text("status.reason")),
    AGE,
    MODE,
];
pub(super) const CLAIM: Kind = &[
    NAME,
    text("Status", phase),
    text("Volume", |s| s.text("spec.volumeName")),
    text("Capacity", |s| {
        let size = s.at("status.capacity.storage").as_str().unwrap_or("0");
        if is_bound(s) { size.into() } else { "".into() }
    }),
    text("Access Modes", |s| if is_bound(s) { access_modes(s.status()).into() } else { "".into() }),
    CLASS_NAME,
    ATTRIBUTES,
    AGE,
    MODE,
];
pub(super) const CLASS: Kind = &[
    named(0, |s| {
        let keys = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ];
        let is_default = keys.iter().any(|key| s.annotation(key) == "true");
        format!("{}{}", s.name(), if is_default { " (default)" } else { "" }).into()
    }),
    text("Provisioner", |s| s.text("provisioner")),
    text("ReclaimPolicy", |s| s.at("reclaimPolicy").as_str().unwrap_or("Delete").into()),
    text("VolumeBindingMode", |s| s.at("volumeBindingMode").as_str().unwrap_or("Immediate").into()),
    text("AllowVolumeExpansion", |s| s.flag("allowVolumeExpansion")),
    AGE,
];
pub(super) const ATTRIBUTES_CLASS: Kind = &[NAME, text("DriverName", |s| s.text("driverName")), AGE];
pub(super) const ATTACHMENT: Kind = &[
    NAME,
    text("Attacher", |s| s.text("spec.attacher")),
    text("PV", |s| s.text("spec.source.persistentVolumeName")),
    text("Node", |s| s.text("spec.nodeName")),
    boolean("Attached", |s| s.flag("status.attached")),
    AGE,
];
pub(super) const DRIVER: Kind = &[
    NAME,
    boolean("AttachRequired", |s| s.at("spec.attachRequired").as_bool().unwrap_or(true).into()),
    boolean("PodInfoOnMount", |s| s.flag("spec.podInfoOnMount")),
    boolean("StorageCapacity", |s| s.flag("spec.storageCapacity")),
    text("TokenRequests", |s| {
        if s.at("spec.tokenRequests").is_null() {
            return UNSET.into();
        }
        let audiences = s.list("spec.tokenRequests").iter().map(|token| token.text("audience"));
        audiences.collect::<Vec<_>>().join(",").into()
    }),
    boolean("RequiresRepublish", |s| s.flag("spec.requiresRepublish")),
    text("Modes", |s| {
        let modes = s.list("spec.volumeLifecycleModes").iter().filter_map(Value::as_str);
        or_none(&modes.collect::<Vec<_>>().join(",")).into()
    }),
    AGE,
];
pub(super) const NODE: Kind = &[NAME, integer("Drivers", |s| s.list("spec.drivers").len().into()), AGE];
pub(super) const CAPACITY: Kind = &[
    NAME,
    text("StorageClassName", |s| s.text("storageClassName")),
    text("Capacity", |s| or_unset(s, "capacity")),
];

/// The class, from the annotation of old or from the field.
const CLASS_NAME: Column = text("StorageClass", |s| {
    let annotation = s.at("metadata.annotations").get("volume.beta.kubernetes.io/storage-class");
    annotation.and_then(Value::as_str).unwrap_or(s.str("spec.storageClassName")).into()
});
const ATTRIBUTES: Column = text("VolumeAttributesClass", |s| or_unset(s, "spec.volumeAttributesClassName"));
const MODE: Column = wide("VolumeMode", |s| or_unset(s, "spec.volumeMode"));

/// `RWO,ROX`, in a fixed order and each once.
fn access_modes(parent: &Value) -> String {
    let modes = parent.items("accessModes");
    let short: Vec<&str> = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ]
    .into_iter()
    .filter(|(long, _)| modes.iter().any(|mode| mode == long))
    .map(|(_, short)| short)
    .collect();
    short.join(",")
}

fn phase(subject: &Subject) -> Value {
    match subject.at("metadata.deletionTimestamp") {
        Value::Null => subject.text("status.phase"),
        _ => "Terminating".into(),
    }
}

fn is_bound(subject: &Subject) -> bool {
    !subject.str("spec.volumeName").is_empty()
}

fn or_unset(subject: &Subject, path: &str) -> Value {
    subject.at(path).as_str().unwrap_or(UNSET).into()
}
