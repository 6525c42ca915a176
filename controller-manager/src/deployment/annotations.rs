//! Revision and size annotations of replica sets. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::core::ObjectMeta;

use super::math;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
const HISTORY_CHARACTERS_MAX: usize = 2000;

/// Annotations that are a replica set's own and not copied from its deployment.
const NOT_COPIED: [&str; 6] =
    [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS, ROLLBACK_TO];

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

pub(super) fn revision(meta: &ObjectMeta) -> i64 {
    annotation(meta, REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

/// The deployment's size when the set was last scaled; `None` when it never was.
pub(super) fn desired(set: &ReplicaSet) -> Option<i32> {
    annotation(&set.metadata, DESIRED_REPLICAS)?.parse().ok()
}

/// The deployment's size with surge when the set was last scaled.
pub(super) fn max(set: &ReplicaSet) -> Option<i32> {
    annotation(&set.metadata, MAX_REPLICAS)?.parse().ok()
}

/// Notes the deployment's size on the set.
pub(super) fn set_sizes(set: &mut ReplicaSet, deployment: &Deployment) {
    let wanted = math::wanted(deployment);
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED_REPLICAS.into(), wanted.to_string());
    annotations.insert(MAX_REPLICAS.into(), (wanted + math::max_surge(deployment)).to_string());
}

/// Makes `set` the newest revision: takes over the deployment's annotations and raises the revision, keeping the one
/// it had before in its history.
pub(super) fn make_newest(set: &mut ReplicaSet, deployment: &Deployment, new_revision: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let old = annotations.get(REVISION).cloned();
    let old_number: i64 = old.as_deref().and_then(|old| old.parse().ok()).unwrap_or(0);
    if old_number >= new_revision {
        return;
    }
    annotations.insert(REVISION.into(), new_revision.to_string());
    if let Some(old) = old {
        extend_history(annotations, &old);
    }
}

fn extend_history(annotations: &mut BTreeMap<String, String>, old: &str) {
    let history = annotations.get(REVISION_HISTORY).cloned().unwrap_or_default();
    let mut revisions: Vec<&str> = history.split(',').filter(|entry| !entry.is_empty()).collect();
    revisions.push(old);
    let length = |revisions: &[&str]| revisions.iter().map(|entry| entry.len() + 1).sum::<usize>();
    while revisions.len() > 1 && length(&revisions) > HISTORY_CHARACTERS_MAX {
        revisions.remove(0);
    }
    annotations.insert(REVISION_HISTORY.into(), revisions.join(","));
}
