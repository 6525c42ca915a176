//! Owner references: who controls an object, and how a controller takes or gives up control.
//!
//! Adoption and release are patches with the object's UID as precondition, so that an object deleted and created again
//! under the same name is never touched by mistake.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use serde_json::{Value, json};

/// The reference marked as controller, if the object has one.
pub fn controller_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object.meta().owner_references.iter().flatten().find(|reference| reference.controller == Some(true))
}

/// Whether the object's controller has this UID.
pub fn is_controlled_by<K: Resource>(object: &K, uid: &str) -> bool {
    controller_of(object).is_some_and(|reference| reference.uid == uid)
}

/// A controlling reference to `owner` that also blocks the owner's foreground deletion.
pub fn controller_ref<K: Resource>(owner: &K) -> OwnerReference
where
    K::DynamicType: Default,
{
    let kind = K::DynamicType::default();
    OwnerReference {
        api_version: K::api_version(&kind).into_owned(),
        kind: K::kind(&kind).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The strategic merge patch with which the owner becomes controller of the object with `uid`.
pub fn adoption_patch(owner: &OwnerReference, uid: &str) -> Value {
    json!({ "metadata": { "ownerReferences": [owner], "uid": uid } })
}

/// The strategic merge patch with which the owner gives up the object with `uid`.
pub fn release_patch(owner_uid: &str, uid: &str) -> Value {
    json!({ "metadata": { "ownerReferences": [{ "$patch": "delete", "uid": owner_uid }], "uid": uid } })
}
