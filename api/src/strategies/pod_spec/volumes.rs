//! Checks of volumes and of where containers mount them.
//!
//! Deliberately absent: the insides of in-tree types that upstream itself hands to CSI drivers (cloud disks, Ceph,
//! iSCSI and their like); that there is only one type per volume is checked for all of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    Seen,
    environment::{self, Place},
    one_of,
};
use crate::{
    field::{Errors, Look, Path, PathExt},
    names,
    quantity::Quantity,
};

const MODE_FAULT: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// The good volumes of a pod, by name.
pub(super) type Known<'a> = BTreeMap<&'a str, &'a Value>;

/// Checks the volumes; containers can mount those that come back.
pub(super) fn validate<'a>(errors: &mut Errors, path: &Path, spec: &'a Value) -> Known<'a> {
    let mut known = Known::new();
    for (index, volume) in spec.items("volumes").iter().enumerate() {
        let path = path.index(index);
        let name = volume.text("name");
        let before = errors.len();
        source(errors, &path, volume);
        if name.is_empty() {
            errors.required(&path.field("name"), "");
        } else {
            errors.invalid_each(&path.field("name"), name, names::dns1123_label(name));
        }
        if known.contains_key(name) {
            errors.duplicate(&path.field("name"), name);
        }
        if errors.len() == before {
            known.insert(name, volume);
        }
    }
    known
}

fn source(errors: &mut Errors, path: &Path, volume: &Value) {
    let mut has_one = false;
    let types = volume.as_object().into_iter().flatten();
    for (kind, source) in types.filter(|(key, value)| *key != "name" && !value.is_null()) {
        let path = path.field(kind);
        if has_one {
            errors.forbidden(&path, "may not specify more than 1 volume type");
            continue;
        }
        has_one = true;
        match kind.as_str() {
            "emptyDir" => empty_dir(errors, &path, source),
            "hostPath" => host_path(errors, &path, source),
            "secret" => keyed(errors, &path, source, "secretName"),
            "configMap" => keyed(errors, &path, source, "name"),
            "downwardAPI" => downward(errors, &path, source),
            "projected" => projected(errors, &path, source),
            "persistentVolumeClaim" if source.text("claimName").is_empty() => {
                errors.required(&path.field("claimName"), "");
            }
            "ephemeral" if source.at("volumeClaimTemplate").is_none() => {
                errors.required(&path.field("volumeClaimTemplate"), "");
            }
            "nfs" => nfs(errors, &path, source),
            "csi" if source.text("driver").is_empty() => errors.required(&path.field("driver"), ""),
            "image" => {
                one_of(errors, &path.field("pullPolicy"), source, &["Always", "IfNotPresent", "Never"]);
            }
            _ => {}
        }
    }
    if !has_one {
        errors.required(path, "must specify a volume type");
    }
}

fn empty_dir(errors: &mut Errors, path: &Path, source: &Value) {
    if source.at("sizeLimit").is_some_and(|l| Quantity::from_json(l).is_ok_and(|l| l.is_negative())) {
        errors.forbidden(&path.field("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
}

fn host_path(errors: &mut Errors, path: &Path, source: &Value) {
    let target = source.text("path");
    if target.is_empty() {
        return errors.required(&path.field("path"), "");
    }
    no_backsteps(errors, &path.field("path"), target);
    let kind = source.text("type");
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.not_supported(&path.field("type"), kind, HOST_PATH_TYPES);
    }
}

fn nfs(errors: &mut Errors, path: &Path, source: &Value) {
    if source.text("server").is_empty() {
        errors.required(&path.field("server"), "");
    }
    let target = source.text("path");
    if target.is_empty() {
        errors.required(&path.field("path"), "");
    }
    if !target.starts_with('/') {
        errors.invalid(&path.field("path"), target, "must be an absolute path");
    }
}

fn keyed(errors: &mut Errors, path: &Path, source: &Value, name_field: &str) {
    if source.text(name_field).is_empty() {
        errors.required(&path.field(name_field), "");
    }
    mode(errors, &path.field("defaultMode"), source.int("defaultMode"));
    items(errors, &path.field("items"), source);
}

fn items(errors: &mut Errors, path: &Path, source: &Value) {
    for (index, item) in source.items("items").iter().enumerate() {
        let path = path.index(index);
        if item.text("key").is_empty() {
            errors.required(&path.field("key"), "");
        }
        let target = item.text("path");
        if target.is_empty() {
            errors.required(&path.field("path"), "");
        }
        non_reserved_path(errors, &path.field("path"), target);
        mode(errors, &path.field("mode"), item.int("mode"));
    }
}

fn mode(errors: &mut Errors, path: &Path, mode: Option<i64>) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        errors.invalid(path, mode, MODE_FAULT);
    }
}

fn downward(errors: &mut Errors, path: &Path, source: &Value) {
    mode(errors, &path.field("defaultMode"), source.int("defaultMode"));
    for item in source.items("items") {
        // Upstream names the volume, not the item.
        downward_item(errors, path, item);
    }
}

fn downward_item(errors: &mut Errors, path: &Path, item: &Value) {
    let target = item.text("path");
    if target.is_empty() {
        errors.required(&path.field("path"), "");
    }
    non_reserved_path(errors, &path.field("path"), target);
    match (item.at("fieldRef"), item.at("resourceFieldRef")) {
        (Some(reference), resource) => {
            environment::field_reference(errors, &path.field("fieldRef"), reference, Place::Volume);
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path, "resource", detail);
            }
        }
        (None, Some(reference)) => {
            let path = path.field("resourceFieldRef");
            environment::resource_reference(errors, &path, reference, Place::Volume);
        }
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(errors, &path.field("mode"), item.int("mode"));
}

fn projected(errors: &mut Errors, path: &Path, source: &Value) {
    mode(errors, &path.field("defaultMode"), source.int("defaultMode"));
    let sources_path = path.field("sources");
    let mut paths = BTreeSet::new();
    for (index, source) in source.items("sources").iter().enumerate() {
        let source_path = sources_path.index(index);
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            let Some(source) = source.at(kind) else { continue };
            count += 1;
            let kind_path = source_path.field(kind);
            if source.text("name").is_empty() {
                errors.required(&kind_path.field("name"), "");
            }
            items(errors, &kind_path.field("items"), source);
            for item in source.items("items") {
                distinct(errors, path, &mut paths, item.text("path"), source.text("name"));
            }
        }
        if let Some(downward) = source.at("downwardAPI") {
            count += 1;
            for item in downward.items("items") {
                downward_item(errors, &source_path.field("downwardAPI"), item);
                distinct(errors, path, &mut paths, item.text("path"), item.text("path"));
            }
        }
        if let Some(token) = source.at("serviceAccountToken") {
            count += 1;
            token_projection(errors, path, &source_path.field("serviceAccountToken"), token);
            distinct(errors, path, &mut paths, token.text("path"), token.text("path"));
        }
        count += ["clusterTrustBundle", "podCertificate"].iter().filter(|k| source.at(k).is_some()).count();
        if count > 1 {
            errors.forbidden(&source_path, "may not specify more than 1 volume type per source");
        }
    }
}

fn distinct<'a>(
    errors: &mut Errors,
    path: &Path,
    seen: &mut BTreeSet<&'a str>,
    target: &'a str,
    named: &str,
) {
    if !target.is_empty() && !seen.insert(target) {
        errors.invalid(path, named, "conflicting duplicate paths");
    }
}

fn token_projection(errors: &mut Errors, volume_path: &Path, path: &Path, token: &Value) {
    let seconds = token.int("expirationSeconds").unwrap_or_default();
    let seconds_path = path.field("expirationSeconds");
    if seconds < TOKEN_SECONDS_MIN {
        errors.invalid(&seconds_path, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > TOKEN_SECONDS_MAX {
        errors.invalid(&seconds_path, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    let target = token.text("path");
    if target.is_empty() {
        errors.required(&volume_path.field("path"), "");
    } else {
        non_reserved_path(errors, &volume_path.field("path"), target);
    }
}

/// Checks what a container mounts, and the devices that it uses.
pub(super) fn validate_mounts(errors: &mut Errors, path: &Path, container: &Value, known: &Known) {
    let list = path.field("volumeMounts");
    let devices = container.items("volumeDevices");
    let mut targets = Seen::default();
    for (index, mount) in container.items("volumeMounts").iter().enumerate() {
        let path = list.index(index);
        let (name, target) = (mount.text("name"), mount.text("mountPath"));
        if name.is_empty() {
            errors.required(&path.field("name"), "");
        }
        if !known.contains_key(name) {
            errors.not_found(&path.field("name"), name);
        }
        if target.is_empty() {
            errors.required(&path.field("mountPath"), "");
        }
        if !targets.is_new(target) {
            errors.invalid(&path.field("mountPath"), target, "must be unique");
        }
        if devices.iter().any(|d| d.text("name") == name) {
            errors.invalid(&path.field("name"), name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|d| d.text("devicePath") == target) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.invalid(&path.field("mountPath"), target, detail);
        }
        sub_paths(errors, &list, &path, mount);
        propagation(errors, &list.field("mountPropagation"), mount, container);
    }
    volume_devices(errors, &path.field("volumeDevices"), container, known);
}

/// Upstream names the list for what is inside of a sub path.
fn sub_paths(errors: &mut Errors, list: &Path, path: &Path, mount: &Value) {
    let (plain, expanded) = (mount.text("subPath"), mount.text("subPathExpr"));
    if !plain.is_empty() {
        descending_path(errors, &list.field("subPath"), plain);
    }
    if !expanded.is_empty() {
        if !plain.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(&path.field("subPathExpr"), expanded, detail);
        }
        descending_path(errors, &list.field("subPathExpr"), expanded);
    }
}

fn propagation(errors: &mut Errors, path: &Path, mount: &Value, container: &Value) {
    if mount.at("mountPropagation").is_none() {
        return;
    }
    one_of(errors, path, mount, &["Bidirectional", "HostToContainer", "None"]);
    let is_privileged = container.at("securityContext").is_some_and(|c| c.flag("privileged"));
    if mount.text("mountPropagation") == "Bidirectional" && !is_privileged {
        errors.forbidden(path, "Bidirectional mount propagation is available only to privileged containers");
    }
}

fn volume_devices(errors: &mut Errors, path: &Path, container: &Value, known: &Known) {
    let (mut names, mut paths) = (Seen::default(), Seen::default());
    for (index, device) in container.items("volumeDevices").iter().enumerate() {
        let path = path.index(index);
        let (name, target) = (device.text("name"), device.text("devicePath"));
        if name.is_empty() {
            errors.required(&path.field("name"), "");
        } else if !names.is_new(name) {
            errors.invalid(&path.field("name"), name, "must be unique");
        }
        match known.get(name) {
            None => errors.not_found(&path.field("name"), name),
            Some(volume) if ["persistentVolumeClaim", "ephemeral"].iter().all(|k| volume.at(k).is_none()) => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&path.field("name"), name, detail);
            }
            Some(_) => {}
        }
        if target.is_empty() {
            errors.required(&path.field("devicePath"), "");
        } else if !paths.is_new(target) {
            errors.invalid(&path.field("devicePath"), target, "must be unique");
        } else if has_backsteps(target) {
            errors.invalid(&path.field("devicePath"), target, "can not contain backsteps ('..')");
        }
        let mounts = container.items("volumeMounts");
        if mounts.iter().any(|mount| mount.text("name") == name) {
            errors.invalid(&path.field("name"), name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| mount.text("mountPath") == target) {
            let detail = "must not already exist as a path in volumeMounts";
            errors.invalid(&path.field("devicePath"), target, detail);
        }
    }
}

/// A path below something, which must not lead out of it.
pub(super) fn descending_path(errors: &mut Errors, path: &Path, target: &str) {
    if target.starts_with('/') {
        errors.invalid(path, target, "must be a relative path");
    }
    no_backsteps(errors, path, target);
}

/// A path below something, whose name does not begin like those that the node agent writes.
fn non_reserved_path(errors: &mut Errors, path: &Path, target: &str) {
    descending_path(errors, path, target);
    if target.starts_with("..") && !target.starts_with("../") && target != ".." {
        errors.invalid(path, target, "must not start with '..'");
    }
}

fn has_backsteps(target: &str) -> bool {
    target.split('/').any(|part| part == "..")
}

fn no_backsteps(errors: &mut Errors, path: &Path, target: &str) {
    if has_backsteps(target) {
        errors.invalid(path, target, "must not contain '..'");
    }
}
