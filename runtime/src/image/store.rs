//! The images and layers of this node.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{
    ImageConfig, ImageError,
    config::digest,
    layer, normalize,
    pull::Registries,
    reader::{Digesting, unpacked},
};

/// One image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// The digest of its configuration.
    pub id: String,
    /// Normal references with tags.
    pub tags: BTreeSet<String>,
    /// Repositories with digests of manifests.
    pub digests: BTreeSet<String>,
    /// The chain identifiers of its layers, lowest first.
    pub chains: Vec<String>,
    pub size_bytes: u64,
    pub config: ImageConfig,
}

/// A layer to be imported: where its packed bytes are, and the digest of its unpacked bytes.
pub(super) struct PackedLayer {
    pub(super) path: PathBuf,
    pub(super) diff_id: String,
}

#[derive(Debug)]
pub(crate) struct ImageStore {
    root: PathBuf,
    pub(super) registries: Registries,
    images: RwLock<HashMap<String, Arc<ImageRecord>>>,
    /// Held for reading while layers are imported, for writing while unused ones are removed.
    collecting: tokio::sync::RwLock<()>,
    /// One lock for each pull or layer under way, so that nothing is fetched or unpacked twice at once.
    busy: parking_lot::Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

impl ImageStore {
    /// Opens the store, throwing away what a crash left half done.
    pub(crate) fn open(root: &Path, registries: Registries) -> Result<Self, ImageError> {
        for directory in ["images", "layers", "ingest"] {
            fs::create_dir_all(root.join(directory))
                .map_err(ImageError::io(format!("making {directory}")))?;
        }
        for entry in fs::read_dir(root.join("ingest")).map_err(ImageError::io("reading ingest"))? {
            let path = entry.map_err(ImageError::io("reading ingest"))?.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(ImageError::io("emptying ingest"))?;
        }
        let store = Self {
            root: root.to_owned(),
            registries,
            images: RwLock::default(),
            collecting: tokio::sync::RwLock::new(()),
            busy: parking_lot::Mutex::default(),
        };
        store.read_records()?;
        Ok(store)
    }

    fn read_records(&self) -> Result<(), ImageError> {
        let mut images = self.images.write();
        for entry in fs::read_dir(self.root.join("images")).map_err(ImageError::io("reading images"))? {
            let path = entry.map_err(ImageError::io("reading images"))?.path();
            let record = fs::read(&path).map_err(ImageError::io(format!("reading {}", path.display())))?;
            match serde_json::from_slice::<ImageRecord>(&record) {
                Ok(record) if record.chains.iter().all(|chain| self.layer_directory(chain).exists()) => {
                    images.insert(record.id.clone(), Arc::new(record));
                }
                Ok(record) => tracing::warn!(image = record.id, "forgetting an image whose layers are gone"),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "forgetting an unreadable image record")
                }
            }
        }
        Ok(())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// All images.
    pub(crate) fn list(&self) -> Vec<Arc<ImageRecord>> {
        self.images.read().values().cloned().collect()
    }

    /// Finds an image by its identifier, a tag or a digest.
    pub(crate) fn find(&self, reference: &str) -> Option<Arc<ImageRecord>> {
        let images = self.images.read();
        if let Some(image) = images.get(reference).or_else(|| images.get(&format!("sha256:{reference}"))) {
            return Some(Arc::clone(image));
        }
        let parsed = normalize(reference).ok()?;
        let by_digest =
            parsed.digest().map(|digest| format!("{}/{}@{digest}", parsed.registry(), parsed.repository()));
        let whole = parsed.whole();
        images
            .values()
            .find(|image| match &by_digest {
                Some(digest) => image.digests.contains(digest),
                None => image.tags.contains(&whole),
            })
            .cloned()
    }

    /// The unpacked layers of an image, top one first, as overlayfs wants them.
    pub(crate) fn layer_directories(&self, chains: &[String]) -> Vec<PathBuf> {
        chains.iter().rev().map(|chain| self.layer_directory(chain)).collect()
    }

    fn layer_directory(&self, chain: &str) -> PathBuf {
        // Short, because the paths of all layers have to fit into one page when they are mounted.
        let hex = chain.trim_start_matches("sha256:");
        self.root.join("layers").join(hex.get(..16).unwrap_or(hex))
    }

    /// As long as this is held, no layer is removed.
    pub(crate) async fn keep_layers(&self) -> tokio::sync::RwLockReadGuard<'_, ()> {
        self.collecting.read().await
    }

    /// A fresh directory for things on their way.
    pub(super) fn ingest_directory(&self) -> Result<IngestDirectory, ImageError> {
        let path = self.root.join("ingest").join(hex::encode(rand::random::<[u8; 8]>()));
        fs::create_dir(&path).map_err(ImageError::io("making an ingest directory"))?;
        Ok(IngestDirectory(path))
    }

    /// Serialises work under a name: a pull of one reference, the unpacking of one layer.
    pub(super) async fn exclusive(&self, name: &str) -> BusyGuard<'_> {
        let lock = Arc::clone(self.busy.lock().entry(name.to_owned()).or_default());
        let held = Arc::clone(&lock).lock_owned().await;
        BusyGuard { store: self, name: name.to_owned(), held: Some(held) }
    }

    /// Unpacks the layers that are not there yet and records the image.
    pub(super) async fn import(
        &self,
        config: &[u8],
        layers: Vec<PackedLayer>,
        names: Names,
        size_bytes: u64,
    ) -> Result<Arc<ImageRecord>, ImageError> {
        let parsed = ImageConfig::parse(config)?;
        let chains = parsed.chain_ids();
        if chains.len() != layers.len() {
            return Err(ImageError::Malformed(format!(
                "{} layers for {} digests",
                layers.len(),
                chains.len()
            )));
        }
        let importing = self.collecting.read().await;
        for (index, layer) in layers.into_iter().enumerate() {
            let below = chains.get(..index).unwrap_or_default();
            let chain = chains.get(index).cloned().unwrap_or_default();
            self.import_layer(layer, &chain, self.layer_directories(below)).await?;
        }
        let record = ImageRecord {
            id: digest(config),
            tags: names.tag.into_iter().collect(),
            digests: names.digests.into_iter().collect(),
            chains,
            size_bytes,
            config: parsed,
        };
        let recorded = self.record(record);
        drop(importing);
        recorded
    }

    /// Whether a layer is here already.
    pub(super) fn has_layer(&self, chain: &str) -> bool {
        self.layer_directory(chain).exists()
    }

    async fn import_layer(
        &self,
        layer: PackedLayer,
        chain: &str,
        below: Vec<PathBuf>,
    ) -> Result<(), ImageError> {
        let target = self.layer_directory(chain);
        let _busy = self.exclusive(chain).await;
        if target.exists() {
            return Ok(());
        }
        let temporary = self.ingest_directory()?;
        let work = temporary.0.join("fs");
        let unpacking = tokio::task::spawn_blocking(move || {
            fs::create_dir(&work).map_err(ImageError::io("making a layer"))?;
            let file = fs::File::open(&layer.path).map_err(ImageError::io("opening a layer"))?;
            let reader = unpacked(file).map_err(ImageError::io("reading a layer"))?;
            let mut reader = Digesting::new(reader);
            layer::unpack(&mut reader, &work, &below)?;
            let actual = reader.finish().map_err(ImageError::io("reading a layer"))?;
            if actual != layer.diff_id {
                return Err(ImageError::Digest { expected: layer.diff_id, actual });
            }
            nix::unistd::syncfs(fs::File::open(&work).map_err(ImageError::io("syncing a layer"))?)
                .map_err(|error| ImageError::Io("syncing a layer".into(), error.into()))?;
            match fs::rename(&work, &target) {
                // Unpacked meanwhile on behalf of a pull that was given up.
                Err(_) if target.exists() => Ok(()),
                placed => placed.map_err(ImageError::io("placing a layer")),
            }
        });
        unpacking.await.map_err(|error| ImageError::Io("unpacking".into(), io::Error::other(error)))?
    }

    /// Adds a record, or the names of an equal one; a tag that moves leaves its old image.
    fn record(&self, mut record: ImageRecord) -> Result<Arc<ImageRecord>, ImageError> {
        let mut images = self.images.write();
        if let Some(known) = images.get(&record.id) {
            record.tags.extend(known.tags.iter().cloned());
            record.digests.extend(known.digests.iter().cloned());
            record.size_bytes = record.size_bytes.max(known.size_bytes);
        }
        let losers: Vec<_> = images
            .values()
            .filter(|image| image.id != record.id && !image.tags.is_disjoint(&record.tags))
            .cloned()
            .collect();
        for loser in losers {
            let mut loser = ImageRecord::clone(&loser);
            loser.tags = loser.tags.difference(&record.tags).cloned().collect();
            self.write(&loser)?;
            images.insert(loser.id.clone(), Arc::new(loser));
        }
        self.write(&record)?;
        let record = Arc::new(record);
        images.insert(record.id.clone(), Arc::clone(&record));
        Ok(record)
    }

    fn write(&self, record: &ImageRecord) -> Result<(), ImageError> {
        let path = self.record_path(&record.id);
        let json =
            serde_json::to_vec(record).map_err(|error| ImageError::Io("encoding".into(), error.into()))?;
        crate::files::write_atomically(&path, &json)
            .map_err(ImageError::io(format!("writing {}", path.display())))
    }

    fn record_path(&self, id: &str) -> PathBuf {
        self.root.join("images").join(format!("{}.json", id.trim_start_matches("sha256:")))
    }

    /// Removes an image with all its names. Its layers go when no image and no container (`in_use`) needs them.
    pub(crate) async fn remove(&self, reference: &str, in_use: BTreeSet<String>) -> Result<(), ImageError> {
        let Some(image) = self.find(reference) else { return Ok(()) };
        let path = self.record_path(&image.id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ImageError::Io(format!("removing {}", path.display()), error));
            }
            _ => self.images.write().remove(&image.id),
        };
        self.collect(in_use).await
    }

    /// Removes layers that nothing needs. An import under way postpones this to the next time.
    pub(crate) async fn collect(&self, mut in_use: BTreeSet<String>) -> Result<(), ImageError> {
        let Ok(_collecting) = self.collecting.try_write() else { return Ok(()) };
        in_use.extend(self.list().iter().flat_map(|image| image.chains.iter().cloned()));
        let wanted: BTreeSet<PathBuf> = in_use.iter().map(|chain| self.layer_directory(chain)).collect();
        let layers = self.root.join("layers");
        let trash = self.ingest_directory()?;
        let doomed_layers = trash.0.clone();
        let collecting = tokio::task::spawn_blocking(move || {
            for entry in fs::read_dir(&layers).map_err(ImageError::io("reading layers"))? {
                let entry = entry.map_err(ImageError::io("reading layers"))?;
                if !wanted.contains(&entry.path()) {
                    // Out of the way first: a half removed layer must never be taken for a whole one.
                    let doomed = doomed_layers.join(entry.file_name());
                    fs::rename(entry.path(), &doomed).map_err(ImageError::io("removing a layer"))?;
                }
            }
            fs::remove_dir_all(&doomed_layers).map_err(ImageError::io("removing layers"))
        });
        collecting.await.map_err(|error| ImageError::Io("removing layers".into(), io::Error::other(error)))?
    }
}

/// The names that an image gets when it is imported.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) tag: Option<String>,
    pub(super) digests: Vec<String>,
}

/// Holds a name in [`ImageStore::exclusive`].
pub(super) struct BusyGuard<'a> {
    store: &'a ImageStore,
    name: String,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for BusyGuard<'_> {
    fn drop(&mut self) {
        let mut busy = self.store.busy.lock();
        self.held = None;
        // The last one forgets the name; a waiter holds a reference of its own.
        if busy.get(&self.name).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            busy.remove(&self.name);
        }
    }
}

/// A directory that goes when it is not needed any more, also when the work in it is given up.
pub(super) struct IngestDirectory(pub(super) PathBuf);

impl Drop for IngestDirectory {
    fn drop(&mut self) {
        if let Err(error) = crate::files::remove_tree(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "leaving something behind until the next start");
        }
    }
}
