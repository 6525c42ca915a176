//! Reads image archives for runtimes that take single blobs: what `docker save` writes, and OCI layouts.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::LoadError;

/// JSON documents of an image are no larger.
const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
const INDEX_DEPTH_MAX: usize = 4;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What a document says of a blob.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Its kind.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its length.
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<Value>,
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    annotations: HashMap<String, String>,
}

/// A blob's content.
#[derive(Clone, Debug)]
pub enum Content {
    /// In a file.
    File(PathBuf),
    /// In memory.
    Bytes(Vec<u8>),
}

/// An image: its manifest last, after all it refers to.
#[derive(Clone, Debug)]
pub struct ArchivedImage {
    /// Its names, with registry and tag.
    pub names: Vec<String>,
    /// The manifest.
    pub manifest: Descriptor,
    /// Config, layers and the manifest itself.
    pub blobs: Vec<(Descriptor, Content)>,
}

fn malformed(error: impl std::fmt::Display) -> LoadError {
    LoadError::Malformed(error.to_string())
}

fn store(error: impl std::fmt::Display) -> LoadError {
    LoadError::Store(error.to_string())
}

/// An archive's members, unpacked under names of our own.
pub struct Members {
    files: HashMap<String, PathBuf>,
}

impl Members {
    /// Reads an archive, plain or gzipped, to its end.
    pub fn read(archive: impl Read, directory: &Path) -> Result<Self, LoadError> {
        let mut archive = BufReader::new(archive);
        let magic = io::BufRead::fill_buf(&mut archive).map_err(malformed)?;
        let plain: Box<dyn Read> = if magic.starts_with(&[0x1f, 0x8b]) {
            Box::new(flate2::read::MultiGzDecoder::new(archive))
        } else {
            Box::new(archive)
        };
        let mut tar = tar::Archive::new(plain);
        let mut files: HashMap<String, PathBuf> = HashMap::new();
        let mut links = Vec::new();
        for (index, entry) in tar.entries().map_err(malformed)?.enumerate() {
            let mut entry = entry.map_err(malformed)?;
            let path =
                entry.path().map_err(malformed)?.to_string_lossy().trim_start_matches("./").to_string();
            let kind = entry.header().entry_type();
            if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name().map_err(malformed)?.unwrap_or_default();
                let target = if kind.is_symlink() {
                    Path::new(&path).parent().unwrap_or(Path::new("")).join(target)
                } else {
                    target.into_owned()
                };
                links.push((path, clean(&target)));
            } else if kind.is_file() {
                let target = directory.join(index.to_string());
                let mut file = File::create(&target).map_err(store)?;
                io::copy(&mut entry, &mut file).map_err(store)?;
                files.insert(path, target);
            }
        }
        for (path, target) in links {
            if let Some(file) = files.get(&target).cloned() {
                files.insert(path, file);
            }
        }
        Ok(Self { files })
    }

    fn file(&self, name: &str) -> Result<&PathBuf, LoadError> {
        self.files.get(name).ok_or_else(|| malformed(format!("{name} is missing")))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, LoadError> {
        let file = File::open(self.file(name)?).map_err(store)?;
        let mut content = Vec::new();
        file.take(DOCUMENT_BYTES_MAX).read_to_end(&mut content).map_err(store)?;
        Ok(content)
    }

    fn blob_name(digest: &str) -> String {
        format!("blobs/{}", digest.replacen(':', "/", 1))
    }

    /// The archive's images.
    pub fn images(&self) -> Result<Vec<ArchivedImage>, LoadError> {
        let images = if self.files.contains_key("manifest.json") {
            self.docker_images()?
        } else if self.files.contains_key("index.json") {
            self.oci_images()?
        } else {
            return Err(malformed("neither manifest.json nor index.json is in it"));
        };
        if images.is_empty() {
            return Err(malformed("it holds no image for this machine"));
        }
        Ok(images)
    }

    fn docker_images(&self) -> Result<Vec<ArchivedImage>, LoadError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry {
            config: String,
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let entries: Vec<Entry> =
            serde_json::from_slice(&self.document("manifest.json")?).map_err(malformed)?;
        let mut images = Vec::new();
        for entry in entries {
            let config = describe(self.file(&entry.config)?, CONFIG)?;
            let mut blobs = vec![(config.clone(), Content::File(self.file(&entry.config)?.clone()))];
            let mut layers = Vec::new();
            for name in &entry.layers {
                let file = self.file(name)?;
                let kind = if is_gzip(file)? { format!("{LAYER}+gzip") } else { LAYER.to_string() };
                let layer = describe(file, &kind)?;
                layers.push(layer.clone());
                blobs.push((layer, Content::File(file.clone())));
            }
            let manifest =
                json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
            let bytes = serde_json::to_vec(&manifest).map_err(malformed)?;
            let manifest = describe_bytes(&bytes, MANIFEST);
            blobs.push((manifest.clone(), Content::Bytes(bytes)));
            let names = entry.repo_tags.unwrap_or_default().iter().map(|name| full_name(name)).collect();
            images.push(ArchivedImage { names, manifest, blobs });
        }
        Ok(images)
    }

    fn oci_images(&self) -> Result<Vec<ArchivedImage>, LoadError> {
        let index: Value = serde_json::from_slice(&self.document("index.json")?).map_err(malformed)?;
        let mut images = Vec::new();
        for descriptor in descriptors(&index, "manifests")? {
            let name = ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
                .iter()
                .find_map(|key| descriptor.annotations.get(*key))
                .map(|name| full_name(name));
            if let Some(manifest) = self.for_this_machine(&descriptor, 0)? {
                images.push(self.oci_image(manifest, name)?);
            }
        }
        Ok(images)
    }

    /// The manifest behind a descriptor, through indexes.
    fn for_this_machine(
        &self,
        descriptor: &Descriptor,
        depth: usize,
    ) -> Result<Option<Descriptor>, LoadError> {
        if !descriptor.media_type.contains("index") && !descriptor.media_type.contains("manifest.list") {
            return Ok(Some(descriptor.clone()));
        }
        if depth >= INDEX_DEPTH_MAX {
            return Err(malformed("indexes nest too deep"));
        }
        let index = self.document(&Self::blob_name(&descriptor.digest))?;
        let index: Value = serde_json::from_slice(&index).map_err(malformed)?;
        let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        for inner in descriptors(&index, "manifests")? {
            let architecture =
                inner.platform.as_ref().and_then(|p| p.get("architecture")).and_then(Value::as_str);
            if architecture.is_none_or(|architecture| architecture == machine) {
                return self.for_this_machine(&inner, depth + 1);
            }
        }
        Ok(None)
    }

    fn oci_image(&self, manifest: Descriptor, name: Option<String>) -> Result<ArchivedImage, LoadError> {
        let bytes = self.document(&Self::blob_name(&manifest.digest))?;
        let parsed: Value = serde_json::from_slice(&bytes).map_err(malformed)?;
        let config = parsed.get("config").cloned().ok_or_else(|| malformed("a manifest without config"))?;
        let mut wanted: Vec<Descriptor> = vec![serde_json::from_value(config).map_err(malformed)?];
        wanted.extend(descriptors(&parsed, "layers")?);
        let mut blobs = Vec::new();
        for descriptor in wanted {
            let file = self.file(&Self::blob_name(&descriptor.digest))?.clone();
            blobs.push((descriptor, Content::File(file)));
        }
        blobs.push((manifest.clone(), Content::Bytes(bytes)));
        Ok(ArchivedImage { names: name.into_iter().collect(), manifest, blobs })
    }
}

fn descriptors(document: &Value, list: &str) -> Result<Vec<Descriptor>, LoadError> {
    let list = document.get(list).cloned().unwrap_or_else(|| json!([]));
    serde_json::from_value(list).map_err(malformed)
}

fn clean(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                parts.pop();
            }
            std::path::Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            _ => {}
        }
    }
    parts.join("/")
}

fn is_gzip(path: &Path) -> Result<bool, LoadError> {
    let mut magic = [0_u8; 2];
    let read = File::open(path).and_then(|mut file| file.read(&mut magic)).map_err(store)?;
    Ok(read == 2 && magic == [0x1f, 0x8b])
}

fn describe(path: &Path, media_type: &str) -> Result<Descriptor, LoadError> {
    let mut hasher = HashingSink(Sha256::new());
    let size = File::open(path).and_then(|mut file| io::copy(&mut file, &mut hasher)).map_err(store)?;
    Ok(descriptor(hasher.0, size, media_type))
}

fn describe_bytes(bytes: &[u8], media_type: &str) -> Descriptor {
    descriptor(Sha256::new_with_prefix(bytes), bytes.len() as u64, media_type)
}

fn descriptor(hash: Sha256, size: u64, media_type: &str) -> Descriptor {
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Descriptor {
        media_type: media_type.to_string(),
        digest: format!("sha256:{hex}"),
        size,
        platform: None,
        annotations: HashMap::new(),
    }
}

struct HashingSink(Sha256);

impl Write for HashingSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A name as runtimes keep it: with registry, path and tag.
fn full_name(name: &str) -> String {
    let with_host = match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_string(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    };
    let last = with_host.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) { with_host } else { format!("{with_host}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_get_dockers_registry_and_tag() {
        assert_eq!(full_name("web:v1"), "docker.io/library/web:v1");
        assert_eq!(full_name("a/web"), "docker.io/a/web:latest");
        assert_eq!(full_name("localhost:5000/web"), "localhost:5000/web:latest");
    }
}
