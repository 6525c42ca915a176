//! A container's mounts out of its pod's volumes.

use std::path::PathBuf;

use k8s_cri::v1::{ImageSpec, KeyValue, Mount, MountPropagation};
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use super::env::expand;
use super::spec::PodExt;
use crate::config::Config;
use crate::cri::labels;
use crate::volume::{self, Mounted, PodVolumes, bind_subpath, pod_dir};

/// The mounts; the error is the message of `CreateContainerConfigError`.
pub fn build(
    config: &Config,
    pod: &Pod,
    container: &Container,
    volumes: &PodVolumes,
    env: &[KeyValue],
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for (index, wanted) in container.volume_mounts.iter().flatten().enumerate() {
        let source = volumes.mounted.get(&wanted.name);
        let source = source.ok_or_else(|| {
            format!("cannot find volume \"{}\" to mount into container \"{}\"", wanted.name, container.name)
        })?;
        let mut mount = Mount {
            container_path: absolute(&wanted.mount_path),
            readonly: wanted.read_only.unwrap_or(false) || is_read_only(pod, &wanted.name),
            recursive_read_only: matches!(wanted.recursive_read_only.as_deref(), Some("Enabled")),
            propagation: match wanted.mount_propagation.as_deref() {
                Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
                Some("Bidirectional") => MountPropagation::PropagationBidirectional,
                _ => MountPropagation::PropagationPrivate,
            } as i32,
            ..Mount::default()
        };
        match source {
            Mounted::Image(reference) => {
                let part = sub_path(wanted, env)?.map(|part| (labels::IMAGE_SUB_PATH.to_string(), part));
                mount.image = Some(ImageSpec {
                    image: reference.clone(),
                    annotations: part.into_iter().collect(),
                    ..ImageSpec::default()
                });
                mount.readonly = true;
            }
            Mounted::Path(path) => {
                let sub_path = sub_path(wanted, env)?;
                let path = part_of(config, pod, container, wanted, index, path, sub_path)?;
                mount.host_path = path.display().to_string();
            }
        }
        mounts.push(mount);
    }
    Ok(mounts)
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_string() } else { format!("/{path}") }
}

fn is_read_only(pod: &Pod, volume: &str) -> bool {
    let claim = |v: &k8s_openapi::api::core::v1::Volume| {
        v.persistent_volume_claim.as_ref().and_then(|claim| claim.read_only).unwrap_or(false)
    };
    pod.spec().volumes.iter().flatten().any(|v| v.name == volume && claim(v))
}

/// The part of the volume that the mount names.
fn sub_path(wanted: &VolumeMount, env: &[KeyValue]) -> Result<Option<String>, String> {
    let value = |name: &str| env.iter().find(|kv| kv.key == name).map(|kv| kv.value.clone());
    match wanted.sub_path_expr.as_deref().filter(|expression| !expression.is_empty()) {
        None => Ok(wanted.sub_path.clone().filter(|path| !path.is_empty())),
        Some(expression) => match expand(expression, value) {
            path if path.contains("$(") => Err(format!("missing value for \"{expression}\"")),
            path => Ok(Some(path)),
        },
    }
}

/// The volume's path, or that of a part of it.
fn part_of(
    config: &Config,
    pod: &Pod,
    container: &Container,
    wanted: &VolumeMount,
    index: usize,
    volume: &std::path::Path,
    sub_path: Option<String>,
) -> Result<PathBuf, String> {
    let Some(sub_path) = sub_path else {
        if !volume.exists() {
            // As runtimes do for hostPath volumes without a type.
            std::fs::create_dir_all(volume).map_err(|error| format!("{}: {error}", volume.display()))?;
        }
        return Ok(volume.to_path_buf());
    };
    let target = pod_dir(&config.root_dir, pod.uid())
        .join("volume-subpaths")
        .join(&wanted.name)
        .join(&container.name)
        .join(index.to_string());
    bind_subpath(volume, &sub_path, &target).map_err(|error| {
        format!(
            "failed to prepare subPath for volumeMount \"{}\" of container \"{}\": {error}",
            wanted.name, container.name
        )
    })
}

/// Writes the pod's hosts file, unless the container mounts one of its own.
pub fn hosts_file(
    config: &Config,
    pod: &Pod,
    container: &Container,
    ips: &[String],
) -> Result<Option<PathBuf>, String> {
    if container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == "/etc/hosts") {
        return Ok(None);
    }
    let dir = pod_dir(&config.root_dir, pod.uid());
    let node = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let text = super::names::hosts_file(pod, ips, &config.cluster_domain, &node);
    let path = dir.join("etc-hosts");
    // Written in place: it is mounted into containers that run already.
    std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| error.to_string())?;
    Ok(Some(path))
}

/// Makes the file for a container's last words, writable by whoever it runs as.
pub fn message_file(config: &Config, pod: &Pod, container: &Container) -> Result<PathBuf, String> {
    use std::os::unix::fs::PermissionsExt;
    let dir = volume::pod_dir(&config.root_dir, pod.uid()).join("containers").join(&container.name);
    let id = uuid::Uuid::new_v4().simple().to_string();
    let path = dir.join(id.get(..8).unwrap_or("message"));
    let make = || {
        std::fs::create_dir_all(&dir)?;
        std::fs::write(&path, b"")?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))
    };
    make().map_err(|error| format!("failed to create the termination log: {error}"))?;
    Ok(path)
}
