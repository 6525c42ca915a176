//! Devices of containers.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use k8s_cri::v1::Device;
use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

use super::SpecError;

/// The devices to make and the rules about them. The usual ones (`/dev/null` and so on) are libcontainer's own.
pub(super) fn build(wanted: &[Device], privileged: bool) -> Result<(Value, Value), SpecError> {
    if privileged {
        let mut devices = Vec::new();
        collect(Path::new("/dev"), &mut devices);
        return Ok((Value::Array(devices), json!([{ "allow": true, "access": "rwm" }])));
    }
    let mut devices = Vec::new();
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    for device in wanted {
        let host_path = Path::new(&device.host_path);
        let found = describe(host_path, Path::new(&device.container_path))
            .map_err(|error| SpecError::Io(format!("device {}", device.host_path), error))?;
        rules.push(json!({
            "allow": true,
            "type": found.get("type"),
            "major": found.get("major"),
            "minor": found.get("minor"),
            "access": if device.permissions.is_empty() { "rwm" } else { device.permissions.as_str() },
        }));
        devices.push(found);
    }
    Ok((Value::Array(devices), Value::Array(rules)))
}

fn describe(host_path: &Path, container_path: &Path) -> std::io::Result<Value> {
    let metadata = fs::metadata(host_path)?;
    let kind = metadata.file_type();
    let kind = if kind.is_char_device() {
        "c"
    } else if kind.is_block_device() {
        "b"
    } else {
        return Err(std::io::Error::other("not a device"));
    };
    Ok(json!({
        "path": container_path,
        "type": kind,
        "major": major(metadata.rdev()),
        "minor": minor(metadata.rdev()),
        "fileMode": metadata.mode() & 0o7777,
        "uid": metadata.uid(),
        "gid": metadata.gid(),
    }))
}

/// All devices of the host, but for terminals and what is mounted in `/dev`.
fn collect(directory: &Path, devices: &mut Vec<Value>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let skipped = ["pts", "shm", "fd", "mqueue", "console", "ptmx"];
        if skipped.iter().any(|name| path == Path::new("/dev").join(name)) {
            continue;
        }
        if metadata.is_dir() {
            collect(&path, devices);
        } else if let Ok(device) = describe(&path, &path)
            && !metadata.is_symlink()
        {
            devices.push(device);
        }
    }
}
