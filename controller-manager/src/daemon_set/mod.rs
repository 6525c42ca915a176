//! Daemon sets: one pod on every node that fits.
//!
//! Pods are bound by affinity and scheduled like all others.

mod decide;
mod nodes;
mod rolling;

use std::collections::HashSet;
use std::sync::Arc;

use client::owner::controller_ref;
use client::patch::update_status;
use client::{Change, Informer, ObjectKey, Outcome, queue};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::core::Selector;
use kube::{Api, ResourceExt};

use crate::common::claims::ClaimIndex;
use crate::common::history::{self, REVISION_HASH, hash_of};
use crate::common::owned_pods::{Failure, OwnedPods};
use crate::common::owners::PodOwner;
use crate::common::pod_control::pod_from_template;
use crate::common::{Context, Reconciled, pods};
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
    let nodes = context.all::<Node>();
    let revisions = context.all::<ControllerRevision>();
    let queue = context.queue("daemonset");
    let revision_index = ClaimIndex::new(&revisions);
    if !(nodes.synced().await && revisions.synced().await) {
        return;
    }
    let Some(pods) = OwnedPods::<DaemonSet>::watch(&context, &queue, "daemonset-controller").await else {
        return;
    };
    let (enqueue, all) = (queue.clone(), pods.owners.clone());
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
    let controller = Arc::new(Controller { context, pods, nodes, revision_index });
    queue::run_on(queue, WORKERS, controller, Controller::reconcile).await;
}

struct Controller {
    context: Context,
    pods: OwnedPods<DaemonSet>,
    nodes: Informer<Node>,
    revision_index: ClaimIndex<ControllerRevision>,
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: ObjectKey) -> Reconciled {
        let Some(set) = self.pods.owners.get_key(&key) else { return Ok(Outcome::Done) };
        let Some(selector) = set.pod_selector().filter(|_| set.metadata.deletion_timestamp.is_none()) else {
            return Ok(Outcome::Done);
        };
        let current = self.pods.is_current(&key);
        let uid = set.uid().unwrap_or_default();
        let owner = controller_ref(set.as_ref());
        let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let existing = self.revision_index.owned(&uid);
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let history = history::history(&owner, &set.metadata, &template, &existing, collisions);
        let revisions_api: Api<ControllerRevision> = self.context.api(&key.namespace);
        if let Some(outcome) = history::apply(&revisions_api, &key, &history).await? {
            return Ok(outcome);
        }
        let pods = self.pods.claim(&set, &selector, |_| true).await?;
        let nodes = self.nodes.list();
        let hash = hash_of(&history.present);
        let plan = decide::decide(
            &Snapshot { set: &set, nodes: &nodes, pods: &pods, hash: &hash },
            self.context.now(),
        );
        let result = if current { self.apply(&key, &set, &plan, &hash).await } else { Ok(()) };
        let mut changed = set.as_ref().clone();
        changed.status = Some(plan.status);
        update_status(&self.context.api(&key.namespace), set.as_ref(), &changed).await?;
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

    async fn apply(&self, key: &ObjectKey, set: &DaemonSet, plan: &Plan, hash: &str) -> Result<(), Failure> {
        let create = async |number: usize| {
            let node = plan.create.get(number).map(String::as_str).unwrap_or_default();
            self.pods.create(set, &new_pod(set, node, hash, &key.namespace)).await
        };
        self.pods.change(key, set, plan.create.len(), create, &plan.delete).await
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
