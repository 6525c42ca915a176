//! New pods from templates, creation in growing batches, deletion of exactly one pod.

use std::future::Future;

use client::patch::only;
use client::{ErrorExt, Forgive};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::DeleteParams;
use kube::core::ObjectMeta;

use super::pods;

/// Pods created or deleted in one reconcile, at most.
pub(crate) const BURST_MAX: usize = 500;

/// A pod as its template describes it, named by the server from the owner's name.
pub(crate) fn pod_from_template(template: &PodTemplateSpec, owner: &OwnerReference, namespace: &str) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(generate_name(&owner.name)),
            namespace: Some(namespace.into()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// `<owner>-`, unless that could no longer be the beginning of a name.
pub(crate) fn generate_name(owner_name: &str) -> String {
    if owner_name.len() < 253 { format!("{owner_name}-") } else { owner_name.to_string() }
}

/// How a batch of creations went.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub succeeded: usize,
    /// Attempts that failed or were not made.
    pub missing: usize,
    pub error: Option<kube::Error>,
}

/// Runs `create` `count` times: one first, then twice as many with every round, and stops after a round with a
/// failure, so that an owner whose pods are all refused does not flood the server.
pub(crate) async fn slow_start<F, Fut>(count: usize, create: F) -> Batch
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<(), kube::Error>>,
{
    let mut batch = Batch::default();
    let mut size = 1;
    let mut next = 0;
    while next < count {
        let end = (next + size).min(count);
        for result in join_all((next..end).map(&create)).await {
            match result {
                Ok(()) => batch.succeeded += 1,
                Err(error) => batch.error = Some(error),
            }
        }
        next = end;
        size *= 2;
        if batch.error.is_some() {
            break;
        }
    }
    batch.missing = count - batch.succeeded;
    batch
}

/// Deletes this pod and no other of the same name. `None` when it is gone already.
pub(crate) async fn delete_exactly(
    api: &Api<Pod>,
    pod: &Pod,
    params: DeleteParams,
) -> Result<Option<()>, kube::Error> {
    let gone = |error: &kube::Error| error.is_not_found() || error.is_conflict();
    Ok(api.delete(pods::name(pod), &only(pod, params)).await.forgive(gone)?.map(|_| ()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_slow_start_stops_after_the_first_failing_round() {
        let attempts = AtomicUsize::new(0);
        let batch = slow_start(100, |index| {
            attempts.fetch_add(1, Ordering::SeqCst);
            async move { if index == 2 { Err(kube::Error::LinesCodecMaxLineLengthExceeded) } else { Ok(()) } }
        })
        .await;
        assert_eq!(attempts.load(Ordering::SeqCst), 3);
        assert_eq!((batch.succeeded, batch.missing), (2, 98));
    }
}
