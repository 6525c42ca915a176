//! From what the agent asks for to what libcontainer runs: the OCI specification of a container.

mod capabilities;
mod devices;
mod mounts;
mod process;
mod seccomp;
mod seccomp_default;
mod user;

use std::path::Path;

use k8s_cri::v1::{ContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, NamespaceMode};
use serde_json::{Value, json};

pub(crate) use user::User;

use crate::image::ImageConfig;

/// Why a container's specification cannot be made. Most are the user's to change.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("neither the container nor the image says what to run")]
    NoCommand,
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    #[error("unknown capability {0:?}")]
    Capability(String),
    #[error("seccomp profile {0}: {1}")]
    Seccomp(String, String),
    #[error("{0} are not supported by this runtime: {1}")]
    NotDone(&'static str, String),
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
}

/// Everything that a specification depends on.
pub(crate) struct SpecInputs<'a> {
    pub(crate) config: &'a ContainerConfig,
    pub(crate) image: &'a ImageConfig,
    pub(crate) rootfs: &'a Path,
    pub(crate) cgroup: &'a str,
    pub(crate) hostname: &'a str,
    /// The sandbox's own files: `resolv.conf`, `hostname`, and `shm` as a directory.
    pub(crate) sandbox_directory: &'a Path,
    pub(crate) host_ipc: bool,
    /// The process whose process namespace is joined; absent for one of its own or the host's.
    pub(crate) pid_namespace_of: Option<i32>,
    pub(crate) cgroup_v2: bool,
}

/// The specification and the user that it runs as.
pub(crate) struct BuiltSpec {
    pub(crate) json: Value,
    pub(crate) user: User,
}

pub(crate) fn build(inputs: &SpecInputs<'_>) -> Result<BuiltSpec, SpecError> {
    let security =
        inputs.config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default();
    let resources =
        inputs.config.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
    refuse_what_is_not_done(inputs.config)?;
    if let Some(apparmor) = security.apparmor.as_ref().filter(|profile| !profile.localhost_ref.is_empty()) {
        tracing::warn!(profile = apparmor.localhost_ref, "AppArmor profiles are not applied by this runtime");
    }
    if security.selinux_options.is_some() {
        tracing::info!("SELinux labels are not applied by this runtime");
    }
    let user = user::resolve(inputs.rootfs, &security, &inputs.image.config.user)?;
    let capabilities = capabilities::choose(&security)?;
    let process = process::build(inputs, &security, &user, &capabilities)?;
    let mounts = mounts::build(inputs, &security)?;
    let (devices, device_rules) = devices::build(&inputs.config.devices, security.privileged)?;
    let mut linux = json!({
        "cgroupsPath": inputs.cgroup,
        "namespaces": namespaces(inputs, &security),
        "resources": resource_limits(&resources, device_rules, inputs.cgroup_v2),
        "devices": devices,
        "rootfsPropagation": mounts.root_propagation,
    });
    if !security.privileged {
        set(&mut linux, "maskedPaths", json!(or_default(&security.masked_paths, MASKED_PATHS)));
        set(&mut linux, "readonlyPaths", json!(or_default(&security.readonly_paths, READONLY_PATHS)));
        if let Some(filter) = seccomp::choose(security.seccomp.as_ref(), &capabilities)? {
            set(&mut linux, "seccomp", filter);
        }
    }
    let json = json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": { "path": inputs.rootfs, "readonly": security.readonly_rootfs },
        "mounts": mounts.mounts,
        "linux": linux,
        "annotations": {},
    });
    Ok(BuiltSpec { json, user })
}

fn refuse_what_is_not_done(config: &ContainerConfig) -> Result<(), SpecError> {
    if let Some(mount) = config.mounts.iter().find(|mount| mount.recursive_read_only) {
        return Err(SpecError::NotDone("recursive read-only mounts", mount.container_path.clone()));
    }
    if let Some(device) = config.cdi_devices.first() {
        return Err(SpecError::NotDone("CDI devices", device.name.clone()));
    }
    Ok(())
}

/// What of `/proc` and `/sys` containers do not see, unless the agent says otherwise. An agent that sends no list gets
/// these: seeing everything is possible for privileged containers only.
const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn or_default(given: &[String], default: &[&str]) -> Vec<String> {
    if given.is_empty() { default.iter().map(|path| (*path).to_owned()).collect() } else { given.to_vec() }
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

/// Namespaces of the pod are those of the shim, in which the container is started; only the container's own are listed.
fn namespaces(inputs: &SpecInputs<'_>, security: &LinuxContainerSecurityContext) -> Value {
    let mut namespaces = vec![json!({ "type": "mount" })];
    let options = security.namespace_options.clone().unwrap_or_default();
    match (options.pid(), inputs.pid_namespace_of) {
        (NamespaceMode::Node, _) => {}
        (NamespaceMode::Pod | NamespaceMode::Target, Some(pid)) => {
            namespaces.push(json!({ "type": "pid", "path": format!("/proc/{pid}/ns/pid") }));
        }
        _ => namespaces.push(json!({ "type": "pid" })),
    }
    if inputs.cgroup_v2 && !security.privileged {
        namespaces.push(json!({ "type": "cgroup" }));
    }
    Value::Array(namespaces)
}

fn resource_limits(resources: &LinuxContainerResources, devices: Value, cgroup_v2: bool) -> Value {
    let mut cpu = json!({});
    if resources.cpu_shares > 0 {
        set(&mut cpu, "shares", json!(resources.cpu_shares));
    }
    if resources.cpu_quota != 0 {
        set(&mut cpu, "quota", json!(resources.cpu_quota));
    }
    if resources.cpu_period > 0 {
        set(&mut cpu, "period", json!(resources.cpu_period));
    }
    for (key, value) in [("cpus", &resources.cpuset_cpus), ("mems", &resources.cpuset_mems)] {
        if !value.is_empty() {
            set(&mut cpu, key, json!(value));
        }
    }
    let mut limits = json!({ "devices": devices, "cpu": cpu });
    if resources.memory_limit_in_bytes > 0 {
        let mut memory = json!({ "limit": resources.memory_limit_in_bytes });
        if resources.memory_swap_limit_in_bytes > 0 {
            set(&mut memory, "swap", json!(resources.memory_swap_limit_in_bytes));
        }
        set(&mut limits, "memory", memory);
    }
    if cgroup_v2 && !resources.unified.is_empty() {
        set(&mut limits, "unified", json!(resources.unified));
    }
    limits
}
