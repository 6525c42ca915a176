//! Claims: the volume bound to one, where it lies on this node.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::{Api, Client};

use super::place;
use crate::pod::PodExt;

/// The claim that a volume stands for.
pub fn name(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some(source.claim_name.clone());
    }
    volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name(), volume.name))
}

/// The path behind a claim.
pub async fn resolve(client: &Client, pod: &Pod, claim: &str) -> Result<PathBuf, String> {
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), pod.namespace());
    let found = claims.get_opt(claim).await.map_err(|error| error.to_string())?;
    let found = found.ok_or_else(|| format!("persistentvolumeclaim \"{claim}\" not found"))?;
    let bound = found.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let volume = found.spec.and_then(|spec| spec.volume_name).filter(|name| !name.is_empty());
    let Some(volume) = volume.filter(|_| bound) else {
        return Err(format!("PersistentVolumeClaim \"{claim}\" is not bound"));
    };
    let volumes = Api::<PersistentVolume>::all(client.clone());
    let found = volumes.get(&volume).await.map_err(|error| error.to_string())?;
    let spec = found.spec.unwrap_or_default();
    if let Some(source) = spec.host_path {
        place::host_path(&source.path, source.type_.as_deref().unwrap_or_default())?;
        return Ok(PathBuf::from(source.path));
    }
    if let Some(source) = spec.local {
        place::host_path(&source.path, "Directory")?;
        return Ok(PathBuf::from(source.path));
    }
    Err(format!("the kind of persistentvolume \"{volume}\" is not supported by this node"))
}
