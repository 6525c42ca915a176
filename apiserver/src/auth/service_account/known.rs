//! Tokens whose signature has been checked, and whether what they are bound to still lives.
//!
//! Remembers the hash of a token, never the token. Bounded: the oldest half goes when it is full.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::Digest;
use store::Revision;

use super::{Claims, DELETED_LEEWAY_SECONDS, Reference};
use crate::auth::{Refused, UserInfo};
use crate::objects::Objects;

/// So many tokens are remembered twice over.
const GENERATION_MAX: usize = 4096;

pub(super) type Hash = [u8; 32];

pub(super) fn hash_of(token: &str) -> Hash {
    sha2::Sha256::digest(token).into()
}

/// Tokens by their hash: those seen lately, and those seen before them.
#[derive(Default)]
pub(super) struct KnownTokens {
    young: HashMap<Hash, Arc<Known>>,
    old: HashMap<Hash, Arc<Known>>,
}

impl KnownTokens {
    pub fn get(&mut self, hash: &Hash) -> Option<Arc<Known>> {
        if let Some(known) = self.young.get(hash) {
            return Some(known.clone());
        }
        let known = self.old.remove(hash)?;
        self.insert(*hash, known.clone());
        Some(known)
    }

    pub fn insert(&mut self, hash: Hash, known: Arc<Known>) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, known);
    }
}

/// A token that we have signed.
pub(super) struct Known {
    pub user: UserInfo,
    pub claims: Claims,
    /// What the bound objects were when they were last read: account, pod, secret, node.
    seen: Mutex<[Option<Seen>; 4]>,
}

#[derive(Clone, Copy)]
struct Seen {
    revision: Revision,
    /// In seconds, if the object is being deleted.
    deleted_at: Option<i64>,
}

impl Known {
    pub fn new(user: UserInfo, claims: Claims) -> Self {
        Self { user, claims, seen: Mutex::new([None; 4]) }
    }

    /// A token outlives neither its account nor its pod, secret or node.
    pub fn check_bound(&self, objects: &Objects, now: i64) -> Result<(), Refused> {
        let bound = &self.claims.bound;
        let namespace = bound.namespace.as_str();
        // With a pod the node is told for information; the pod is what counts.
        let node = bound.node.as_ref().filter(|_| bound.pod.is_none());
        let all = [
            ("core/serviceaccounts", namespace, Some(&bound.serviceaccount)),
            ("core/pods", namespace, bound.pod.as_ref()),
            ("core/secrets", namespace, bound.secret.as_ref()),
            ("core/nodes", "", node),
        ];
        let mut seen = self.seen.lock();
        for ((row, place, reference), seen) in all.into_iter().zip(seen.iter_mut()) {
            let Some(wanted) = reference else { continue };
            if !is_alive(objects, row, place, wanted, seen, now) {
                return Err(Refused(format!("the token is bound to {row} {}, which is gone", wanted.name)));
            }
        }
        Ok(())
    }
}

fn is_alive(
    objects: &Objects,
    row: &str,
    namespace: &str,
    wanted: &Reference,
    seen: &mut Option<Seen>,
    now: i64,
) -> bool {
    let Some(object) = objects.cached(row, namespace, &wanted.name) else { return false };
    let state = match *seen {
        Some(state) if state.revision == object.revision => state,
        _ => {
            let Ok(partial) = serde_json::from_slice::<Partial>(&object.encoded) else { return false };
            if partial.metadata.uid != wanted.uid {
                return false;
            }
            let deleted_at = partial.metadata.deletion_timestamp.map(|at| at.as_second());
            *seen.insert(Seen { revision: object.revision, deleted_at })
        }
    };
    state.deleted_at.is_none_or(|at| at >= now - DELETED_LEEWAY_SECONDS)
}

/// The little of an object that matters here.
#[derive(Deserialize)]
struct Partial {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    uid: String,
    deletion_timestamp: Option<Timestamp>,
}
