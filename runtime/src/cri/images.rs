//! The image half of the interface.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_cri::v1::{
    AuthConfig, FilesystemIdentifier, FilesystemUsage, Image, ImageFsInfoRequest, ImageFsInfoResponse,
    ImageSpec, ImageStatusRequest, ImageStatusResponse, Int64Value, ListImagesRequest, ListImagesResponse,
    PullImageRequest, PullImageResponse, RemoveImageRequest, RemoveImageResponse, UInt64Value,
    image_service_server::ImageService,
};
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

use crate::{
    engine::{Engine, blocking},
    error::Error,
    image::{Credentials, ImageRecord},
    time, usage,
};

/// Walking all layers takes a while; the answer changes slowly.
const USAGE_LIFETIME: Duration = Duration::from_secs(120);

pub(crate) struct ImageApi {
    engine: Arc<Engine>,
    usage: Mutex<Option<(Instant, ImageFsInfoResponse)>>,
}

impl ImageApi {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, usage: Mutex::new(None) }
    }
}

#[tonic::async_trait]
impl ImageService for ImageApi {
    async fn list_images(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let wanted = request.into_inner().filter.and_then(|filter| filter.image).map(|image| image.image);
        let images = match wanted.filter(|wanted| !wanted.is_empty()) {
            Some(wanted) => self.engine.images.find(&wanted).into_iter().collect(),
            None => self.engine.images.list(),
        };
        Ok(Response::new(ListImagesResponse { images: images.iter().map(|image| describe(image)).collect() }))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let wanted = request.into_inner().image.unwrap_or_default().image;
        let image = self.engine.images.find(&wanted).map(|image| describe(&image));
        Ok(Response::new(ImageStatusResponse { image, info: Default::default() }))
    }

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<PullImageResponse>, Status> {
        let request = request.into_inner();
        let wanted = request.image.unwrap_or_default().image;
        let credentials = request.auth.map(credentials).transpose()?.flatten();
        let image = self.engine.images.pull(&wanted, credentials).await.map_err(Error::from)?;
        tracing::info!(image = wanted, id = image.id, "image pulled");
        Ok(Response::new(PullImageResponse { image_ref: image.id.clone() }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let wanted = request.into_inner().image.unwrap_or_default().image;
        self.engine.images.remove(&wanted, self.engine.layers_in_use()).await.map_err(Error::from)?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        let known = self.usage.lock().clone();
        if let Some((_, response)) = known.filter(|(at, _)| at.elapsed() < USAGE_LIFETIME) {
            return Ok(Response::new(response));
        }
        let root = self.engine.images.root().to_owned();
        let response = blocking("measuring the images", move || {
            let measure = |directory: &str| {
                let used = usage::of_tree(&root.join(directory))?;
                Ok::<_, std::io::Error>(FilesystemUsage {
                    timestamp: time::now(),
                    fs_id: Some(FilesystemIdentifier { mountpoint: root.display().to_string() }),
                    used_bytes: Some(UInt64Value { value: used.bytes }),
                    inodes_used: Some(UInt64Value { value: used.inodes }),
                })
            };
            Ok(ImageFsInfoResponse {
                image_filesystems: vec![measure("layers")?],
                container_filesystems: vec![measure("containers")?],
            })
        })
        .await?;
        *self.usage.lock() = Some((Instant::now(), response.clone()));
        Ok(Response::new(response))
    }
}

fn describe(image: &ImageRecord) -> Image {
    let user = image.config.config.user.split(':').next().unwrap_or_default();
    let uid = user.parse().ok().map(|value| Int64Value { value });
    Image {
        id: image.id.clone(),
        repo_tags: image.tags.iter().cloned().collect(),
        repo_digests: image.digests.iter().cloned().collect(),
        size: image.size_bytes,
        username: if uid.is_none() { user.to_owned() } else { String::new() },
        uid,
        spec: Some(ImageSpec { image: image.id.clone(), ..ImageSpec::default() }),
        pinned: false,
    }
}

fn credentials(auth: AuthConfig) -> Result<Option<Credentials>, Status> {
    if !auth.registry_token.is_empty() {
        return Ok(Some(Credentials::Bearer(auth.registry_token)));
    }
    if !auth.username.is_empty() {
        return Ok(Some(Credentials::Basic(auth.username, auth.password)));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let malformed = || Status::invalid_argument("the registry credentials are malformed");
    let decoded = STANDARD.decode(auth.auth.trim()).map_err(|_| malformed())?;
    let decoded = String::from_utf8(decoded).map_err(|_| malformed())?;
    let (user, password) = decoded.split_once(':').ok_or_else(malformed)?;
    Ok(Some(Credentials::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned())))
}
