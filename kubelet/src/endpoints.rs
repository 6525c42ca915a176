//! Whether services still send requests to a pod, as the API's EndpointSlices tell.

use std::sync::Arc;
use std::time::Duration;

use client::{Informer, Informers, Scope};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::Notify;

use crate::pod::PodExt;

/// The cluster's EndpointSlices. In one process they are shared with the service proxy, which needs them all anyway.
pub struct Endpoints {
    slices: Informer<EndpointSlice>,
    changed: Arc<Notify>,
}

impl Endpoints {
    /// Watches them.
    pub fn new(informers: &Informers) -> Self {
        let slices = informers.get::<EndpointSlice>(Scope::all());
        let changed = Arc::new(Notify::new());
        let notify = changed.clone();
        slices.on_change(move |_| notify.notify_waiters());
        Self { slices, changed }
    }

    /// Returns when no slice names the pod as ready any more and `propagation` has passed since, so that service proxies
    /// have followed; or after `most`. At once for a pod that no service selects.
    pub async fn left(&self, pod: &Pod, most: Duration, propagation: Duration) {
        if !self.slices.is_synced() {
            tracing::debug!(pod = pod.title(), "the EndpointSlices are not known");
            return tokio::time::sleep(propagation).await;
        }
        if self.named(pod).is_none() {
            return;
        }
        let gone = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.named(pod) != Some(true) {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(most, gone).await.is_err() {
            tracing::debug!(pod = pod.title(), "a service still names the pod");
        }
        tokio::time::sleep(propagation).await;
    }

    /// Whether any slice names the pod, and whether as ready.
    fn named(&self, pod: &Pod) -> Option<bool> {
        let slices = self.slices.list_namespace(pod.namespace());
        slices.iter().filter_map(|slice| names(slice, pod)).reduce(|a, b| a || b)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_is_named_as_ready_is_told_from_one_that_is_only_named() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {"uid": "u"}})).unwrap();
        let slice = |endpoints: serde_json::Value| -> EndpointSlice {
            serde_json::from_value(
                serde_json::json!({"metadata": {}, "addressType": "IPv4", "endpoints": endpoints}),
            )
            .unwrap()
        };
        let endpoint = |uid: &str, ready: Option<bool>| serde_json::json!({"addresses": ["1.1.1.1"], "conditions": {"ready": ready}, "targetRef": {"uid": uid}});
        assert_eq!(names(&slice(serde_json::json!([endpoint("v", Some(true))])), &pod), None);
        assert_eq!(names(&slice(serde_json::json!([endpoint("u", Some(false))])), &pod), Some(false));
        assert_eq!(
            names(&slice(serde_json::json!([endpoint("u", None)])), &pod),
            Some(true),
            "unset means ready"
        );
    }
}
