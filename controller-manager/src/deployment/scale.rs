//! Moving replicas between sets. Pure.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::ResourceExt;

use super::decide::{Action, Rollout};
use super::{annotations, math};

/// Plans a new size for one set and notes the deployment's size on it. Returns whether anything changes.
pub(super) fn resize(rollout: &mut Rollout<'_>, set: &Arc<ReplicaSet>, size: i32) -> bool {
    let mut new = set.as_ref().clone();
    if let Some(spec) = &mut new.spec {
        spec.replicas = Some(size);
    }
    annotations::set_sizes(&mut new, rollout.deployment);
    if new == **set {
        return false;
    }
    let new = Arc::new(new);
    // A set that this plan already creates, updates or scales is still one write: a second one would conflict with the first.
    let mut merged = false;
    for action in &mut rollout.actions {
        match action {
            Action::Update { old, new: planned } | Action::Scale { old, new: planned }
                if planned.name_any() == new.name_any() =>
            {
                *action = Action::Scale { old: old.clone(), new: new.clone() };
                merged = true;
            }
            Action::Create(planned) if planned.name_any() == new.name_any() => {
                **planned = new.as_ref().clone();
                merged = true;
            }
            _ => {}
        }
    }
    if !merged {
        rollout.actions.push(Action::Scale { old: set.clone(), new: new.clone() });
    }
    for known in rollout.old.iter_mut().chain(rollout.new.iter_mut()) {
        if known.name_any() == new.name_any() {
            *known = new.clone();
        }
    }
    math::size(set) != size
}

/// Follows a change of the deployment's size: one active set takes it all; several share it in proportion to their
/// sizes, so that a scale in the middle of a rollout keeps the risk as it was.
pub(super) fn scale(rollout: &mut Rollout<'_>) {
    let wanted = math::wanted(rollout.deployment);
    if let Some(set) = active_or_latest(rollout) {
        if math::size(&set) != wanted {
            resize(rollout, &set, wanted);
        }
        return;
    }
    if is_saturated(rollout) {
        for set in active(&rollout.old) {
            resize(rollout, &set, 0);
        }
        return;
    }
    if math::is_rolling(rollout.deployment) {
        scale_proportionally(rollout);
    }
}

fn active<'a>(sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>) -> Vec<Arc<ReplicaSet>> {
    sets.into_iter().filter(|set| math::size(set) > 0).cloned().collect()
}

/// The only active set, or the newest when none is active; `None` when several are.
fn active_or_latest(rollout: &Rollout<'_>) -> Option<Arc<ReplicaSet>> {
    let mut active = active(rollout.all());
    match active.len() {
        0 => rollout.new.clone().or_else(|| rollout.old.last().cloned()),
        1 => active.pop(),
        _ => None,
    }
}

/// Whether the new set alone already is all that the deployment wants.
fn is_saturated(rollout: &Rollout<'_>) -> bool {
    let wanted = math::wanted(rollout.deployment);
    rollout.new.as_ref().is_some_and(|set| {
        math::size(set) == wanted
            && annotations::desired(set) == Some(wanted)
            && math::available(set) == wanted
    })
}

fn scale_proportionally(rollout: &mut Rollout<'_>) {
    let mut sets = active(rollout.all());
    let wanted = math::wanted(rollout.deployment);
    let allowed = if wanted > 0 { wanted + math::max_surge(rollout.deployment) } else { 0 };
    let to_add = allowed - math::total_size(&sets);
    // The larger give and take first; among equals the newer grow and the older shrink first.
    sets.sort_by_key(|set| set.creation_timestamp().map(|time| time.0));
    if to_add > 0 {
        sets.reverse();
    }
    sets.sort_by_key(|set| Reverse(math::size(set)));
    let mut sizes = Vec::with_capacity(sets.len());
    let mut added = 0;
    for set in &sets {
        let share = proportion(rollout, set, to_add, added);
        added += share;
        sizes.push(math::size(set) + share);
    }
    if to_add != 0
        && let Some(first) = sizes.first_mut()
    {
        *first = (*first + to_add - added).max(0);
    }
    for (set, size) in sets.iter().zip(sizes) {
        resize(rollout, set, size);
    }
}

/// One set's share of what is to be added (or, negative, removed).
fn proportion(rollout: &Rollout<'_>, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    let size = math::size(set);
    if size == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let wanted = math::wanted(rollout.deployment);
    let fraction = if wanted == 0 {
        -size
    } else {
        let total = wanted + math::max_surge(rollout.deployment);
        let before = annotations::max(set)
            .filter(|max| *max > 0)
            .unwrap_or_else(|| rollout.status.replicas.unwrap_or(0).max(1));
        let scaled = f64::from(size) * f64::from(total) / f64::from(before);
        #[allow(clippy::cast_possible_truncation)]
        let rounded = scaled.round() as i32;
        rounded - size
    };
    let left = to_add - added;
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

/// Shrinks old sets as far as availability allows: first by what is not available anyway, then by what the new set's
/// available pods make dispensable. Returns whether any shrank.
pub(super) fn shrink_old(rollout: &mut Rollout<'_>) -> bool {
    if math::total_size(&rollout.old) == 0 {
        return false;
    }
    let wanted = math::wanted(rollout.deployment);
    let available_min = wanted - math::max_unavailable(rollout.deployment);
    let new_unavailable = rollout.new.as_ref().map_or(0, |set| math::size(set) - math::available(set));
    let budget = rollout.total_size() - available_min - new_unavailable;
    if budget <= 0 {
        return false;
    }
    let mut removed = 0;
    for set in rollout.old.clone() {
        let (size, available) = (math::size(&set), math::available(&set));
        if removed >= budget || size == 0 || size <= available {
            continue;
        }
        let step = (budget - removed).min(size - available);
        resize(rollout, &set, size - step);
        removed += step;
    }
    let spare = rollout.all().map(|set| math::dependable(set)).sum::<i32>() - available_min;
    let mut given = 0;
    for set in rollout.old.clone() {
        let size = math::size(&set);
        if given >= spare || size == 0 {
            continue;
        }
        let step = size.min(spare - given);
        resize(rollout, &set, size - step);
        given += step;
    }
    removed > 0 || given > 0
}
