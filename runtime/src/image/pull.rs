//! Pulling from registries: OCI and Docker v2, anonymous or with credentials, from mirrors first.
//!
//! One reference is pulled once at a time; layers that are here already are not fetched.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use oci_client::{
    Client, Reference,
    client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    manifest::OciImageManifest,
    secrets::RegistryAuth,
};

use super::{
    ImageConfig, ImageError,
    config::digest,
    normalize,
    store::{ImageRecord, ImageStore, Names, PackedLayer},
};

/// Layers of one image that are fetched at the same time.
const PARALLEL_LAYERS: usize = 3;
/// A registry that sends nothing for this long has failed.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How registries are reached, by host name (and port, if it is part of references).
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// Registries not named here are reached by HTTPS with the system's authorities; those on loopback by HTTP.
    pub hosts: HashMap<String, Registry>,
}

/// How one registry is reached.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// Hosts that are asked first, in order; the registry itself comes last.
    pub mirrors: Vec<String>,
    /// Speak plain HTTP.
    pub plain_http: bool,
    /// Accept any certificate.
    pub skip_verify: bool,
    /// Further authorities, as PEM files.
    pub ca_files: Vec<PathBuf>,
    /// Used when the pull brings none.
    pub credentials: Option<Credentials>,
}

/// Who asks.
#[derive(Clone)]
pub enum Credentials {
    /// User and password.
    Basic(String, String),
    /// A token of the registry.
    Bearer(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Credentials(hidden)")
    }
}

impl ImageStore {
    /// Pulls an image. Its layers are fetched only as far as they are not here.
    pub(crate) async fn pull(
        &self,
        reference: &str,
        credentials: Option<Credentials>,
    ) -> Result<Arc<ImageRecord>, ImageError> {
        let reference = normalize(reference)?;
        let _busy = self.exclusive(&reference.whole()).await;
        let directory = self.ingest_directory()?;
        self.pull_from_any(&reference, credentials, &directory.0).await
    }

    async fn pull_from_any(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
        directory: &Path,
    ) -> Result<Arc<ImageRecord>, ImageError> {
        let registry = self.registries.hosts.get(reference.registry());
        let mirrors = registry.map(|registry| registry.mirrors.clone()).unwrap_or_default();
        for mirror in mirrors {
            let mut mirrored = reference.clone();
            mirrored.set_mirror_registry(mirror.clone());
            // Credentials are for the registry that was named, not for others.
            match self.pull_from(reference, &mirrored, &mirror, None, directory).await {
                Ok(image) => return Ok(image),
                Err(error) => tracing::info!(%error, mirror, "mirror did not serve the image"),
            }
        }
        self.pull_from(reference, reference, reference.resolve_registry(), credentials, directory).await
    }

    async fn pull_from(
        &self,
        name: &Reference,
        source: &Reference,
        host: &str,
        credentials: Option<Credentials>,
        directory: &Path,
    ) -> Result<Arc<ImageRecord>, ImageError> {
        let registry = self.registries.hosts.get(host).cloned().unwrap_or_default();
        let auth = match credentials.or(registry.credentials.clone()) {
            None => RegistryAuth::Anonymous,
            Some(Credentials::Basic(user, password)) => RegistryAuth::Basic(user, password),
            Some(Credentials::Bearer(token)) => RegistryAuth::Bearer(token),
        };
        let failed = |error: oci_client::errors::OciDistributionError| {
            ImageError::Registry(name.whole(), describe(&error))
        };
        let client = client(host, &registry)?;
        let (manifest, manifest_digest, list_digest) =
            client.pull_image_manifest_and_list_digest(source, &auth).await.map_err(failed)?;
        let config_path = directory.join("config");
        fetch(&client, source, &manifest.config.digest, &config_path).await.map_err(failed)?;
        let config =
            tokio::fs::read(&config_path).await.map_err(ImageError::io("reading the configuration"))?;
        if digest(&config) != manifest.config.digest {
            return Err(ImageError::Digest { expected: manifest.config.digest, actual: digest(&config) });
        }
        let layers = self.fetch_layers(&client, source, &manifest, &config, directory).await?;
        let size_bytes =
            manifest.layers.iter().map(|layer| layer.size.max(0) as u64).sum::<u64>() + config.len() as u64;
        let repository = format!("{}/{}", name.registry(), name.repository());
        let names = Names {
            tag: name.tag().filter(|_| name.digest().is_none()).map(|_| name.whole()),
            digests: list_digest
                .into_iter()
                .chain([manifest_digest])
                .map(|digest| format!("{repository}@{digest}"))
                .collect(),
        };
        self.import(&config, layers, names, size_bytes).await
    }

    async fn fetch_layers(
        &self,
        client: &Client,
        source: &Reference,
        manifest: &OciImageManifest,
        config: &[u8],
        directory: &Path,
    ) -> Result<Vec<PackedLayer>, ImageError> {
        let parsed = ImageConfig::parse(config)?;
        let chains = parsed.chain_ids();
        if chains.len() != manifest.layers.len() {
            return Err(ImageError::Malformed(
                "the manifest and the configuration name different layers".into(),
            ));
        }
        let fetches = manifest.layers.iter().zip(chains).enumerate().map(|(number, (layer, chain))| {
            let path = directory.join(number.to_string());
            async move {
                // Unpacked already: the empty path is never opened.
                if !self.has_layer(&chain) {
                    fetch(client, source, &layer.digest, &path)
                        .await
                        .map_err(|error| ImageError::Registry(source.whole(), describe(&error)))?;
                }
                Ok::<_, ImageError>(path)
            }
        });
        let fetches: Vec<_> = fetches.collect();
        let paths: Vec<PathBuf> =
            futures::stream::iter(fetches).buffered(PARALLEL_LAYERS).try_collect().await?;
        let layers = paths.into_iter().zip(parsed.rootfs.diff_ids);
        Ok(layers.map(|(path, diff_id)| PackedLayer { path, diff_id }).collect())
    }
}

async fn fetch(
    client: &Client,
    source: &Reference,
    digest: &str,
    path: &Path,
) -> Result<(), oci_client::errors::OciDistributionError> {
    let file = tokio::fs::File::create(path).await?;
    // Compares the digest of what it has received.
    client.pull_blob(source, digest, tokio::io::BufWriter::with_capacity(256 * 1024, file)).await
}

fn client(host: &str, registry: &Registry) -> Result<Client, ImageError> {
    // The client takes the process's cryptography, which may not have been chosen yet.
    if rustls::crypto::CryptoProvider::get_default().is_none()
        && rustls::crypto::ring::default_provider().install_default().is_err()
    {
        tracing::trace!("cryptography was chosen meanwhile");
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_loopback = name == "localhost"
        || name
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    let mut authorities = Vec::new();
    for file in &registry.ca_files {
        let data = std::fs::read(file).map_err(ImageError::io(format!("reading {}", file.display())))?;
        authorities.push(Certificate { encoding: CertificateEncoding::Pem, data });
    }
    let plain = registry.plain_http || (is_loopback && registry.ca_files.is_empty() && !registry.skip_verify);
    Ok(Client::new(ClientConfig {
        protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
        accept_invalid_certificates: registry.skip_verify,
        extra_root_certificates: authorities,
        read_timeout: Some(READ_TIMEOUT),
        connect_timeout: Some(CONNECT_TIMEOUT),
        user_agent: concat!("gantry/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    }))
}

fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
