//! Versions of a pod's object: the spec is the API's, the status is the worker's, whose last word the API may not have yet.

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::conditions;

/// Whether two versions differ in what the agent acts upon.
pub fn differs(new: &Pod, old: &Pod) -> bool {
    let (new_meta, old_meta) = (&new.metadata, &old.metadata);
    new.spec != old.spec
        || new.status != old.status
        || new_meta.labels != old_meta.labels
        || new_meta.annotations != old_meta.annotations
        || new_meta.deletion_timestamp != old_meta.deletion_timestamp
        || new_meta.deletion_grace_period_seconds != old_meta.deletion_grace_period_seconds
        || new_meta.generation != old_meta.generation
}

/// A newer version of the object with the status that the worker made: the API's may be older. Conditions of others are
/// the API's.
pub fn with_own_status(pod: &Pod, own: Option<&PodStatus>) -> Pod {
    let mut merged = pod.clone();
    let Some(own) = own else { return merged };
    let mut status = own.clone();
    let theirs = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let is_ours = |kind: &str| conditions::OWN.contains(&kind) || conditions::PASSING.contains(&kind);
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|c| {
        is_ours(&c.type_) || theirs.iter().any(|t| t.type_ == c.type_) || c.type_ == "DisruptionTarget"
    });
    for foreign in theirs.into_iter().filter(|c| !is_ours(&c.type_)) {
        match conditions.iter_mut().find(|c| c.type_ == foreign.type_) {
            Some(known) => *known = foreign,
            None => conditions.push(foreign),
        }
    }
    merged.status = Some(status);
    merged
}
