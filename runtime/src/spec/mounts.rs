//! What is mounted in a container.

use std::{fs, path::Path};

use k8s_cri::v1::{LinuxContainerSecurityContext, Mount, MountPropagation};
use serde_json::{Value, json};

use super::{SpecError, SpecInputs};

pub(super) struct Mounts {
    pub(super) mounts: Value,
    pub(super) root_propagation: &'static str,
}

pub(super) fn build(
    inputs: &SpecInputs<'_>,
    security: &LinuxContainerSecurityContext,
) -> Result<Mounts, SpecError> {
    let mut mounts = system_mounts(security.privileged);
    mounts.extend(sandbox_mounts(inputs, security.readonly_rootfs));
    let mut requested: Vec<&Mount> = inputs.config.mounts.iter().collect();
    // Outer ones first, or they would hide the inner ones.
    requested.sort_by_key(|mount| mount.container_path.split('/').filter(|part| !part.is_empty()).count());
    // What is asked for replaces what is there by default.
    mounts.retain(|mount| {
        !requested.iter().any(|wanted| mount["destination"] == *wanted.container_path.trim_end_matches('/'))
    });
    // What the host unmounts goes away in containers too; only a shared root lets theirs reach the host.
    let mut root_propagation = "slave";
    for mount in requested {
        let propagation = match mount.propagation() {
            MountPropagation::PropagationPrivate => "rprivate",
            MountPropagation::PropagationHostToContainer => "rslave",
            MountPropagation::PropagationBidirectional => {
                root_propagation = "shared";
                "rshared"
            }
        };
        let source = Path::new(&mount.host_path);
        if !source.exists() {
            fs::create_dir_all(source)
                .map_err(|error| SpecError::Io(format!("making {}", mount.host_path), error))?;
        }
        let access = if mount.readonly { "ro" } else { "rw" };
        mounts.push(json!({
            "destination": mount.container_path,
            "type": "bind",
            "source": source,
            "options": ["rbind", propagation, access],
        }));
    }
    Ok(Mounts { mounts: Value::Array(mounts), root_propagation })
}

fn system_mounts(privileged: bool) -> Vec<Value> {
    let access = if privileged { "rw" } else { "ro" };
    vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] }),
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", access] }),
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", access] }),
    ]
}

/// The pod's files and shared memory.
fn sandbox_mounts(inputs: &SpecInputs<'_>, readonly: bool) -> Vec<Value> {
    let access = if readonly { "ro" } else { "rw" };
    let bind = |destination: &str, source: &Path, access: &str| json!({ "destination": destination, "type": "bind", "source": source, "options": ["rbind", "rprivate", access] });
    let shared_memory =
        if inputs.host_ipc { "/dev/shm".into() } else { inputs.sandbox_directory.join("shm") };
    let mut mounts = vec![
        bind("/etc/hostname", &inputs.sandbox_directory.join("hostname"), access),
        bind("/dev/shm", &shared_memory, "rw"),
    ];
    let resolv_conf = inputs.sandbox_directory.join("resolv.conf");
    if resolv_conf.exists() {
        mounts.push(bind("/etc/resolv.conf", &resolv_conf, access));
    }
    mounts
}
