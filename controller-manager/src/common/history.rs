//! Controller revisions: the templates that a daemon set or stateful set has had. Pure but for `apply`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use client::patch::update;
use client::{ErrorExt, Forgive, ObjectKey, Outcome};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::ReconcileError;
use super::template::{Fnv1a, safe_encode};

pub(crate) const REVISION_HASH: &str = "controller-revision-hash";

/// The history of one owner, with the revision of its present template.
#[derive(Debug)]
pub(crate) struct History {
    /// All revisions, oldest first, the present one last.
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// The revision of the present template.
    pub present: Arc<ControllerRevision>,
    /// Whether `present` has to be created.
    pub is_new: bool,
    /// `present` as stored, when its number has to be raised because an earlier template came back.
    pub raised_from: Option<Arc<ControllerRevision>>,
}

/// The part of the owner that a revision keeps, as a patch that restores it.
fn data_of(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Some(object) = template.as_object_mut() {
        object.insert("$patch".into(), json!("replace"));
    }
    json!({ "spec": { "template": template } })
}

/// The template that a revision keeps.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The hash in a revision's name.
pub(crate) fn hash_of(revision: &ControllerRevision) -> String {
    revision.labels().get(REVISION_HASH).cloned().unwrap_or_default()
}

/// Finds the revision of the template, or plans it.
pub(crate) fn history(
    owner: &OwnerReference,
    owner_meta: &ObjectMeta,
    template: &PodTemplateSpec,
    existing: &[Arc<ControllerRevision>],
    collisions: Option<i32>,
) -> History {
    let mut revisions = existing.to_vec();
    revisions.sort_by_key(|revision| (revision.revision, revision.name_any()));
    let data = data_of(template);
    let newest = revisions.last().map_or(0, |revision| revision.revision);
    let same = |revision: &Arc<ControllerRevision>| template_of(revision).as_ref() == Some(template);
    if let Some(index) = revisions.iter().rposition(same) {
        let known = revisions.remove(index);
        let is_newest = index == revisions.len();
        let mut present = known.clone();
        if !is_newest {
            let mut raised = known.as_ref().clone();
            raised.revision = newest + 1;
            present = Arc::new(raised);
        }
        revisions.push(present.clone());
        return History { revisions, present, is_new: false, raised_from: (!is_newest).then_some(known) };
    }
    let mut hash = Fnv1a::default();
    hash.write(&serde_json::to_vec(&data).unwrap_or_default());
    if let Some(collisions) = collisions {
        hash.write(&collisions.to_le_bytes());
    }
    let hash = safe_encode(&hash.0.to_string());
    let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(REVISION_HASH.into(), hash.clone());
    let present = Arc::new(ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", owner.name)),
            namespace: owner_meta.namespace.clone(),
            labels: Some(labels),
            // `rollout history` shows the cause of the change from here.
            annotations: annotations_of(owner_meta),
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: newest + 1,
    });
    revisions.push(present.clone());
    History { revisions, present, is_new: true, raised_from: None }
}

fn annotations_of(owner: &ObjectMeta) -> Option<BTreeMap<String, String>> {
    let mut annotations = owner.annotations.clone()?;
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    Some(annotations).filter(|annotations| !annotations.is_empty())
}

/// Revisions beyond the limit, oldest first; those in use are not counted.
pub(crate) fn surplus(
    history: &History,
    in_use: &HashSet<String>,
    limit: Option<i32>,
) -> Vec<Arc<ControllerRevision>> {
    let unused: Vec<_> = history
        .revisions
        .iter()
        .filter(|revision| {
            revision.name_any() != history.present.name_any() && !in_use.contains(&revision.name_any())
        })
        .cloned()
        .collect();
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let count = unused.len().saturating_sub(limit);
    unused.into_iter().take(count).collect()
}

/// Writes what the history plans. `Some` when the rest of the reconcile has to wait for the cache.
pub(crate) async fn apply(
    api: &Api<ControllerRevision>,
    key: &ObjectKey,
    history: &History,
) -> Result<Option<Outcome>, ReconcileError> {
    if history.is_new {
        match api.create(&PostParams::default(), history.present.as_ref()).await {
            Ok(_) => {}
            Err(error) if error.is_namespace_terminating() => return Ok(Some(Outcome::Done)),
            Err(error) if error.is_already_exists() => {
                let existing = api.get(&history.present.name_any()).await?;
                if template_of(&existing) != template_of(&history.present) {
                    let name = existing.name_any();
                    return Err(ReconcileError::Unusable(format!(
                        "{key}: revision {name} belongs to another template"
                    )));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(old) = &history.raised_from {
        update(api, old.as_ref(), history.present.as_ref()).await?;
    }
    Ok(None)
}

/// Deletes revisions.
pub(crate) async fn delete(
    api: &Api<ControllerRevision>,
    revisions: Vec<Arc<ControllerRevision>>,
) -> Result<(), kube::Error> {
    for revision in revisions {
        api.delete(&revision.name_any(), &DeleteParams::default()).await.if_found()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "image": image}]}})).unwrap()
    }

    fn plan(image: &str, existing: &[Arc<ControllerRevision>]) -> History {
        let owner = OwnerReference { name: "ds".into(), ..OwnerReference::default() };
        history(&owner, &ObjectMeta::default(), &template(image), existing, None)
    }

    #[test]
    fn a_template_that_comes_back_becomes_the_newest_revision_again() {
        let first = plan("v1", &[]);
        assert!(first.is_new && first.present.revision == 1);
        let second = plan("v2", &first.revisions);
        assert!(second.is_new && second.present.revision == 2);
        let same = plan("v2", &second.revisions);
        assert!(!same.is_new && same.raised_from.is_none());
        let back = plan("v1", &second.revisions);
        assert!(!back.is_new && back.raised_from.is_some());
        assert_eq!((back.present.name_any(), back.present.revision), (first.present.name_any(), 3));
        assert_eq!(template_of(&back.present), Some(template("v1")));
    }

    #[test]
    fn only_unused_revisions_beyond_the_limit_go() {
        let mut all: Vec<Arc<ControllerRevision>> = Vec::new();
        for image in ["v1", "v2", "v3", "v4"] {
            all = plan(image, &all).revisions;
        }
        let history = plan("v4", &all);
        let in_use = HashSet::from([all[0].name_any()]);
        let names: Vec<_> = surplus(&history, &in_use, Some(1)).iter().map(|old| old.revision).collect();
        assert_eq!(names, [2]);
    }
}
