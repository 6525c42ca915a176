//! What a deployment's status says. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::decide::{Action, Plan, Rollout};
use super::math;
use crate::common::conditions::{seconds, until};

const PROGRESSING: &str = "Progressing";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

fn deadline_s(deployment: &Deployment) -> Option<i32> {
    // Upstream's way to say "never" is the largest number.
    let deadline = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (deadline != i32::MAX).then_some(deadline)
}

fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

fn remove(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != type_);
    }
    status.conditions = status.conditions.take().filter(|conditions| !conditions.is_empty());
}

/// Sets a condition unless it already says the same; its transition time moves only with its status.
fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(known) = find(status, &new.type_) {
        if known.status == new.status && known.reason == new.reason {
            return;
        }
        if known.status == new.status {
            new.last_transition_time = known.last_transition_time.clone();
        }
    }
    remove(status, &new.type_);
    status.conditions.get_or_insert_default().push(new);
}

fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Says that a rollout waits for its user, or no longer does; a pause does not count towards the deadline.
pub(super) fn note_pause(rollout: &mut Rollout<'_>, paused: bool) {
    if deadline_s(rollout.deployment).is_none() {
        return;
    }
    let reason = find(&rollout.status, PROGRESSING).and_then(|known| known.reason.clone());
    let was_paused = reason.as_deref() == Some(PAUSED);
    if reason.as_deref() == Some(TIMED_OUT) || paused == was_paused {
        return;
    }
    let (reason, message) =
        if paused { (PAUSED, "Deployment is paused") } else { (RESUMED, "Deployment is resumed") };
    set(&mut rollout.status, condition(PROGRESSING, "Unknown", reason, message.into(), rollout.now));
}

/// Says that the set of the current template was there already, unless progress is known.
pub(super) fn note_found(rollout: &mut Rollout<'_>) {
    if deadline_s(rollout.deployment).is_none() || find(&rollout.status, PROGRESSING).is_some() {
        return;
    }
    let name = rollout.new.as_ref().map(|set| set.name_any()).unwrap_or_default();
    let message = format!("Found new replica set {name:?}");
    set(&mut rollout.status, condition(PROGRESSING, "True", "FoundNewReplicaSet", message, rollout.now));
}

/// Says that a new set is being created.
pub(super) fn note_created(rollout: &mut Rollout<'_>, name: &str) {
    if deadline_s(rollout.deployment).is_none() {
        return;
    }
    let message = format!("Created new replica set {name:?}");
    set(&mut rollout.status, condition(PROGRESSING, "True", "NewReplicaSetCreated", message, rollout.now));
}

/// Says that the new set could not be created.
pub(super) fn report_create_failure(deployment: &mut Deployment, message: String, now: Timestamp) {
    if deadline_s(deployment).is_some() {
        let status = deployment.status.get_or_insert_default();
        set(status, condition(PROGRESSING, "False", "ReplicaSetCreateError", message, now));
    }
}

/// The counts, and whether enough pods are available; other conditions as they are.
pub(super) fn count(rollout: &Rollout<'_>) -> DeploymentStatus {
    let of = |field: &dyn Fn(&ReplicaSet) -> i32| rollout.all().map(|set| field(set)).sum::<i32>();
    let status = |set: &ReplicaSet| set.status.clone().unwrap_or_default();
    let available = math::total_available(rollout.all());
    let updated = rollout.new.as_ref().map_or(0, |set| status(set).replicas);
    let mut counted = DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: positive(of(&|set| status(set).replicas)),
        updated_replicas: positive(updated),
        ready_replicas: positive(of(&|set| status(set).ready_replicas.unwrap_or(0))),
        available_replicas: positive(available),
        unavailable_replicas: positive((rollout.total_size() - available).max(0)),
        terminating_replicas: Some(of(&|set| status(set).terminating_replicas.unwrap_or(0))),
        collision_count: rollout.status.collision_count,
        conditions: rollout.status.conditions.clone(),
    };
    let minimum = math::wanted(rollout.deployment) - math::max_unavailable(rollout.deployment);
    let verdict = if available >= minimum {
        let message = "Deployment has minimum availability.".to_string();
        condition("Available", "True", "MinimumReplicasAvailable", message, rollout.now)
    } else {
        let message = "Deployment does not have minimum availability.".to_string();
        condition("Available", "False", "MinimumReplicasUnavailable", message, rollout.now)
    };
    set(&mut counted, verdict);
    counted
}

fn positive(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}

/// Whether all pods are of the current template, available, and nothing else remains.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = math::wanted(deployment);
    [status.updated_replicas, status.replicas, status.available_replicas]
        .iter()
        .all(|count| count.unwrap_or(0) == wanted)
        && status.observed_generation >= deployment.metadata.generation
}

/// Ends a plan that does not judge progress: paused, scaling, or being deleted.
pub(super) fn finish_plain(rollout: Rollout<'_>) -> Plan {
    let status = count(&rollout);
    write_status(rollout, status, None)
}

/// Ends a plan of a running rollout: judges its progress.
pub(super) fn finish(rollout: Rollout<'_>) -> Plan {
    let mut status = count(&rollout);
    let Some(deadline) = deadline_s(rollout.deployment) else {
        remove(&mut status, PROGRESSING);
        report_failures(&rollout, &mut status);
        return write_status(rollout, status, None);
    };
    let known = find(&rollout.status, PROGRESSING).cloned();
    let known_reason = known.as_ref().and_then(|known| known.reason.as_deref());
    let settled = status.replicas == status.updated_replicas && known_reason == Some(NEW_SET_AVAILABLE);
    if !settled {
        judge(&rollout, &mut status, known.as_ref(), deadline);
    }
    report_failures(&rollout, &mut status);
    let recheck = recheck(&rollout, &status, deadline);
    write_status(rollout, status, recheck)
}

fn judge(
    rollout: &Rollout<'_>,
    status: &mut DeploymentStatus,
    known: Option<&DeploymentCondition>,
    deadline: i32,
) {
    let name = rollout.new.as_ref().map(|set| set.name_any());
    let subject = match &name {
        Some(name) => format!("ReplicaSet {name:?}"),
        None => format!("Deployment {:?}", rollout.deployment.name_any()),
    };
    let now = rollout.now;
    if is_complete(rollout.deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        set(status, condition(PROGRESSING, "True", NEW_SET_AVAILABLE, message, now));
    } else if progressed(rollout.deployment.status.as_ref(), status) {
        let message = format!("{subject} is progressing.");
        let mut new = condition(PROGRESSING, "True", "ReplicaSetUpdated", message, now);
        if let Some(known) = known.filter(|known| known.status == "True") {
            new.last_transition_time = known.last_transition_time.clone();
        }
        // Replaced even when it says the same: its update time is what the deadline counts from.
        remove(status, PROGRESSING);
        set(status, new);
    } else if timed_out(status, deadline, now) {
        let message = format!("{subject} has timed out progressing.");
        set(status, condition(PROGRESSING, "False", TIMED_OUT, message, now));
    }
}

/// Whether the counts moved towards the goal since the status was last written.
fn progressed(old: Option<&DeploymentStatus>, new: &DeploymentStatus) -> bool {
    let empty = DeploymentStatus::default();
    let old = old.unwrap_or(&empty);
    let of = |count: Option<i32>| count.unwrap_or(0);
    let outdated = |status: &DeploymentStatus| of(status.replicas) - of(status.updated_replicas);
    of(new.updated_replicas) > of(old.updated_replicas)
        || outdated(new) < outdated(old)
        || of(new.ready_replicas) > of(old.ready_replicas)
        || of(new.available_replicas) > of(old.available_replicas)
}

fn timed_out(status: &DeploymentStatus, deadline: i32, now: Timestamp) -> bool {
    let Some(known) = find(status, PROGRESSING) else { return false };
    match known.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => known.last_update_time.as_ref().is_some_and(|from| from.0 + seconds(deadline) < now),
    }
}

/// Passes on that a set cannot create its pods; the new set's trouble comes before the old ones'.
fn report_failures(rollout: &Rollout<'_>, status: &mut DeploymentStatus) {
    let failure_of = |set: &Arc<ReplicaSet>| {
        let conditions = set.status.as_ref().and_then(|status| status.conditions.clone());
        conditions.into_iter().flatten().find(|condition| condition.type_ == "ReplicaFailure")
    };
    let failure =
        rollout.new.as_ref().and_then(failure_of).or_else(|| rollout.old.iter().find_map(failure_of));
    match failure {
        Some(failure) => set(
            status,
            DeploymentCondition {
                type_: failure.type_,
                status: failure.status,
                reason: failure.reason,
                message: failure.message,
                last_update_time: failure.last_transition_time.clone(),
                last_transition_time: failure.last_transition_time,
            },
        ),
        None => remove(status, "ReplicaFailure"),
    }
}

/// When the deadline passes, if it can.
fn recheck(rollout: &Rollout<'_>, status: &DeploymentStatus, deadline: i32) -> Option<Duration> {
    let known = find(status, PROGRESSING)?;
    let waiting = !is_complete(rollout.deployment, status)
        && !matches!(known.reason.as_deref(), Some(NEW_SET_AVAILABLE | TIMED_OUT | PAUSED));
    let from = known.last_update_time.as_ref()?.0;
    waiting.then(|| until(from + seconds(deadline), rollout.now) + Duration::from_secs(1))
}

fn write_status(rollout: Rollout<'_>, status: DeploymentStatus, recheck: Option<Duration>) -> Plan {
    let mut actions = rollout.actions;
    if rollout.deployment.status.as_ref() != Some(&status) {
        actions.push(Action::Status(Box::new(status)));
    }
    Plan { actions, recheck }
}
