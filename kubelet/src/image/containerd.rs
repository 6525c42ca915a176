//! Takes archives into an outside containerd: blob by blob into its content store, under a lease, then the image's name.
//! Works with every containerd since 1.3; the CRI side sees the image as soon as containerd told it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{
    CreateImageRequest, CreateRequest, DeleteRequest, Image, UpdateImageRequest, WriteAction,
    WriteContentRequest,
};
use containerd_client::types::Descriptor as Target;
use k8s_cri::v1::ImageSpec;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::SyncIoBridge;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::archive::{ArchivedImage, Content, Descriptor, Members};
use super::{Archive, ImageLoader, LoadError};
use crate::cri::Cri;

/// Where CRI keeps its images.
const NAMESPACE: &str = "k8s.io";
const CHUNK_BYTES: usize = 1 << 20;
/// A lease that nobody removed goes by itself.
const LEASE_LIFE: jiff::SignedDuration = jiff::SignedDuration::from_mins(30);
/// How long containerd may take to tell its CRI side of an image.
const PATIENCE: Duration = Duration::from_secs(5);

/// Loads into a containerd.
pub struct ContainerdLoader {
    endpoint: String,
    scratch: PathBuf,
}

impl ContainerdLoader {
    /// The containerd at this socket; archives are unpacked under `scratch` on their way.
    pub fn new(endpoint: impl Into<String>, scratch: impl Into<PathBuf>) -> Self {
        Self { endpoint: endpoint.into(), scratch: scratch.into() }
    }

    async fn store(&self, images: Vec<ArchivedImage>) -> Result<Vec<String>, LoadError> {
        let path = self.endpoint.strip_prefix("unix://").unwrap_or(&self.endpoint);
        let channel = containerd_client::connect(path).await.map_err(failed)?;
        let lease = format!("gantry-load-{}", uuid::Uuid::new_v4().simple());
        let expires = jiff::Timestamp::now().saturating_add(LEASE_LIFE).map_err(failed)?;
        let request = CreateRequest {
            id: lease.clone(),
            labels: HashMap::from([("containerd.io/gc.expire".to_string(), expires.to_string())]),
        };
        LeasesClient::new(channel.clone()).create(in_namespace(request, None)?).await.map_err(failed)?;
        let stored = store_images(&channel, &lease, images).await;
        let request = in_namespace(DeleteRequest { id: lease, sync: false }, None)?;
        if let Err(error) = LeasesClient::new(channel).delete(request).await {
            tracing::debug!(%error, "a lease stays until it expires");
        }
        let names = stored?;
        self.wait_until_seen(&names).await;
        Ok(names)
    }

    async fn wait_until_seen(&self, names: &[String]) {
        let cri = Cri::new(&self.endpoint, None);
        let began = std::time::Instant::now();
        for name in names {
            let spec = ImageSpec { image: name.clone(), ..ImageSpec::default() };
            while began.elapsed() < PATIENCE {
                if matches!(cri.image_status(spec.clone()).await, Ok(Some(_))) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

#[async_trait::async_trait]
impl ImageLoader for ContainerdLoader {
    async fn load(&self, archive: Archive) -> Result<Vec<String>, LoadError> {
        let directory = self.scratch.join(format!("load-{}", uuid::Uuid::new_v4().simple()));
        tokio::fs::create_dir_all(&directory).await.map_err(failed)?;
        let unpacking = directory.clone();
        let reader = SyncIoBridge::new(archive);
        let read = tokio::task::spawn_blocking(move || Members::read(reader, &unpacking)?.images()).await;
        let result = match read {
            Ok(Ok(images)) => self.store(images).await,
            Ok(Err(error)) => Err(error),
            Err(error) => Err(failed(error)),
        };
        if let Err(error) = tokio::fs::remove_dir_all(&directory).await {
            tracing::warn!(path = %directory.display(), %error, "an unpacked archive stays");
        }
        result
    }
}

fn failed(error: impl std::fmt::Display) -> LoadError {
    LoadError::Store(error.to_string())
}

fn in_namespace<T>(message: T, lease: Option<&str>) -> Result<Request<T>, LoadError> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("containerd-namespace", NAMESPACE.parse().map_err(failed)?);
    if let Some(lease) = lease {
        metadata.insert("containerd-lease", lease.parse().map_err(failed)?);
    }
    Ok(request)
}

async fn store_images(
    channel: &Channel,
    lease: &str,
    images: Vec<ArchivedImage>,
) -> Result<Vec<String>, LoadError> {
    let mut names = Vec::new();
    for image in images {
        for (descriptor, content) in &image.blobs {
            let labels =
                if descriptor.digest == image.manifest.digest { references(&image) } else { HashMap::new() };
            write_blob(channel, lease, descriptor, content, labels).await?;
        }
        let own_names =
            if image.names.is_empty() { vec![image.manifest.digest.clone()] } else { image.names.clone() };
        for name in own_names {
            name_image(channel, lease, &name, &image.manifest).await?;
            names.push(name);
        }
    }
    Ok(names)
}

/// What keeps containerd from collecting the blobs that the manifest needs.
fn references(image: &ArchivedImage) -> HashMap<String, String> {
    let others = image.blobs.iter().filter(|(blob, _)| blob.digest != image.manifest.digest);
    let mut labels = HashMap::new();
    for (index, (blob, _)) in others.enumerate() {
        let label = if index == 0 {
            "containerd.io/gc.ref.content.config".to_string()
        } else {
            format!("containerd.io/gc.ref.content.l.{}", index - 1)
        };
        labels.insert(label, blob.digest.clone());
    }
    labels
}

async fn write_blob(
    channel: &Channel,
    lease: &str,
    descriptor: &Descriptor,
    content: &Content,
    labels: HashMap<String, String>,
) -> Result<(), LoadError> {
    let total = i64::try_from(descriptor.size).map_err(failed)?;
    let first = WriteContentRequest {
        action: WriteAction::Stat.into(),
        r#ref: format!("gantry-{}", descriptor.digest),
        total,
        expected: descriptor.digest.clone(),
        ..WriteContentRequest::default()
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    sender.send(first.clone()).await.map_err(failed)?;
    let mut client = ContentClient::new(channel.clone());
    let mut replies = match client.write(in_namespace(requests, Some(lease))?).await {
        Ok(reply) => reply.into_inner(),
        Err(status) if status.code() == Code::AlreadyExists => return Ok(()),
        Err(status) => return Err(failed(status)),
    };
    let mut offset = match replies.message().await {
        // What an earlier attempt left is gone on with.
        Ok(reply) => reply.map_or(0, |reply| reply.offset),
        Err(status) if status.code() == Code::AlreadyExists => return Ok(()),
        Err(status) => return Err(failed(status)),
    };
    let sending = async {
        let mut source = Source::open(content, offset).await?;
        loop {
            let data = source.next().await?;
            let is_last = offset + i64::try_from(data.len()).unwrap_or(0) >= total || data.is_empty();
            let action = if is_last { WriteAction::Commit } else { WriteAction::Write };
            let labels = if is_last { labels.clone() } else { HashMap::new() };
            let length = i64::try_from(data.len()).map_err(failed)?;
            let request =
                WriteContentRequest { action: action.into(), offset, data, labels, ..first.clone() };
            if sender.send(request).await.is_err() || is_last {
                return Ok::<(), LoadError>(());
            }
            offset += length;
        }
    };
    let receiving = async {
        loop {
            match replies.message().await {
                Ok(Some(reply)) if reply.action() == WriteAction::Commit => return Ok(()),
                Ok(Some(_)) => {}
                Ok(None) => return Err(failed("containerd closed the stream before the end")),
                Err(status) if status.code() == Code::AlreadyExists => return Ok(()),
                Err(status) => return Err(failed(status)),
            }
        }
    };
    let (sent, received) = tokio::join!(sending, receiving);
    sent.and(received)
}

/// A blob's content, piece by piece.
enum Source {
    File(tokio::fs::File),
    Bytes(Vec<u8>, usize),
}

impl Source {
    async fn open(content: &Content, offset: i64) -> Result<Self, LoadError> {
        let offset = u64::try_from(offset).map_err(failed)?;
        match content {
            Content::Bytes(bytes) => Ok(Self::Bytes(bytes.clone(), usize::try_from(offset).map_err(failed)?)),
            Content::File(path) => {
                let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
                file.seek(std::io::SeekFrom::Start(offset)).await.map_err(failed)?;
                Ok(Self::File(file))
            }
        }
    }

    async fn next(&mut self) -> Result<Vec<u8>, LoadError> {
        match self {
            Self::Bytes(bytes, at) => {
                let rest = bytes.get(*at..).unwrap_or_default();
                let piece = rest.get(..CHUNK_BYTES).unwrap_or(rest).to_vec();
                *at += piece.len();
                Ok(piece)
            }
            Self::File(file) => {
                let mut piece = Vec::with_capacity(CHUNK_BYTES);
                file.take(CHUNK_BYTES as u64).read_to_end(&mut piece).await.map_err(failed)?;
                Ok(piece)
            }
        }
    }
}

async fn name_image(
    channel: &Channel,
    lease: &str,
    name: &str,
    manifest: &Descriptor,
) -> Result<(), LoadError> {
    let image = Image {
        name: name.to_string(),
        target: Some(Target {
            media_type: manifest.media_type.clone(),
            digest: manifest.digest.clone(),
            size: i64::try_from(manifest.size).map_err(failed)?,
            ..Target::default()
        }),
        ..Image::default()
    };
    let mut client = ImagesClient::new(channel.clone());
    let request = CreateImageRequest { image: Some(image.clone()), ..CreateImageRequest::default() };
    match client.create(in_namespace(request, Some(lease))?).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::AlreadyExists => {
            let request = UpdateImageRequest { image: Some(image), ..UpdateImageRequest::default() };
            client.update(in_namespace(request, Some(lease))?).await.map(|_| ()).map_err(failed)
        }
        Err(status) => Err(failed(status)),
    }
}
