//! The pods that the objects of one kind own: watched, claimed, created and deleted.
//!
//! Guarantees: [`OwnedPods::is_current`] is false until the cache shows every creation and deletion that
//! [`OwnedPods::change`] asked for; whoever decides on such a cache only would make pods twice.

use std::future::Future;
use std::sync::Arc;

use client::expectations::Expectations;
use client::owner::controller_ref;
use client::{ErrorExt, EventRecorder, EventType, Informer, ObjectKey, Queue};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::core::{NamespaceResourceScope, Selector};
use kube::{Api, Resource};
use tokio::time::Instant;

use super::claims::{ClaimIndex, settle_claims, sort_claims};
use super::owners::{PodOwner, watch_owner_and_pods};
use super::pod_control::{delete_exactly, slow_start};
use super::{Context, ReconcileError, pods};

/// The owners of one kind and their pods.
pub(crate) struct OwnedPods<O> {
    pub owners: Informer<O>,
    pub recorder: EventRecorder,
    context: Context,
    index: ClaimIndex<Pod>,
    expectations: Arc<Expectations>,
}

/// Why not all pods could be created or deleted.
#[derive(Debug)]
pub(crate) struct Failure {
    pub creating: bool,
    pub error: kube::Error,
}

impl From<Failure> for ReconcileError {
    fn from(failure: Failure) -> Self {
        failure.error.into()
    }
}

impl<O: PodOwner + Resource<Scope = NamespaceResourceScope>> OwnedPods<O> {
    /// Adds owners to the queue whenever they or their pods change. `None` on shutdown.
    pub async fn watch(context: &Context, queue: &Queue<ObjectKey>, component: &str) -> Option<Self> {
        let (owners, pods) = (context.all::<O>(), context.all::<Pod>());
        let index = ClaimIndex::new(&pods);
        if !(owners.synced().await && pods.synced().await) {
            return None;
        }
        let expectations = Arc::new(Expectations::new());
        watch_owner_and_pods(&owners, &pods, queue, &expectations);
        let recorder = context.recorder(component);
        Some(Self { owners, recorder, context: context.clone(), index, expectations })
    }

    /// Whether the cache shows all that was asked for.
    pub fn is_current(&self, key: &ObjectKey) -> bool {
        self.expectations.satisfied(key, Instant::now())
    }

    /// What the cache shows of one owner's pods, without claiming any.
    pub fn known(&self, owner_uid: &str) -> Vec<Arc<Pod>> {
        self.index.owned(owner_uid)
    }

    /// Adopts and releases pods by label, then returns all that the owner has. Those that `belongs` denies are left alone.
    pub async fn claim(
        &self,
        owner: &O,
        selector: &Selector,
        belongs: impl Fn(&Pod) -> bool,
    ) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let meta = owner.meta();
        let uid = meta.uid.as_deref().unwrap_or_default();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let mut candidates = self.index.candidates(uid, namespace);
        candidates.retain(|pod| belongs(pod));
        let claims = sort_claims(candidates, uid, meta.deletion_timestamp.is_some(), selector);
        let (owners, pods): (Api<O>, Api<Pod>) = (self.context.api(namespace), self.context.api(namespace));
        settle_claims(claims, &owners, &pods, &controller_ref(owner)).await
    }

    /// Runs `create` `count` times and deletes pods. In a namespace that is being deleted nothing has to be created.
    pub async fn change<F, Fut>(
        &self,
        key: &ObjectKey,
        owner: &O,
        count: usize,
        create: F,
        delete: &[Arc<Pod>],
    ) -> Result<(), Failure>
    where
        F: Fn(usize) -> Fut,
        Fut: Future<Output = Result<(), kube::Error>>,
    {
        if count == 0 && delete.is_empty() {
            return Ok(());
        }
        let uids = delete.iter().map(|pod| pods::uid(pod).to_string());
        self.expectations.expect(key, count, uids, Instant::now());
        let batch = slow_start(count, create).await;
        for _ in 0..batch.missing {
            self.expectations.creation_observed(key);
        }
        let deleted = join_all(delete.iter().map(|pod| self.delete(key, owner, pod))).await;
        let failed = |creating| move |error| Failure { creating, error };
        let creation = batch.error.filter(|error| !error.is_namespace_terminating()).map(failed(true));
        let deletion = deleted.into_iter().find_map(Result::err).map(failed(false));
        creation.or(deletion).map_or(Ok(()), Err)
    }

    /// Creates a pod and says so in an event of its owner.
    pub async fn create(&self, owner: &O, pod: &Pod) -> Result<(), kube::Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let result = self.context.api::<Pod>(namespace).create(&PostParams::default(), pod).await;
        match &result {
            Ok(created) => {
                let message = format!("Created pod: {}", pods::name(created));
                self.recorder.record(owner, EventType::Normal, "SuccessfulCreate", message);
            }
            Err(error) if error.is_namespace_terminating() => {}
            Err(error) => {
                let message = format!("Error creating: {}", error.told());
                self.recorder.record(owner, EventType::Warning, "FailedCreate", message);
            }
        }
        result.map(|_| ())
    }

    async fn delete(&self, key: &ObjectKey, owner: &O, pod: &Pod) -> Result<(), kube::Error> {
        let api = self.context.api(&key.namespace);
        let result = delete_exactly(&api, pod, DeleteParams::default()).await.map(|_| ());
        match &result {
            Ok(()) => {
                let message = format!("Deleted pod: {}", pods::name(pod));
                self.recorder.record(owner, EventType::Normal, "SuccessfulDelete", message);
            }
            Err(error) => {
                self.expectations.deletion_observed(key, pods::uid(pod));
                let message = format!("Error deleting: {}", error.told());
                self.recorder.record(owner, EventType::Warning, "FailedDelete", message);
            }
        }
        result
    }
}
