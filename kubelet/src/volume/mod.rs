//! A pod's volumes: made before its containers, kept fresh while they run, gone when they are.
//!
//! Known: emptyDir (disk and memory), hostPath, configMap, secret, downwardAPI, projected, image (where the runtime mounts
//! it), and claims of hostPath and local volumes. Deliberately absent so far: CSI, network file systems, block devices,
//! and limits on disk-backed emptyDirs by eviction.

mod atomic;
mod claim;
mod payload;
mod place;
mod subpath;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};

pub use payload::{Sources, references};
pub use place::{clean_up, ensure_dir, pod_dir, volume_dir};
pub use subpath::bind as bind_subpath;

use crate::pod::PodExt;

/// Why a volume cannot be set up. A retry may help: what is missing may come.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {reason}")]
pub struct VolumeError {
    /// The volume's name in the pod.
    pub volume: String,
    /// Why.
    pub reason: String,
}

/// What a container's mount of a volume starts from.
#[derive(Clone, Debug, PartialEq)]
pub enum Mounted {
    /// A path on the node.
    Path(PathBuf),
    /// An image that the runtime mounts itself; it is brought when a container that mounts it is started.
    Image(String),
}

/// A pod's volumes, once set up.
#[derive(Debug, Default)]
pub struct PodVolumes {
    /// By name.
    pub mounted: HashMap<String, Mounted>,
    /// What was last written, by name.
    written: HashMap<String, u64>,
}

impl PodVolumes {
    /// Sets up what is not yet, and rewrites what changed since. Gives the first complaint.
    pub async fn refresh(
        &mut self,
        root: &Path,
        pod: &Pod,
        sources: &Sources<'_>,
    ) -> Result<(), VolumeError> {
        for volume in pod.spec().volumes.iter().flatten() {
            let result = self.refresh_one(root, pod, volume, sources).await;
            result.map_err(|reason| VolumeError { volume: volume.name.clone(), reason })?;
        }
        Ok(())
    }

    /// Whether every volume of the pod has been set up.
    pub fn is_complete(&self, pod: &Pod) -> bool {
        pod.spec().volumes.iter().flatten().all(|volume| self.mounted.contains_key(&volume.name))
    }

    async fn refresh_one(
        &mut self,
        root: &Path,
        pod: &Pod,
        volume: &Volume,
        sources: &Sources<'_>,
    ) -> Result<(), String> {
        let fs_group = pod.spec().security_context.as_ref().and_then(|context| context.fs_group);
        if let Some((plugin, memory)) = payload::plugin(volume) {
            let payload = payload::collect(pod, volume, sources).await?;
            let hash = payload.hash();
            if self.written.get(&volume.name) == Some(&hash) {
                return Ok(());
            }
            let dir = volume_dir(root, pod.uid(), plugin, &volume.name);
            place::ensure_dir(&dir, 0o755).map_err(|error| error.to_string())?;
            if memory {
                place::ensure_tmpfs(&dir, None)?;
            }
            let target = dir.clone();
            let written =
                tokio::task::spawn_blocking(move || atomic::write(&target, &payload, fs_group)).await;
            written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            self.written.insert(volume.name.clone(), hash);
            self.mounted.insert(volume.name.clone(), Mounted::Path(dir));
            return Ok(());
        }
        if self.mounted.contains_key(&volume.name) {
            return Ok(());
        }
        let mounted = if let Some(source) = &volume.empty_dir {
            let dir = volume_dir(root, pod.uid(), "kubernetes.io~empty-dir", &volume.name);
            place::empty_dir(&dir, source, fs_group)?;
            Mounted::Path(dir)
        } else if let Some(source) = &volume.host_path {
            place::host_path(&source.path, source.type_.as_deref().unwrap_or_default())?;
            Mounted::Path(PathBuf::from(&source.path))
        } else if let Some(source) = &volume.image {
            Mounted::Image(source.reference.clone().unwrap_or_default())
        } else if let Some(name) = claim::name(pod, volume) {
            Mounted::Path(claim::resolve(sources.client, pod, &name).await?)
        } else {
            return Err("the volume's kind is not supported by this node".to_string());
        };
        self.mounted.insert(volume.name.clone(), mounted);
        Ok(())
    }
}
