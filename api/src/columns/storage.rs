//! Volumes, claims and classes.

use serde_json::Value;

use super::{AGE, Kind, NAME, Subject, boolean, integer, or_none, text, wide};
use crate::field::Look;

const UNSET: &str = "<unset>";

pub(super) const VOLUME: Kind = (
    &[
        NAME,
        text("Capacity"),
        text("Access Modes"),
        text("Reclaim Policy"),
        text("Status"),
        text("Claim"),
        text("StorageClass"),
        text("VolumeAttributesClass"),
        text("Reason"),
        AGE,
        wide("VolumeMode"),
    ],
    volume,
);
pub(super) const CLAIM: Kind = (
    &[
        NAME,
        text("Status"),
        text("Volume"),
        text("Capacity"),
        text("Access Modes"),
        text("StorageClass"),
        text("VolumeAttributesClass"),
        AGE,
        wide("VolumeMode"),
    ],
    claim,
);
pub(super) const CLASS: Kind = (
    &[
        NAME,
        text("Provisioner"),
        text("ReclaimPolicy"),
        text("VolumeBindingMode"),
        text("AllowVolumeExpansion"),
        AGE,
    ],
    class,
);
pub(super) const ATTRIBUTES_CLASS: Kind = (&[NAME, text("DriverName"), AGE], attributes_class);
pub(super) const ATTACHMENT: Kind =
    (&[NAME, text("Attacher"), text("PV"), text("Node"), boolean("Attached"), AGE], attachment);
pub(super) const DRIVER: Kind = (
    &[
        NAME,
        boolean("AttachRequired"),
        boolean("PodInfoOnMount"),
        boolean("StorageCapacity"),
        text("TokenRequests"),
        boolean("RequiresRepublish"),
        text("Modes"),
        AGE,
    ],
    driver,
);
pub(super) const NODE: Kind = (&[NAME, integer("Drivers"), AGE], node);
pub(super) const CAPACITY: Kind = (&[NAME, text("StorageClassName"), text("Capacity")], capacity);

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

/// The class, from the annotation of old or from the field.
fn class_name<'a>(subject: &Subject<'a>) -> &'a str {
    let annotation = subject.metadata().dig(&["annotations", "volume.beta.kubernetes.io/storage-class"]);
    annotation.and_then(Value::as_str).unwrap_or(subject.spec().text("storageClassName"))
}

fn phase<'a>(subject: &Subject<'a>) -> &'a str {
    match subject.metadata().at("deletionTimestamp") {
        Some(_) => "Terminating",
        None => subject.status().text("phase"),
    }
}

fn or_unset<'a>(parent: &'a Value, field: &str) -> &'a str {
    parent.at(field).and_then(Value::as_str).unwrap_or(UNSET)
}

fn volume(subject: &Subject) -> Vec<Value> {
    let spec = subject.spec();
    let size = spec.dig(&["capacity", "storage"]).and_then(Value::as_str).unwrap_or("0");
    let claim = spec
        .at("claimRef")
        .map(|c| format!("{}/{}", c.text("namespace"), c.text("name")))
        .unwrap_or_default();
    vec![
        subject.name().into(),
        size.into(),
        access_modes(spec).into(),
        spec.text("persistentVolumeReclaimPolicy").into(),
        phase(subject).into(),
        claim.into(),
        class_name(subject).into(),
        or_unset(spec, "volumeAttributesClassName").into(),
        subject.status().text("reason").into(),
        subject.age().into(),
        or_unset(spec, "volumeMode").into(),
    ]
}

fn claim(subject: &Subject) -> Vec<Value> {
    let (spec, status) = (subject.spec(), subject.status());
    let is_bound = !spec.text("volumeName").is_empty();
    let size = status.dig(&["capacity", "storage"]).and_then(Value::as_str).unwrap_or("0");
    vec![
        subject.name().into(),
        phase(subject).into(),
        spec.text("volumeName").into(),
        if is_bound { size } else { "" }.into(),
        if is_bound { access_modes(status) } else { String::new() }.into(),
        class_name(subject).into(),
        or_unset(spec, "volumeAttributesClassName").into(),
        subject.age().into(),
        or_unset(spec, "volumeMode").into(),
    ]
}

fn class(subject: &Subject) -> Vec<Value> {
    let object = subject.object;
    let keys =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    let is_default =
        keys.iter().any(|key| subject.metadata().dig(&["annotations", key]).is_some_and(|v| v == "true"));
    let suffix = if is_default { " (default)" } else { "" };
    let field = |name: &str, otherwise: &'static str| {
        object.at(name).and_then(Value::as_str).unwrap_or(otherwise).to_string()
    };
    vec![
        format!("{}{suffix}", subject.name()).into(),
        object.text("provisioner").into(),
        field("reclaimPolicy", "Delete").into(),
        field("volumeBindingMode", "Immediate").into(),
        object.flag("allowVolumeExpansion").into(),
        subject.age().into(),
    ]
}

fn attributes_class(subject: &Subject) -> Vec<Value> {
    vec![subject.name().into(), subject.object.text("driverName").into(), subject.age().into()]
}

fn attachment(subject: &Subject) -> Vec<Value> {
    let spec = subject.spec();
    vec![
        subject.name().into(),
        spec.text("attacher").into(),
        spec.get("source").unwrap_or(&Value::Null).text("persistentVolumeName").into(),
        spec.text("nodeName").into(),
        subject.status().flag("attached").into(),
        subject.age().into(),
    ]
}

fn driver(subject: &Subject) -> Vec<Value> {
    let spec = subject.spec();
    let modes: Vec<&str> = spec.items("volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
    let audiences: Vec<&str> = spec.items("tokenRequests").iter().map(|t| t.text("audience")).collect();
    let tokens = if spec.at("tokenRequests").is_some() { audiences.join(",") } else { UNSET.to_string() };
    vec![
        subject.name().into(),
        spec.at("attachRequired").and_then(Value::as_bool).unwrap_or(true).into(),
        spec.flag("podInfoOnMount").into(),
        spec.flag("storageCapacity").into(),
        tokens.into(),
        spec.flag("requiresRepublish").into(),
        or_none(&modes.join(",")).into(),
        subject.age().into(),
    ]
}

fn node(subject: &Subject) -> Vec<Value> {
    vec![subject.name().into(), subject.spec().items("drivers").len().into(), subject.age().into()]
}

fn capacity(subject: &Subject) -> Vec<Value> {
    vec![
        subject.name().into(),
        subject.object.text("storageClassName").into(),
        or_unset(subject.object, "capacity").into(),
    ]
}
