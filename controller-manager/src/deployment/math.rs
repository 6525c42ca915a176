//! Counting replicas, and the arithmetic of surge and unavailability. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// How many available pods of a set the rollout may count on. A set that was just told to shrink still reports those that
/// it is about to delete.
pub(super) fn dependable(set: &ReplicaSet) -> i32 {
    available(set).min(size(set))
}

pub(super) fn total_size<'a>(sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>) -> i32 {
    sets.into_iter().map(|set| size(set)).sum()
}

pub(super) fn total_available<'a>(sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>) -> i32 {
    sets.into_iter().map(|set| available(set)).sum()
}

pub(super) fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
}

/// Surge (rounded up) and unavailability (rounded down) in pods. When both come to zero one pod may be unavailable,
/// else no step would ever be possible.
pub(super) fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    if !is_rolling(deployment) {
        return (0, 0);
    }
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let replicas = wanted(deployment);
    let quarter = IntOrString::String("25%".into());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&quarter);
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&quarter);
    let (surge, unavailable) = (resolve(surge, replicas, true), resolve(unavailable, replicas, false));
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    fenceposts(deployment).0
}

pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    let replicas = wanted(deployment);
    if replicas == 0 { 0 } else { fenceposts(deployment).1.min(replicas) }
}

/// A number, or a percentage of `total`.
pub(crate) fn resolve(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let scaled = percent.max(0) * i64::from(total.max(0));
            let rounded = if round_up { (scaled + 99) / 100 } else { scaled / 100 };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

/// How large the new set should be now, given what all sets together have.
pub(super) fn new_set_size(deployment: &Deployment, all_total: i32, current: i32) -> i32 {
    let wanted = wanted(deployment);
    if !is_rolling(deployment) {
        return wanted;
    }
    let total_max = wanted + max_surge(deployment);
    if all_total >= total_max {
        return current;
    }
    current + (total_max - all_total).min(wanted - current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_up_for_surge_and_down_for_unavailability() {
        let quarter = IntOrString::String("25%".into());
        assert_eq!((resolve(&quarter, 10, true), resolve(&quarter, 10, false)), (3, 2));
        assert_eq!(resolve(&IntOrString::Int(4), 1, true), 4);
    }
}
