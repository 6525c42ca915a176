//! What files the volumes made of API objects hold: configMap, secret, downwardAPI, projected.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use crate::pod::fields::{self, Surroundings};
use crate::pod::{Lookup, PodExt};
use crate::references::Kind;
use crate::tokens::Tokens;

const MODE_DEFAULT: i32 = 0o644;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct File {
    /// What is in it.
    pub content: Vec<u8>,
    /// Its mode.
    pub mode: u32,
}

/// Files by their path in the volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Payload {
    /// The files.
    pub files: BTreeMap<String, File>,
}

impl Payload {
    /// Tells whether two payloads are the same, as well as needed.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        Hash::hash(self, &mut hasher);
        hasher.finish()
    }

    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let file = |text: &str| File { content: text.as_bytes().to_vec(), mode: 0o644 };
        Self { files: files.iter().map(|(path, text)| (path.to_string(), file(text))).collect() }
    }
}

/// Where contents come from.
pub struct Sources<'a> {
    /// Config maps and secrets.
    pub lookup: &'a (dyn Lookup + Send + Sync),
    /// What the pod may learn of itself.
    pub around: &'a Surroundings,
    /// Service-account tokens.
    pub tokens: &'a Tokens,
    /// For claims.
    pub client: &'a kube::Client,
}

/// The directory name of a volume that is made of API objects, and whether it is kept in memory only.
pub fn plugin(volume: &Volume) -> Option<(&'static str, bool)> {
    if volume.config_map.is_some() {
        Some(("kubernetes.io~configmap", false))
    } else if volume.secret.is_some() {
        Some(("kubernetes.io~secret", true))
    } else if volume.downward_api.is_some() {
        Some(("kubernetes.io~downward-api", true))
    } else if volume.projected.is_some() {
        Some(("kubernetes.io~projected", true))
    } else {
        None
    }
}

/// The objects that a pod's volumes are made of.
pub fn references(pod: &Pod) -> Vec<(Kind, String)> {
    let mut found = Vec::new();
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    for volume in pod.spec().volumes.iter().flatten() {
        found.extend(volume.config_map.as_ref().map(|source| (Kind::ConfigMap, source.name.clone())));
        found.extend(volume.secret.as_ref().map(|source| (Kind::Secret, name(&source.secret_name))));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            found.extend(source.config_map.as_ref().map(|s| (Kind::ConfigMap, s.name.clone())));
            found.extend(source.secret.as_ref().map(|s| (Kind::Secret, s.name.clone())));
        }
    }
    found
}

/// Collects a volume's files.
pub async fn collect(pod: &Pod, volume: &Volume, sources: &Sources<'_>) -> Result<Payload, String> {
    let mut payload = Payload::default();
    if let Some(source) = &volume.config_map {
        let optional = source.optional == Some(true);
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        object(
            &mut payload,
            Kind::ConfigMap,
            &source.name,
            source.items.as_deref(),
            mode,
            optional,
            sources,
        )?;
    } else if let Some(source) = &volume.secret {
        let optional = source.optional == Some(true);
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        let name = source.secret_name.clone().unwrap_or_default();
        object(&mut payload, Kind::Secret, &name, source.items.as_deref(), mode, optional, sources)?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        downward(&mut payload, pod, source.items.as_deref(), mode, sources)?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        for source in source.sources.iter().flatten() {
            projection(&mut payload, pod, source, mode, sources).await?;
        }
    }
    Ok(payload)
}

async fn projection(
    payload: &mut Payload,
    pod: &Pod,
    source: &VolumeProjection,
    mode: i32,
    sources: &Sources<'_>,
) -> Result<(), String> {
    if let Some(map) = &source.config_map {
        let optional = map.optional == Some(true);
        object(payload, Kind::ConfigMap, &map.name, map.items.as_deref(), mode, optional, sources)?;
    }
    if let Some(secret) = &source.secret {
        let optional = secret.optional == Some(true);
        object(payload, Kind::Secret, &secret.name, secret.items.as_deref(), mode, optional, sources)?;
    }
    if let Some(source) = &source.downward_api {
        downward(payload, pod, source.items.as_deref(), mode, sources)?;
    }
    if let Some(source) = &source.service_account_token {
        token(payload, pod, source, mode, sources).await?;
    }
    if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
        return Err("trust bundles and pod certificates are not supported by this node".to_string());
    }
    Ok(())
}

async fn token(
    payload: &mut Payload,
    pod: &Pod,
    source: &ServiceAccountTokenProjection,
    mode: i32,
    sources: &Sources<'_>,
) -> Result<(), String> {
    let audience = source.audience.as_deref().unwrap_or_default();
    let token =
        sources.tokens.get(sources.client, pod, audience, source.expiration_seconds.unwrap_or(3600)).await?;
    let has_group = pod.spec().security_context.as_ref().is_some_and(|context| context.fs_group.is_some());
    let mode = if has_group { 0o600 } else { mode };
    insert(payload, &source.path, token.into_bytes(), mode)
}

fn object(
    payload: &mut Payload,
    kind: Kind,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
    sources: &Sources<'_>,
) -> Result<(), String> {
    let (data, what) = match kind {
        Kind::ConfigMap => (sources.lookup.config_map(name), "configmap"),
        Kind::Secret => (sources.lookup.secret(name), "secret"),
    };
    let Some(data) = data else {
        return if optional { Ok(()) } else { Err(format!("{what} \"{name}\" not found")) };
    };
    let Some(items) = items else {
        return data.into_iter().try_for_each(|(key, value)| insert(payload, &key, value, mode));
    };
    for item in items {
        match data.get(&item.key) {
            Some(value) => insert(payload, &item.path, value.clone(), item.mode.unwrap_or(mode))?,
            None if optional => {}
            None => return Err(format!("references non-existent {what} key: {}", item.key)),
        }
    }
    Ok(())
}

fn downward(
    payload: &mut Payload,
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: i32,
    sources: &Sources<'_>,
) -> Result<(), String> {
    for item in items.unwrap_or_default() {
        let value = if let Some(reference) = &item.field_ref {
            fields::field(pod, &reference.field_path, sources.around)?
        } else if let Some(selector) = &item.resource_field_ref {
            let name = selector.container_name.as_deref().unwrap_or_default();
            let container = pod.all_containers().find(|c| c.name == name);
            let container = container.ok_or_else(|| format!("container \"{name}\" not found"))?;
            fields::resource(container, selector, sources.around)?
        } else {
            continue;
        };
        insert(payload, &item.path, value.into_bytes(), item.mode.unwrap_or(mode))?;
    }
    Ok(())
}

/// Paths stay inside the volume: the API server checks it as well, but a node does not rely on it.
fn insert(payload: &mut Payload, path: &str, content: Vec<u8>, mode: i32) -> Result<(), String> {
    let safe = !path.is_empty()
        && !path.starts_with('/')
        && path.split('/').all(|part| part != ".." && !part.is_empty());
    if !safe || path.starts_with("..") {
        return Err(format!("invalid path: {path}"));
    }
    let mode = u32::try_from(mode).unwrap_or(0o644) & 0o777;
    payload.files.insert(path.to_string(), File { content, mode });
    Ok(())
}
