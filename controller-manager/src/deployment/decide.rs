//! The steps of a rollout. Pure.

use std::sync::Arc;
use std::time::Duration;

use client::owner::{controller_of, controller_ref};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::ResourceExt;
use kube::core::ObjectMeta;

use super::{annotations, math, progress, scale};
use crate::common::pods;
use crate::common::template::{POD_TEMPLATE_HASH, template_hash, templates_equal};

/// What a decision is made from.
pub(super) struct Snapshot<'a> {
    pub deployment: &'a Deployment,
    /// The replica sets that belong to the deployment.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// The pods of those.
    pub pods: Vec<Arc<Pod>>,
}

/// One write, in the order given.
#[derive(Debug)]
pub(super) enum Action {
    Create(Box<ReplicaSet>),
    /// Annotations or minimum ready seconds.
    Update {
        old: Arc<ReplicaSet>,
        new: Arc<ReplicaSet>,
    },
    /// The size (and the annotations about it).
    Scale {
        old: Arc<ReplicaSet>,
        new: Arc<ReplicaSet>,
    },
    Delete(Arc<ReplicaSet>),
    /// The deployment's own revision annotation.
    Annotate(String),
    Status(Box<DeploymentStatus>),
}

/// The writes to make now, and when to look again even if nothing happens.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub actions: Vec<Action>,
    pub recheck: Option<Duration>,
}

/// The rollout as it changes while steps are planned. Sets in it are as the planned writes leave them.
pub(super) struct Rollout<'a> {
    pub deployment: &'a Deployment,
    /// The deployment's status with conditions added on the way.
    pub status: DeploymentStatus,
    pub new: Option<Arc<ReplicaSet>>,
    pub old: Vec<Arc<ReplicaSet>>,
    pub actions: Vec<Action>,
    pub now: Timestamp,
}

impl Rollout<'_> {
    pub fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(self.new.iter())
    }

    pub fn total_size(&self) -> i32 {
        math::total_size(self.all())
    }
}

/// Decides the next writes of a deployment.
pub(super) fn decide(snapshot: &Snapshot<'_>, now: Timestamp) -> Plan {
    let deployment = snapshot.deployment;
    let mut rollout = start(snapshot, now);
    let paused = deployment.spec.as_ref().is_some_and(|spec| spec.paused == Some(true));
    if deployment.metadata.deletion_timestamp.is_some() {
        return progress::finish_plain(rollout);
    }
    progress::note_pause(&mut rollout, paused);
    if paused || is_scaling(&rollout) {
        adopt_newest(&mut rollout);
        scale::scale(&mut rollout);
        if paused {
            clean_up(&mut rollout);
        }
        return progress::finish_plain(rollout);
    }
    if math::is_rolling(deployment) {
        roll(&mut rollout);
    } else {
        recreate(&mut rollout, &snapshot.pods);
    }
    progress::finish(rollout)
}

fn start<'a>(snapshot: &Snapshot<'a>, now: Timestamp) -> Rollout<'a> {
    let mut sets = snapshot.sets.clone();
    sets.sort_by_key(|set| (set.creation_timestamp().map(|time| time.0), set.name_any()));
    let template = template_of(snapshot.deployment);
    let position = sets.iter().position(|set| {
        let own = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        own.is_some_and(|own| templates_equal(own, &template))
    });
    let new = position.map(|index| sets.remove(index));
    let status = snapshot.deployment.status.clone().unwrap_or_default();
    Rollout { deployment: snapshot.deployment, status, new, old: sets, actions: Vec::new(), now }
}

fn template_of(deployment: &Deployment) -> PodTemplateSpec {
    deployment.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default()
}

/// Whether the deployment's size changed since its sets were last scaled.
fn is_scaling(rollout: &Rollout<'_>) -> bool {
    let wanted = math::wanted(rollout.deployment);
    rollout
        .all()
        .filter(|set| math::size(set) > 0)
        .any(|set| annotations::desired(set).is_some_and(|desired| desired != wanted))
}

/// Makes an existing set of the current template the newest revision, and notes that on the deployment.
fn adopt_newest(rollout: &mut Rollout<'_>) {
    let revision = next_revision(&rollout.old);
    let Some(old) = rollout.new.clone() else { return };
    let mut new = old.as_ref().clone();
    annotations::make_newest(&mut new, rollout.deployment, revision);
    let min_ready = rollout.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
    if let Some(spec) = &mut new.spec {
        spec.min_ready_seconds = min_ready.or(spec.min_ready_seconds.map(|_| 0));
    }
    let set_revision = annotations::revision(&new.metadata).to_string();
    if new != *old {
        let new = Arc::new(new);
        rollout.new = Some(new.clone());
        rollout.actions.push(Action::Update { old, new });
    }
    progress::note_found(rollout);
    annotate(rollout, &set_revision);
}

fn annotate(rollout: &mut Rollout<'_>, revision: &str) {
    let annotations = rollout.deployment.metadata.annotations.as_ref();
    if annotations.and_then(|all| all.get(annotations::REVISION)).map(String::as_str) != Some(revision) {
        rollout.actions.push(Action::Annotate(revision.into()));
    }
}

fn next_revision(old: &[Arc<ReplicaSet>]) -> i64 {
    old.iter().map(|set| annotations::revision(&set.metadata)).max().unwrap_or(0) + 1
}

/// Makes sure that the set of the current template exists and is the newest revision. Returns whether it was there.
fn ensure_newest(rollout: &mut Rollout<'_>) -> bool {
    if rollout.new.is_some() {
        adopt_newest(rollout);
        return true;
    }
    let set = new_set(rollout);
    let revision = annotations::revision(&set.metadata).to_string();
    progress::note_created(rollout, &set.name_any());
    rollout.actions.push(Action::Create(Box::new(set.clone())));
    rollout.new = Some(Arc::new(set));
    annotate(rollout, &revision);
    false
}

fn new_set(rollout: &Rollout<'_>) -> ReplicaSet {
    let deployment = rollout.deployment;
    let mut template = template_of(deployment);
    let hash = template_hash(&template, rollout.status.collision_count);
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(POD_TEMPLATE_HASH.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = deployment.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
    selector.match_labels.get_or_insert_default().insert(POD_TEMPLATE_HASH.into(), hash.clone());
    let size = math::new_set_size(deployment, math::total_size(&rollout.old), 0);
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![controller_ref(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(size),
            min_ready_seconds: deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds),
            selector,
            template: Some(template),
        }),
        status: None,
    };
    annotations::make_newest(&mut set, deployment, next_revision(&rollout.old));
    annotations::set_sizes(&mut set, deployment);
    set
}

fn roll(rollout: &mut Rollout<'_>) {
    ensure_newest(rollout);
    if grow_new(rollout) || scale::shrink_old(rollout) {
        return;
    }
    if progress::is_complete(rollout.deployment, &progress::count(rollout)) {
        clean_up(rollout);
    }
}

/// Moves the new set towards its size. Returns whether it had to.
fn grow_new(rollout: &mut Rollout<'_>) -> bool {
    let Some(new) = rollout.new.clone() else { return false };
    let (current, wanted) = (math::size(&new), math::wanted(rollout.deployment));
    let size = if current >= wanted {
        wanted
    } else {
        math::new_set_size(rollout.deployment, rollout.total_size(), current)
    };
    scale::resize(rollout, &new, size)
}

fn recreate(rollout: &mut Rollout<'_>, pods: &[Arc<Pod>]) {
    adopt_newest(rollout);
    let mut scaled = false;
    for set in rollout.old.clone() {
        if math::size(&set) > 0 {
            scaled |= scale::resize(rollout, &set, 0);
        }
    }
    if scaled || old_pods_remain(rollout, pods) {
        return;
    }
    if rollout.new.is_none() {
        ensure_newest(rollout);
    }
    if grow_new(rollout) {
        return;
    }
    if progress::is_complete(rollout.deployment, &progress::count(rollout)) {
        clean_up(rollout);
    }
}

/// Whether a pod of an earlier revision still exists that may be running.
fn old_pods_remain(rollout: &Rollout<'_>, pods: &[Arc<Pod>]) -> bool {
    let new_uid = rollout.new.as_ref().and_then(|set| set.uid());
    pods.iter()
        .filter(|pod| !pods::is_finished(pod))
        .any(|pod| controller_of(pod.as_ref()).map(|owner| owner.uid.clone()) != new_uid)
}

/// Deletes the oldest empty sets beyond the history limit.
fn clean_up(rollout: &mut Rollout<'_>) {
    let limit = rollout.deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let mut alive: Vec<_> =
        rollout.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).cloned().collect();
    let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    alive.sort_by_key(|set| annotations::revision(&set.metadata));
    for set in alive.into_iter().take(surplus) {
        let observed = set.status.as_ref().and_then(|status| status.observed_generation);
        let empty = set.status.as_ref().is_none_or(|status| status.replicas == 0) && math::size(&set) == 0;
        if empty && set.metadata.generation <= observed {
            rollout.actions.push(Action::Delete(set));
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
