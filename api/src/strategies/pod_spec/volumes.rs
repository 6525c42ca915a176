//! Checks of volumes and of where containers mount them.
//!
//! Deliberately absent: the insides of in-tree types that upstream itself hands to CSI drivers (cloud disks, Ceph,
//! iSCSI and their like); that there is only one type per volume is checked for all of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    super::storage::token_seconds,
    environment::{self, Place},
};
use crate::{at::At, field::Look, names, quantity::Quantity};

/// What a projected volume may be made of.
const SOURCES: &[&str] =
    &["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// The good volumes of a pod, by name.
pub(super) type Known<'a> = BTreeMap<&'a str, &'a Value>;

/// Checks the volumes; containers can mount those that come back.
pub(super) fn check<'v>(volumes: &At<'_, 'v>) -> Known<'v> {
    let mut known = Known::new();
    for volume in volumes.elements() {
        let name = volume.field("name");
        let before = volume.count_of_errors();
        check_source(&volume);
        name.name(names::dns1123_label);
        if known.contains_key(name.str()) {
            name.duplicate_value(name.str());
        }
        if volume.count_of_errors() == before {
            known.insert(name.str(), volume.value());
        }
    }
    known
}

fn check_source(volume: &At) {
    let mut has_one = false;
    let types = volume.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    for kind in types.filter(|key| *key != "name") {
        let Some(source) = volume.given(kind) else { continue };
        if has_one {
            source.forbidden("may not specify more than 1 volume type");
            continue;
        }
        has_one = true;
        match kind {
            "emptyDir" => empty_dir(&source.field("sizeLimit")),
            "hostPath" => host_path(&source),
            "secret" => keyed(&source, "secretName"),
            "configMap" => keyed(&source, "name"),
            "downwardAPI" => {
                check_mode(&source.field("defaultMode"));
                // Upstream names the volume, not the item.
                source.items("items").iter().for_each(|item| downward_item(&source.with(item)));
            }
            "projected" => projected(&source),
            "persistentVolumeClaim" => source.field("claimName").filled(""),
            "ephemeral" if source.at("volumeClaimTemplate").is_none() => {
                source.field("volumeClaimTemplate").required("");
            }
            "nfs" => nfs(&source),
            "csi" => source.field("driver").filled(""),
            "image" => source.field("pullPolicy").one_of(&["Always", "IfNotPresent", "Never"]),
            _ => {}
        }
    }
    if !has_one {
        volume.required("must specify a volume type");
    }
}

fn empty_dir(limit: &At) {
    if limit.is_given() && Quantity::from_json(limit).is_ok_and(|limit| limit.is_negative()) {
        limit.forbidden("SizeLimit field must be a valid resource quantity");
    }
}

fn host_path(source: &At) {
    let path = source.field("path");
    if path.is_empty() {
        return path.required("");
    }
    check_backsteps(&path);
    source.field("type").among(HOST_PATH_TYPES);
}

fn nfs(source: &At) {
    source.all_filled(&["server", "path"]);
    let path = source.field("path");
    if !path.str().starts_with('/') {
        path.invalid_text("must be an absolute path");
    }
}

fn keyed(source: &At, name: &str) {
    source.field(name).filled("");
    check_mode(&source.field("defaultMode"));
    source.each("items", check_item);
}

fn check_item(item: &At) {
    item.all_filled(&["key", "path"]);
    check_unreserved_path(&item.field("path"));
    check_mode(&item.field("mode"));
}

fn check_mode(mode: &At) {
    mode.within(0..=0o777, "must be a number between 0 and 0777 (octal), both inclusive");
}

fn downward_item(item: &At) {
    item.field("path").filled("");
    check_unreserved_path(&item.field("path"));
    match (item.given("fieldRef"), item.given("resourceFieldRef")) {
        (Some(reference), resource) => {
            environment::check_field(&reference, Place::Volume);
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                item.invalid_value("resource", detail);
            }
        }
        (None, Some(reference)) => environment::check_resource(&reference, Place::Volume),
        (None, None) => item.required("one of fieldRef and resourceFieldRef is required"),
    }
    check_mode(&item.field("mode"));
}

fn projected<'v>(volume: &At<'_, 'v>) {
    check_mode(&volume.field("defaultMode"));
    let mut paths = BTreeSet::new();
    // Upstream names the volume for paths that clash.
    let mut distinct = |item: &'v Value, named: &str| {
        if !item.text("path").is_empty() && !paths.insert(item.text("path")) {
            volume.invalid_value(named, "conflicting duplicate paths");
        }
    };
    volume.each("sources", |source| {
        for kind in ["secret", "configMap"] {
            source.optional(kind, |source| {
                source.field("name").filled("");
                source.each("items", check_item);
                let items = source.field("items").list();
                items.iter().for_each(|item| distinct(item, source.text("name")));
            });
        }
        source.optional("downwardAPI", |downward| {
            for item in downward.field("items").list() {
                downward_item(&downward.with(item));
                distinct(item, item.text("path"));
            }
        });
        source.optional("serviceAccountToken", |token| {
            token_seconds(&token.field("expirationSeconds"));
            // Likewise for a path that is none.
            let path = volume.field("path");
            let path = path.with(token.field("path").value());
            path.filled("");
            check_unreserved_path(&path);
            distinct(token.value(), token.text("path"));
        });
        if SOURCES.iter().filter(|kind| source.at(kind).is_some()).count() > 1 {
            source.forbidden("may not specify more than 1 volume type per source");
        }
    });
}

/// Checks what a container mounts, and the devices that it uses.
pub(super) fn check_mounts(container: &At, known: &Known) {
    let mounts = container.field("volumeMounts");
    let devices = container.items("volumeDevices");
    let mut targets = BTreeSet::new();
    for mount in mounts.elements() {
        let (name, target) = (mount.field("name"), mount.field("mountPath"));
        name.filled("");
        if !known.contains_key(name.str()) {
            name.not_found();
        }
        target.filled("");
        if !targets.insert(target.str()) {
            target.invalid_text("must be unique");
        }
        if devices.iter().any(|d| d.text("name") == name.str()) {
            name.invalid_text("must not already exist in volumeDevices");
        }
        if devices.iter().any(|d| d.text("devicePath") == target.str()) {
            target.invalid_text("must not already exist as a path in volumeDevices");
        }
        // Upstream names the list for what is inside of these.
        let list = mounts.with(mount.value());
        let (plain, expanded) = (list.field("subPath"), list.field("subPathExpr"));
        check_descending_path(&plain);
        if !plain.is_empty() && !expanded.is_empty() {
            mount.field("subPathExpr").invalid("subPathExpr and subPath are mutually exclusive");
        }
        check_descending_path(&expanded);
        list.optional("mountPropagation", |propagation| {
            propagation.one_of(&["Bidirectional", "HostToContainer", "None"]);
            if propagation.str() == "Bidirectional" && !container.field("securityContext").flag("privileged")
            {
                propagation
                    .forbidden("Bidirectional mount propagation is available only to privileged containers");
            }
        });
    }
    check_devices(container, known);
}

fn check_devices(container: &At, known: &Known) {
    const BLOCK: &str =
        "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
    let mounts = container.items("volumeMounts");
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    container.each("volumeDevices", |device| {
        let (name, target) = (device.field("name"), device.field("devicePath"));
        name.filled("");
        if !name.is_empty() && !names.insert(name.str()) {
            name.invalid("must be unique");
        }
        match known.get(name.str()) {
            None => name.not_found(),
            Some(volume) if ["persistentVolumeClaim", "ephemeral"].iter().all(|k| volume.at(k).is_none()) => {
                name.invalid_text(BLOCK);
            }
            Some(_) => {}
        }
        if target.is_empty() {
            target.required("");
        } else if !paths.insert(target.str()) {
            target.invalid("must be unique");
        } else if has_backsteps(target.str()) {
            target.invalid("can not contain backsteps ('..')");
        }
        if mounts.iter().any(|mount| mount.text("name") == name.str()) {
            name.invalid_text("must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| mount.text("mountPath") == target.str()) {
            target.invalid_text("must not already exist as a path in volumeMounts");
        }
    });
}

/// A path below something, which must not lead out of it.
pub(super) fn check_descending_path(path: &At) {
    if path.str().starts_with('/') {
        path.invalid("must be a relative path");
    }
    check_backsteps(path);
}

/// A path below something, whose name does not begin like those that the node agent writes.
fn check_unreserved_path(path: &At) {
    check_descending_path(path);
    let text = path.str();
    if text.starts_with("..") && !text.starts_with("../") && text != ".." {
        path.invalid("must not start with '..'");
    }
}

fn has_backsteps(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

fn check_backsteps(path: &At) {
    if has_backsteps(path.str()) {
        path.invalid("must not contain '..'");
    }
}
