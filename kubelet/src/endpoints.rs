//! Whether services still send requests to a pod, as the API's EndpointSlices tell.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client};

use crate::pod::PodExt;

/// Returns when no slice names the pod as ready any more and `propagation` has passed since, so that service proxies have
/// followed; or after `most`. At once for a pod that no service selects. An API that does not answer costs `propagation`.
pub async fn left(client: &Client, pod: &Pod, most: Duration, propagation: Duration) {
    let api = Api::<EndpointSlice>::namespaced(client.clone(), pod.namespace());
    match tokio::time::timeout(most, follow(&api, pod)).await {
        Ok(Ok(false)) => {}
        Ok(Ok(true)) | Err(_) => tokio::time::sleep(propagation).await,
        Ok(Err(error)) => {
            tracing::debug!(pod = pod.title(), %error, "the EndpointSlices cannot be read");
            tokio::time::sleep(propagation).await;
        }
    }
}

/// Whether the pod was in a slice at all, once it is ready in none.
async fn follow(api: &Api<EndpointSlice>, pod: &Pod) -> Result<bool, kube::Error> {
    let list = api.list(&ListParams::default()).await?;
    let mut holding: Vec<String> = Vec::new();
    let mut was_in = false;
    for slice in &list.items {
        was_in |= names(slice, pod).is_some();
        if names(slice, pod) == Some(true) {
            holding.push(slice.metadata.name.clone().unwrap_or_default());
        }
    }
    if holding.is_empty() {
        return Ok(was_in);
    }
    let version = list.metadata.resource_version.unwrap_or_default();
    let mut events = api.watch(&WatchParams::default(), &version).await?.boxed();
    while let Some(event) = events.try_next().await? {
        let (slice, deleted) = match event {
            WatchEvent::Added(slice) | WatchEvent::Modified(slice) => (slice, false),
            WatchEvent::Deleted(slice) => (slice, true),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(_) => return Ok(true),
        };
        let name = slice.metadata.name.clone().unwrap_or_default();
        holding.retain(|held| *held != name);
        if !deleted && names(&slice, pod) == Some(true) {
            holding.push(name);
        }
        if holding.is_empty() {
            break;
        }
    }
    Ok(true)
}

/// Whether a slice names the pod, and as ready.
fn names(slice: &EndpointSlice, pod: &Pod) -> Option<bool> {
    let is_pod = |endpoint: &&k8s_openapi::api::discovery::v1::Endpoint| {
        let target = endpoint.target_ref.as_ref();
        target.is_some_and(|target| target.uid.as_deref() == Some(pod.uid()))
    };
    let endpoints = slice.endpoints.iter().flatten().filter(is_pod);
    endpoints.map(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)).reduce(|a, b| a || b)
}
