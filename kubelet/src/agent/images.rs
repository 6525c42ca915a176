//! `/gantry/images`: images on this node, without a registry.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt;
use http::{Request, StatusCode};
use serde_json::json;
use tokio_util::io::StreamReader;

use super::routes::Shared;
use super::{Refusal, answer, streams};
use crate::image::LoadError;

/// Takes an archive as it comes in.
pub(super) async fn load(State(agent): Shared, request: Request<Body>) -> Result<Response, Refusal> {
    let Some(loader) = agent.config.image_loader.clone() else {
        let message = "this node's runtime takes no archives";
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, message));
    };
    let stream = request.into_body().into_data_stream().map_err(std::io::Error::other);
    let names = loader.load(Box::pin(StreamReader::new(stream))).await.map_err(|error| {
        let code = match error {
            LoadError::Malformed(_) => StatusCode::BAD_REQUEST,
            LoadError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal::new(code, error.to_string())
    })?;
    agent.node_changed.notify_one();
    Ok(answer(json!({ "images": names })))
}

/// What is there.
pub(super) async fn list(State(agent): Shared) -> Result<Response, Refusal> {
    let images = agent.cri.list_images().await.map_err(|error| Refusal::runtime(&error))?;
    let images: Vec<_> = images
        .into_iter()
        .map(|image| {
            let names = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
            json!({ "id": image.id, "names": names, "digests": image.repo_digests, "size": image.size })
        })
        .collect();
    Ok(answer(json!({ "images": images })))
}

/// Removes one: `?image=NAME`.
pub(super) async fn remove(State(agent): Shared, request: Request<Body>) -> Result<Response, Refusal> {
    let image = streams::values(request.uri(), "image").into_iter().next();
    let image = image.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "which image? (?image=NAME)"))?;
    let spec = k8s_cri::v1::ImageSpec { image: image.clone(), ..Default::default() };
    let found = agent.cri.image_status(spec).await.map_err(|error| Refusal::runtime(&error))?;
    if found.is_none() {
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("image \"{image}\" is not on this node")));
    }
    agent.cri.remove_image(&image).await.map_err(|error| Refusal::runtime(&error))?;
    agent.node_changed.notify_one();
    Ok(StatusCode::OK.into_response())
}
