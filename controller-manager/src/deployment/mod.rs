//! Deployments: one replica set per revision of the pod template, moved from the old to the new as the strategy says.
//!
//! `decide` works on copies of what the caches hold and yields actions in order; the shell applies them one after
//! another and stops at the first failure. A scale that a stale cache led to fails on its `resourceVersion`.
//! Deliberately absent: the rollback field of the removed beta API (undo is an edit of the template).

mod annotations;
mod decide;
mod math;
mod progress;
mod scale;

use std::sync::Arc;

use client::owner::{controller_of, controller_ref};
use client::patch::{only_unchanged, update, update_status};
use client::{
    Change, ErrorExt, EventRecorder, EventType, Forgive, Informer, ObjectKey, Outcome, Queue, queue,
};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::core::{Selector, SelectorExt};
use kube::{Api, ResourceExt};

use crate::common::claims::{ClaimIndex, settle_claims, sort_claims};
use crate::common::template::templates_equal;
use crate::common::{Context, ReconcileError, Reconciled};
pub(crate) use math::resolve;

use decide::Action;

const WORKERS: usize = 5;
const COMPONENT: &str = "deployment-controller";

/// Runs the controller until shutdown.
pub(crate) async fn run(context: Context) {
    let deployments = context.all::<Deployment>();
    let replica_sets = context.all::<ReplicaSet>();
    let pods = context.all::<Pod>();
    let queue = context.queue("deployment");
    let set_index = ClaimIndex::new(&replica_sets);
    let pod_index = ClaimIndex::new(&pods);
    if !(deployments.synced().await && replica_sets.synced().await && pods.synced().await) {
        return;
    }
    watch(&deployments, &replica_sets, &pods, &queue);
    let recorder = context.recorder(COMPONENT);
    let controller = Arc::new(Controller { context, deployments, set_index, pod_index, recorder });
    queue::run_on(queue, WORKERS, controller, Controller::reconcile).await;
}

fn watch(
    deployments: &Informer<Deployment>,
    replica_sets: &Informer<ReplicaSet>,
    pods: &Informer<Pod>,
    queue: &Queue<ObjectKey>,
) {
    deployments.feed(queue, ObjectKey::of);

    let (enqueue, owners) = (queue.clone(), deployments.clone());
    replica_sets.on_change(move |change| {
        let sets = [change.old(), Some(change.object())];
        for set in sets.into_iter().flatten() {
            match controller_of(set.as_ref()) {
                Some(owner) if owner.kind == "Deployment" => {
                    enqueue.add(ObjectKey::new(set.namespace().unwrap_or_default(), owner.name.clone()));
                }
                Some(_) => {}
                None => {
                    let labels = set.labels();
                    for owner in owners.list_namespace(&set.namespace().unwrap_or_default()) {
                        if selector_of(&owner).is_some_and(|selector| selector.matches(labels)) {
                            enqueue.add(ObjectKey::of(owner.as_ref()));
                        }
                    }
                }
            }
        }
    });

    // A recreating deployment waits for its last old pod to go.
    let (enqueue, sets) = (queue.clone(), replica_sets.clone());
    pods.on_change(move |change| {
        let Change::Deleted(pod) = change else { return };
        let Some(reference) = controller_of(pod.as_ref()).filter(|owner| owner.kind == "ReplicaSet") else {
            return;
        };
        let namespace = pod.namespace().unwrap_or_default();
        if let Some(set) = sets.get(&namespace, &reference.name)
            && let Some(owner) = controller_of(set.as_ref()).filter(|owner| owner.kind == "Deployment")
        {
            enqueue.add(ObjectKey::new(namespace, owner.name.clone()));
        }
    });
}

fn selector_of(deployment: &Deployment) -> Option<Selector> {
    let selector = deployment.spec.as_ref()?.selector.clone();
    Selector::try_from(selector).ok().filter(|selector| !selector.selects_all())
}

struct Controller {
    context: Context,
    deployments: Informer<Deployment>,
    set_index: ClaimIndex<ReplicaSet>,
    pod_index: ClaimIndex<Pod>,
    recorder: EventRecorder,
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: ObjectKey) -> Reconciled {
        let key = &key;
        let Some(deployment) = self.deployments.get_key(key) else { return Ok(Outcome::Done) };
        let Some(selector) = selector_of(&deployment) else {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.record(deployment.as_ref(), EventType::Warning, "SelectingAll", message);
            return Ok(Outcome::Done);
        };
        let uid = deployment.uid().unwrap_or_default();
        let deleting = deployment.metadata.deletion_timestamp.is_some();
        let candidates = self.set_index.candidates(&uid, &key.namespace);
        let claims = sort_claims(candidates, &uid, deleting, &selector);
        let api: Api<Deployment> = self.context.api(&key.namespace);
        let sets: Api<ReplicaSet> = self.context.api(&key.namespace);
        let owner = controller_ref(deployment.as_ref());
        let owned = settle_claims(claims, &api, &sets, &owner).await?;
        let pods =
            owned.iter().flat_map(|set| self.pod_index.owned(&set.uid().unwrap_or_default())).collect();
        let snapshot = decide::Snapshot { deployment: &deployment, sets: owned, pods };
        let now = self.context.now();
        let plan = decide::decide(&snapshot, now);
        // As the writes of the plan leave it.
        let mut current = deployment.as_ref().clone();
        for action in plan.actions {
            if !self.apply(&mut current, &api, &sets, action, now).await? {
                return Ok(Outcome::Retry);
            }
        }
        Ok(plan.recheck.map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    /// Applies one action. False when the rest of the plan no longer holds.
    async fn apply(
        &self,
        deployment: &mut Deployment,
        api: &Api<Deployment>,
        sets: &Api<ReplicaSet>,
        action: Action,
        now: Timestamp,
    ) -> Result<bool, ReconcileError> {
        match action {
            Action::Create(set) => return self.create(deployment, api, sets, &set, now).await,
            Action::Update { old, new } => {
                update(sets, old.as_ref(), new.as_ref()).await?;
            }
            Action::Scale { old, new } => {
                let count = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                let (before, after) = (count(&old), count(&new));
                update(sets, old.as_ref(), new.as_ref()).await?;
                if before != after {
                    let verb = if after > before { "Scaled up" } else { "Scaled down" };
                    let message = format!("{verb} replica set {} from {before} to {after}", old.name_any());
                    self.record(deployment, EventType::Normal, "ScalingReplicaSet", message);
                }
            }
            Action::Delete(set) => {
                let params = only_unchanged(set.as_ref(), DeleteParams::background());
                sets.delete(&set.name_any(), &params).await.if_found()?;
            }
            Action::Annotate(revision) => {
                let mut changed = deployment.clone();
                let annotations = changed.metadata.annotations.get_or_insert_default();
                annotations.insert(annotations::REVISION.into(), revision);
                if let Some(updated) = update(api, deployment, &changed).await? {
                    *deployment = updated;
                }
            }
            Action::Status(status) => {
                let mut changed = deployment.clone();
                changed.status = Some(*status);
                update_status(api, deployment, &changed).await?;
            }
        }
        Ok(true)
    }

    /// Creates the replica set of a new revision. A name that is taken by another template's set (a hash collision)
    /// raises the collision count, which gives the next attempt another name.
    async fn create(
        &self,
        deployment: &Deployment,
        api: &Api<Deployment>,
        sets: &Api<ReplicaSet>,
        set: &ReplicaSet,
        now: Timestamp,
    ) -> Result<bool, ReconcileError> {
        let error = match sets.create(&PostParams::default(), set).await {
            Ok(created) => {
                let replicas = created.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
                if replicas > 0 {
                    let message =
                        format!("Scaled up replica set {} from 0 to {replicas}", created.name_any());
                    self.record(deployment, EventType::Normal, "ScalingReplicaSet", message);
                }
                return Ok(true);
            }
            Err(error) => error,
        };
        if error.is_namespace_terminating() {
            return Ok(true);
        }
        if !error.is_already_exists() {
            let why = error.told();
            let message = format!("Failed to create new replica set {:?}: {why}", set.name_any());
            self.record(deployment, EventType::Warning, "ReplicaSetCreateError", message.clone());
            let mut changed = deployment.clone();
            progress::report_create_failure(&mut changed, message, now);
            update_status(api, deployment, &changed).await?;
            return Err(error.into());
        }
        let existing = sets.get(&set.name_any()).await?;
        let template =
            |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
        let ours = client::owner::is_controlled_by(&existing, &deployment.uid().unwrap_or_default());
        if !(ours && templates_equal(&template(&existing), &template(set))) {
            let mut changed = deployment.clone();
            let status = changed.status.get_or_insert_default();
            status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
            update_status(api, deployment, &changed).await?;
        }
        // Either way the cache is behind.
        Ok(false)
    }

    fn record(&self, deployment: &Deployment, kind: EventType, reason: &str, message: String) {
        self.recorder.record(deployment, kind, reason, message);
    }
}
