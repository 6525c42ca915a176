//! Daemon sets: one pod on every node that fits.
//!
//! Pods are bound by affinity and scheduled like all others.

mod decide;
mod nodes;
mod rolling;

use std::collections::HashSet;
use std::sync::Arc;

use client::expectations::Expectations;
use client::owner::controller_ref;
use client::patch::update_status;
use client::{Change, ErrorExt, EventRecorder, Informer, ObjectKey, Outcome, queue};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::core::Selector;
use kube::{Api, ResourceExt};
use tokio::time::Instant;

use crate::common::claims::{ClaimIndex, settle_claims, sort_claims};
use crate::common::history::{self, REVISION_HASH, hash_of};
use crate::common::owners::{PodOwner, watch_owner_and_pods};
use crate::common::pod_control::{self, pod_from_template};
use crate::common::{Context, ReconcileError, Reconciled, pods};
use decide::{Plan, Snapshot};

const WORKERS: usize = 2;
const TEMPLATE_GENERATION: &str = "pod-template-generation";
const DEPRECATED_GENERATION: &str = "deprecated.daemonset.template.generation";

impl PodOwner for DaemonSet {
    const KIND: &'static str = "DaemonSet";

    fn pod_selector(&self) -> Option<Selector> {
        let selector = self.spec.as_ref()?.selector.clone();
        Selector::try_from(selector).ok().filter(|selector| !selector.selects_all())
    }
}

/// Runs the controller until shutdown.
pub(crate) async fn run(context: Context) {
    let sets = context.all::<DaemonSet>();
    let pods = context.all::<Pod>();
    let nodes = context.all::<Node>();
    let revisions = context.all::<ControllerRevision>();
    let queue = context.queue("daemonset");
    let expectations = Arc::new(Expectations::new());
    let claim_index = ClaimIndex::new(&pods);
    let revision_index = ClaimIndex::new(&revisions);
    let synced = sets.synced().await && pods.synced().await && nodes.synced().await;
    if !(synced && revisions.synced().await) {
        return;
    }
    watch_owner_and_pods(&sets, &pods, &queue, &expectations);
    let (enqueue, all) = (queue.clone(), sets.clone());
    nodes.on_change(move |change| {
        // Heartbeats change neither labels nor spec.
        if let Change::Modified { old, new } = change
            && old.metadata.labels == new.metadata.labels
            && old.spec == new.spec
        {
            return;
        }
        for set in all.list() {
            enqueue.add(ObjectKey::of(set.as_ref()));
        }
    });
    let recorder = context.recorder("daemonset-controller");
    let controller =
        Arc::new(Controller { context, sets, nodes, claim_index, revision_index, expectations, recorder });
    queue::run(queue, WORKERS, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
    .await;
}

struct Controller {
    context: Context,
    sets: Informer<DaemonSet>,
    nodes: Informer<Node>,
    claim_index: ClaimIndex<Pod>,
    revision_index: ClaimIndex<ControllerRevision>,
    expectations: Arc<Expectations>,
    recorder: EventRecorder,
}

impl Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Reconciled {
        let Some(set) = self.sets.get_key(key) else {
            self.expectations.forget(key);
            return Ok(Outcome::Done);
        };
        let Some(selector) = set.pod_selector().filter(|_| set.metadata.deletion_timestamp.is_none()) else {
            return Ok(Outcome::Done);
        };
        let current = self.expectations.satisfied(key, Instant::now());
        let uid = set.uid().unwrap_or_default();
        let owner = controller_ref(set.as_ref());
        let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let existing = self.revision_index.owned(&uid);
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let history = history::history(&owner, &set.metadata, &template, &existing, collisions);
        let revisions_api: Api<ControllerRevision> = self.context.api(&key.namespace);
        if let Some(outcome) = history::apply(&revisions_api, key, &history).await? {
            return Ok(outcome);
        }
        let sets_api: Api<DaemonSet> = self.context.api(&key.namespace);
        let pods_api: Api<Pod> = self.context.api(&key.namespace);
        let claims = sort_claims(self.claim_index.candidates(&uid, &key.namespace), &uid, false, &selector);
        let pods = settle_claims(claims, &sets_api, &pods_api, &owner).await?;
        let nodes = self.nodes.list();
        let hash = hash_of(&history.present);
        let plan = decide::decide(
            &Snapshot { set: &set, nodes: &nodes, pods: &pods, hash: &hash },
            self.context.now(),
        );
        let result = if current { self.apply(key, &set, &plan, &hash).await } else { Ok(()) };
        let mut changed = set.as_ref().clone();
        changed.status = Some(plan.status);
        update_status(&sets_api, set.as_ref(), &changed).await?;
        result?;
        let in_use: HashSet<String> = history
            .revisions
            .iter()
            .filter(|revision| {
                pods.iter().any(|pod| pods::labels(pod).get(REVISION_HASH) == Some(&hash_of(revision)))
            })
            .map(|revision| revision.name_any())
            .collect();
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        history::delete(&revisions_api, history::surplus(&history, &in_use, limit)).await?;
        Ok(plan.recheck.map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    async fn apply(
        &self,
        key: &ObjectKey,
        set: &Arc<DaemonSet>,
        plan: &Plan,
        hash: &str,
    ) -> Result<(), ReconcileError> {
        if plan.create.is_empty() && plan.delete.is_empty() {
            return Ok(());
        }
        let api: Api<Pod> = self.context.api(&key.namespace);
        let uids = plan.delete.iter().map(|pod| pods::uid(pod).to_string());
        self.expectations.expect(key, plan.create.len(), uids, Instant::now());
        let batch = pod_control::slow_start(plan.create.len(), |number| {
            let node = plan.create.get(number).map(String::as_str).unwrap_or_default();
            let pod = new_pod(set, node, hash, &key.namespace);
            let api = &api;
            async move { pod_control::create_pod(api, &pod, set.as_ref(), &self.recorder).await.map(|_| ()) }
        })
        .await;
        for _ in 0..batch.missing {
            self.expectations.creation_observed(key);
        }
        let mut failure: Option<ReconcileError> =
            batch.error.filter(|error| !error.is_namespace_terminating()).map(Into::into);
        for pod in &plan.delete {
            if let Err(error) = pod_control::delete_pod(&api, pod, set.as_ref(), &self.recorder).await {
                self.expectations.deletion_observed(key, pods::uid(pod));
                failure = Some(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

fn new_pod(set: &DaemonSet, node: &str, hash: &str, namespace: &str) -> Pod {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pod_from_template(&template, &controller_ref(set), namespace);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_HASH.into(), hash.into());
    if let Some(generation) = set.annotations().get(DEPRECATED_GENERATION) {
        labels.insert(TEMPLATE_GENERATION.into(), generation.clone());
    }
    if let Some(spec) = &mut pod.spec {
        nodes::add_tolerations(spec);
        nodes::pin_to_node(spec, node);
    }
    pod
}
