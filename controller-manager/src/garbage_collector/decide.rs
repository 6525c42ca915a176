//! What becomes of an object, given the state of each of its owners. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PropagationPolicy;
use kube::core::ObjectMeta;

use super::graph::{FOREGROUND, ORPHAN};

/// What an owner reference points to, as the server itself says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum OwnerState {
    /// It exists.
    Solid,
    /// It does not exist, or is another object by now.
    Absent,
    /// It waits for its dependents to go.
    Waiting,
}

#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    Keep,
    /// Remove references to these owners, by UID.
    DropOwners(Vec<String>),
    Delete(Policy),
}

/// How to delete.
#[derive(Debug, PartialEq, Clone, Copy)]
pub(super) enum Policy {
    Background,
    Foreground,
    Orphan,
}

impl From<Policy> for PropagationPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Background => Self::Background,
            Policy::Foreground => Self::Foreground,
            Policy::Orphan => Self::Orphan,
        }
    }
}

/// Decides about an object that is not being deleted yet.
pub(super) fn decide(
    meta: &ObjectMeta,
    owners: &[(OwnerReference, OwnerState)],
    has_dependents: bool,
) -> Decision {
    if owners.is_empty() {
        return Decision::Keep;
    }
    let any = |wanted: OwnerState| owners.iter().any(|(_, state)| *state == wanted);
    if any(OwnerState::Solid) {
        let lost: Vec<String> = owners
            .iter()
            .filter(|(_, state)| *state != OwnerState::Solid)
            .map(|(owner, _)| owner.uid.clone())
            .collect();
        return if lost.is_empty() { Decision::Keep } else { Decision::DropOwners(lost) };
    }
    if any(OwnerState::Waiting) && has_dependents {
        return Decision::Delete(Policy::Foreground);
    }
    let has = |wanted: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == wanted);
    Decision::Delete(if has(ORPHAN) {
        Policy::Orphan
    } else if has(FOREGROUND) {
        Policy::Foreground
    } else {
        Policy::Background
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str, state: OwnerState) -> (OwnerReference, OwnerState) {
        (OwnerReference { uid: uid.into(), ..OwnerReference::default() }, state)
    }

    #[test]
    fn an_object_lives_as_long_as_one_owner_does() {
        let meta = ObjectMeta::default();
        assert_eq!(decide(&meta, &[], false), Decision::Keep);
        assert_eq!(decide(&meta, &[owner("a", OwnerState::Solid)], false), Decision::Keep);
        let mixed = [owner("a", OwnerState::Solid), owner("b", OwnerState::Absent)];
        assert_eq!(decide(&meta, &mixed, false), Decision::DropOwners(vec!["b".into()]));
        assert_eq!(
            decide(&meta, &[owner("b", OwnerState::Absent)], false),
            Decision::Delete(Policy::Background)
        );
    }

    #[test]
    fn a_foreground_deletion_passes_down_only_through_objects_with_dependents() {
        let waiting = [owner("a", OwnerState::Waiting)];
        let meta = ObjectMeta::default();
        assert_eq!(decide(&meta, &waiting, true), Decision::Delete(Policy::Foreground));
        assert_eq!(decide(&meta, &waiting, false), Decision::Delete(Policy::Background));
    }
}
