//! Replacing daemon pods of earlier templates: either the old one goes first, or with surge the new one comes first. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::decide::{Plan, Snapshot, is_present, min_ready_s};
use crate::common::pods;
use crate::deployment::resolve;

/// On how many nodes an update may be at once.
pub(super) struct Limits {
    /// With a second pod beside the first.
    pub surge: usize,
    /// Without an available pod.
    unavailable: usize,
}

fn strategy_type(set: &DaemonSet) -> &str {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate")
}

/// The limits for so many nodes; percentages are rounded up.
pub(super) fn limits(set: &DaemonSet, nodes: usize) -> Limits {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let total = i32::try_from(nodes).unwrap_or(i32::MAX);
    let number = |value: &IntOrString| usize::try_from(resolve(value, total, true)).unwrap_or(0);
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).map_or(0, number);
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).map_or(1, number);
    Limits { surge, unavailable: if surge == 0 { unavailable.max(1) } else { unavailable } }
}

/// Plans the next replacements on the nodes where daemons belong.
pub(super) fn roll(
    snapshot: &Snapshot<'_>,
    belongs: &[String],
    pods: &BTreeMap<String, Vec<Arc<Pod>>>,
    plan: &mut Plan,
    now: Timestamp,
) {
    if strategy_type(snapshot.set) == "OnDelete" {
        return;
    }
    let limits = limits(snapshot.set, belongs.len());
    let is_available = |pod: &Pod| pods::is_available(pod, min_ready_s(snapshot.set), now);
    let (mut unavailable, mut surging) = (0, 0);
    let mut candidates: Vec<(&String, Arc<Pod>)> = Vec::new();
    for node in belongs {
        let here = pods.get(node).map(Vec::as_slice).unwrap_or_default();
        let mut staying = here.iter().filter(|pod| !pods::is_terminating(pod));
        let old = staying.clone().find(|pod| !is_present(pod, snapshot.hash));
        let new = staying.find(|pod| is_present(pod, snapshot.hash));
        match (old, new) {
            (None, None) => unavailable += 1,
            (None, Some(new)) => unavailable += usize::from(!is_available(new)),
            (Some(old), Some(new)) if is_available(new) => plan.delete.push(old.clone()),
            (Some(_), Some(_)) => surging += 1,
            (Some(old), None) if is_available(old) => candidates.push((node, old.clone())),
            // It serves nobody: no limit protects it.
            (Some(_), None) if limits.surge > 0 => plan.create.push(node.clone()),
            (Some(old), None) => {
                unavailable += 1;
                plan.delete.push(old.clone());
            }
        }
    }
    if limits.surge > 0 {
        let room = limits.surge.saturating_sub(surging);
        plan.create.extend(candidates.into_iter().take(room).map(|(node, _)| node.clone()));
    } else {
        let room = limits.unavailable.saturating_sub(unavailable);
        plan.delete.extend(candidates.into_iter().take(room).map(|(_, pod)| pod));
    }
}
