//! Images from archives: what `docker save` writes, and OCI layouts, packed or not.
//!
//! The archive is read once, in whatever order its members are, into the ingest directory; nothing of it is trusted
//! until digests have been compared.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tar::{Archive, EntryType};

use super::{
    ImageConfig, ImageError,
    config::digest,
    normalize,
    reader::unpacked,
    store::{ImageStore, Names, PackedLayer},
};

/// Nested indexes deeper than this are not followed.
const INDEX_DEPTH_MAX: usize = 4;

impl ImageStore {
    /// Loads all images of an archive; the result is their references (or identifiers, for those without).
    pub(crate) async fn load<R: Read + Send + 'static>(&self, archive: R) -> Result<Vec<String>, ImageError> {
        let directory = self.ingest_directory()?;
        self.load_into(archive, directory.0.clone()).await
    }

    async fn load_into<R: Read + Send + 'static>(
        &self,
        archive: R,
        directory: PathBuf,
    ) -> Result<Vec<String>, ImageError> {
        let reading = tokio::task::spawn_blocking(move || {
            Members::read(archive, &directory).and_then(|members| {
                let images = members.images()?;
                Ok(images)
            })
        });
        let images =
            reading.await.map_err(|error| ImageError::Io("reading".into(), io::Error::other(error)))??;
        if images.is_empty() {
            return Err(ImageError::Malformed("the archive holds no image for this machine".into()));
        }
        let mut names = Vec::new();
        for image in images {
            let tags: Vec<Option<String>> =
                if image.tags.is_empty() { vec![None] } else { image.tags.into_iter().map(Some).collect() };
            for tag in tags {
                let layers = image
                    .layers
                    .iter()
                    .map(|(path, diff_id)| PackedLayer { path: path.clone(), diff_id: diff_id.clone() });
                let reference = tag.as_deref().map(normalize).transpose()?;
                let digests = match (&reference, &image.manifest_digest) {
                    (Some(name), Some(digest)) => {
                        vec![format!("{}/{}@{digest}", name.registry(), name.repository())]
                    }
                    _ => Vec::new(),
                };
                let tag = reference.map(|name| name.whole());
                let names_of = Names { tag: tag.clone(), digests };
                let record = self.import(&image.config, layers.collect(), names_of, image.size_bytes).await?;
                names.push(tag.unwrap_or_else(|| record.id.clone()));
            }
        }
        Ok(names)
    }
}

/// An image of an archive, its parts found and its configuration checked.
struct ArchivedImage {
    config: Vec<u8>,
    layers: Vec<(PathBuf, String)>,
    tags: Vec<String>,
    manifest_digest: Option<String>,
    size_bytes: u64,
}

/// The members of an archive by their names, spooled to disk.
struct Members(HashMap<String, PathBuf>);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
    platform: Option<Platform>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

impl Members {
    fn read<R: Read + 'static>(archive: R, directory: &Path) -> Result<Self, ImageError> {
        let mut members = HashMap::new();
        let mut links: Vec<(String, String)> = Vec::new();
        let reader = unpacked(archive).map_err(ImageError::io("reading the archive"))?;
        let mut archive = Archive::new(reader);
        let entries = archive.entries().map_err(ImageError::io("reading the archive"))?;
        for (number, entry) in entries.enumerate() {
            let mut entry = entry.map_err(ImageError::io("reading the archive"))?;
            let name = tidy(&String::from_utf8_lossy(&entry.path_bytes()));
            match entry.header().entry_type() {
                EntryType::Regular => {
                    // Members are stored under numbers: their names are only ever keys.
                    let path = directory.join(number.to_string());
                    let mut file = File::create(&path).map_err(ImageError::io("spooling the archive"))?;
                    io::copy(&mut entry, &mut file).map_err(ImageError::io("spooling the archive"))?;
                    members.insert(name, path);
                }
                EntryType::Symlink | EntryType::Link => {
                    let target = entry.link_name_bytes().unwrap_or_default();
                    links.push((name, String::from_utf8_lossy(&target).into_owned()));
                }
                _ => {}
            }
        }
        // Old archives say that two layers are equal by a link from one directory to another.
        for (name, target) in links {
            let beside = Path::new(&name).parent().map(|parent| parent.join(&target));
            let beside = beside.map(|path| tidy(&path.to_string_lossy()));
            if let Some(path) = members.get(&tidy(&target)).or_else(|| members.get(&beside?)).cloned() {
                members.insert(name, path);
            }
        }
        Ok(Self(members))
    }

    fn images(&self) -> Result<Vec<ArchivedImage>, ImageError> {
        if let Some(manifest) = self.0.get("manifest.json") {
            let images: Vec<DockerImage> = parse(&read(manifest)?, "manifest.json")?;
            return images.into_iter().map(|image| self.docker_image(image)).collect();
        }
        if let Some(index) = self.0.get("index.json") {
            let index: Index = parse(&read(index)?, "index.json")?;
            let mut images = Vec::new();
            for descriptor in index.manifests {
                images.extend(self.oci_image(&descriptor, None, INDEX_DEPTH_MAX)?);
            }
            return Ok(images);
        }
        Err(ImageError::Malformed("neither manifest.json nor index.json is in the archive".into()))
    }

    fn docker_image(&self, image: DockerImage) -> Result<ArchivedImage, ImageError> {
        let config = read(self.member(&image.config)?)?;
        let layers =
            image.layers.iter().map(|layer| self.member(layer).cloned()).collect::<Result<Vec<_>, _>>()?;
        archived(config, layers, image.repo_tags.unwrap_or_default(), None)
    }

    fn oci_image(
        &self,
        descriptor: &Descriptor,
        name: Option<String>,
        depth: usize,
    ) -> Result<Option<ArchivedImage>, ImageError> {
        let annotated = descriptor.annotations.as_ref().and_then(|annotations| {
            annotations
                .get("io.containerd.image.name")
                .or_else(|| {
                    annotations.get("org.opencontainers.image.ref.name").filter(|name| name.contains(':'))
                })
                .cloned()
        });
        let name = annotated.or(name);
        let blob = self.blob(&descriptor.digest)?;
        let is_index =
            descriptor.media_type.contains("index") || descriptor.media_type.contains("manifest.list");
        if is_index {
            if depth == 0 {
                return Err(ImageError::Malformed("indexes are nested too deeply".into()));
            }
            let index: Index = parse(&blob, "an index")?;
            let fits = |candidate: &&Descriptor| {
                candidate.platform.as_ref().is_none_or(|platform| {
                    platform.os == "linux" && platform.architecture == native_architecture()
                })
            };
            // Archives are often thinned out: an image that is listed but not there is not an error.
            let found = index
                .manifests
                .iter()
                .filter(fits)
                .find(|candidate| self.blob_path(&candidate.digest).is_some());
            return match found {
                Some(manifest) => self.oci_image(manifest, name, depth - 1),
                None => Ok(None),
            };
        }
        let manifest: Manifest = parse(&blob, "a manifest")?;
        let config = self.blob(&manifest.config.digest)?;
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let path = self.blob_path(&layer.digest);
            layers.push(path.cloned().ok_or_else(|| missing(&layer.digest))?);
        }
        archived(config, layers, name.into_iter().collect(), Some(descriptor.digest.clone())).map(Some)
    }

    fn member(&self, name: &str) -> Result<&PathBuf, ImageError> {
        self.0.get(&tidy(name)).ok_or_else(|| missing(name))
    }

    fn blob_path(&self, digest: &str) -> Option<&PathBuf> {
        self.0.get(&format!("blobs/{}", digest.replacen(':', "/", 1)))
    }

    fn blob(&self, wanted: &str) -> Result<Vec<u8>, ImageError> {
        let content = read(self.blob_path(wanted).ok_or_else(|| missing(wanted))?)?;
        let actual = digest(&content);
        if actual == wanted {
            Ok(content)
        } else {
            Err(ImageError::Digest { expected: wanted.into(), actual })
        }
    }
}

fn archived(
    config: Vec<u8>,
    layers: Vec<PathBuf>,
    tags: Vec<String>,
    manifest_digest: Option<String>,
) -> Result<ArchivedImage, ImageError> {
    let diff_ids = ImageConfig::parse(&config)?.rootfs.diff_ids;
    if diff_ids.len() != layers.len() {
        return Err(ImageError::Malformed(format!("{} layers for {} digests", layers.len(), diff_ids.len())));
    }
    let mut size_bytes = config.len() as u64;
    for layer in &layers {
        size_bytes += fs::metadata(layer).map_err(ImageError::io("reading a layer"))?.len();
    }
    Ok(ArchivedImage {
        config,
        layers: layers.into_iter().zip(diff_ids).collect(),
        tags,
        manifest_digest,
        size_bytes,
    })
}

fn missing(name: &str) -> ImageError {
    ImageError::Malformed(format!("{name} is not in the archive"))
}

/// Configurations and manifests are small; more than this is no such thing.
const JSON_BYTES_MAX: u64 = 8 * 1024 * 1024;

fn read(path: &PathBuf) -> Result<Vec<u8>, ImageError> {
    let mut content = Vec::new();
    let file = File::open(path).map_err(ImageError::io("reading the archive"))?;
    file.take(JSON_BYTES_MAX).read_to_end(&mut content).map_err(ImageError::io("reading the archive"))?;
    Ok(content)
}

fn parse<T: serde::de::DeserializeOwned>(json: &[u8], what: &str) -> Result<T, ImageError> {
    serde_json::from_slice(json).map_err(|error| ImageError::Malformed(format!("{what}: {error}")))
}

fn tidy(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// This machine's architecture as images name it.
pub(super) fn native_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
