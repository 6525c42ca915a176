//! Which objects a controller has, may take, and must give up. The sorting is pure; the settling talks to the server.
//!
//! Before anything is adopted the owner is read once from the server itself: a cache may not yet know that it is
//! being deleted, or that it is another object of the same name.

use std::fmt::Debug;
use std::sync::Arc;

use client::owner::{adoption_patch, controller_of, is_controlled_by, release_patch};
use client::{ErrorExt, Index, Informer};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams};
use kube::core::{Selector, SelectorExt};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tracing::debug;

use super::ReconcileError;

/// Finds the objects of one controller, and those without any in one namespace.
pub(crate) struct ClaimIndex<K>(Index<K>);

impl<K> Clone for ClaimIndex<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Resource + 'static> ClaimIndex<K> {
    pub fn new(informer: &Informer<K>) -> Self {
        Self(informer.index("claim", |object| {
            vec![match controller_of(object) {
                Some(reference) => reference.uid.clone(),
                None => orphans_of(object.meta().namespace.as_deref().unwrap_or_default()),
            }]
        }))
    }

    /// What the owner controls.
    pub fn owned(&self, owner_uid: &str) -> Vec<Arc<K>> {
        self.0.get(owner_uid)
    }

    /// What the owner controls, and what nobody controls in its namespace.
    pub fn candidates(&self, owner_uid: &str, namespace: &str) -> Vec<Arc<K>> {
        let mut all = self.0.get(owner_uid);
        all.extend(self.0.get(&orphans_of(namespace)));
        all
    }
}

fn orphans_of(namespace: &str) -> String {
    format!("orphans/{namespace}")
}

/// Candidates, sorted.
#[derive(Debug)]
pub(crate) struct Claims<K> {
    /// Controlled by the owner and still matching.
    pub owned: Vec<Arc<K>>,
    /// Matching, and controlled by nobody.
    pub adopt: Vec<Arc<K>>,
    /// Controlled by the owner but no longer matching.
    pub release: Vec<Arc<K>>,
}

/// Sorts candidates. An owner that is being deleted takes nothing and gives up nothing.
pub(crate) fn sort_claims<K: Resource>(
    candidates: Vec<Arc<K>>,
    owner_uid: &str,
    owner_deleting: bool,
    selector: &Selector,
) -> Claims<K> {
    let mut claims = Claims { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    let none = std::collections::BTreeMap::new();
    for object in candidates {
        let meta = object.meta();
        let matches = selector.matches(meta.labels.as_ref().unwrap_or(&none));
        let deleting = meta.deletion_timestamp.is_some();
        if is_controlled_by(object.as_ref(), owner_uid) {
            if matches {
                claims.owned.push(object);
            } else if !owner_deleting {
                claims.release.push(object);
            }
        } else if matches && !deleting && !owner_deleting && controller_of(object.as_ref()).is_none() {
            claims.adopt.push(object);
        }
    }
    claims
}

/// Adopts and releases on the server. Returns everything that the owner has afterwards.
pub(crate) async fn settle_claims<O, K>(
    claims: Claims<K>,
    owners: &Api<O>,
    objects: &Api<K>,
    owner: &OwnerReference,
) -> Result<Vec<Arc<K>>, ReconcileError>
where
    O: Resource + Clone + DeserializeOwned + Debug,
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let Claims { mut owned, adopt, release } = claims;
    for object in release {
        let patch = release_patch(&owner.uid, object.meta().uid.as_deref().unwrap_or_default());
        ignore_gone(patch_object(objects, object.as_ref(), &patch).await)?;
    }
    if !adopt.is_empty() {
        let fresh = owners.get(&owner.name).await?;
        let same = fresh.meta().uid.as_deref() == Some(owner.uid.as_str());
        if !same || fresh.meta().deletion_timestamp.is_some() {
            debug!(owner = %owner.name, "not adopting: the owner is gone or going");
            return Ok(owned);
        }
    }
    for object in adopt {
        let patch = adoption_patch(owner, object.meta().uid.as_deref().unwrap_or_default());
        if ignore_gone(patch_object(objects, object.as_ref(), &patch).await)? {
            owned.push(object);
        }
    }
    Ok(owned)
}

async fn patch_object<K>(api: &Api<K>, object: &K, patch: &serde_json::Value) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let name = object.meta().name.as_deref().unwrap_or_default();
    api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(|_| ())
}

/// An object that is gone, or is another one by now (its UID precondition fails), needs nothing. Whether it was there.
fn ignore_gone(result: Result<(), kube::Error>) -> Result<bool, ReconcileError> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() || error.is_invalid() || error.is_conflict() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{controlled_by, labelled, running_pod};

    fn selector() -> Selector {
        [("app".to_string(), "web".to_string())].into_iter().collect()
    }

    #[test]
    fn matching_orphans_are_adopted_and_strangers_of_ours_released() {
        let ours = Arc::new(controlled_by(labelled(running_pod("ours", "n"), "app", "web"), "me"));
        let relabelled =
            Arc::new(controlled_by(labelled(running_pod("relabelled", "n"), "app", "debug"), "me"));
        let orphan = Arc::new(labelled(running_pod("orphan", "n"), "app", "web"));
        let other = Arc::new(controlled_by(labelled(running_pod("other", "n"), "app", "web"), "you"));
        let candidates = vec![ours.clone(), relabelled.clone(), orphan.clone(), other];
        let claims = sort_claims(candidates.clone(), "me", false, &selector());
        assert!(Arc::ptr_eq(&claims.owned[0], &ours) && claims.owned.len() == 1);
        assert!(Arc::ptr_eq(&claims.adopt[0], &orphan) && claims.adopt.len() == 1);
        assert!(Arc::ptr_eq(&claims.release[0], &relabelled) && claims.release.len() == 1);
        let deleting = sort_claims(candidates, "me", true, &selector());
        assert!(deleting.adopt.is_empty() && deleting.release.is_empty());
    }
}
