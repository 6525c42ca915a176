//! Writes that neither lose other writers' fields nor fight with them.
//!
//! A controller changes a typed copy of what it read; the difference goes to the server as a merge patch. Fields
//! that this build does not know are thus never dropped, and with `resourceVersion` inside the patch a concurrent
//! write is a conflict instead of a lost update.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::backoff::Backoff;

/// Questions about an error that decide what to do next.
pub trait ErrorExt {
    /// The object, or what it refers to, does not exist (404).
    fn is_not_found(&self) -> bool;
    /// Somebody else wrote first (409 Conflict).
    fn is_conflict(&self) -> bool;
    /// An object of that name exists already (409 AlreadyExists).
    fn is_already_exists(&self) -> bool;
    /// The object is not acceptable (422).
    fn is_invalid(&self) -> bool;
    /// A create failed because its namespace is being deleted.
    fn is_namespace_terminating(&self) -> bool;
    /// What went wrong in words for people, as events and conditions tell it: of an answer of the server its message alone.
    fn told(&self) -> String;
}

impl ErrorExt for kube::Error {
    fn is_not_found(&self) -> bool {
        matches!(self, kube::Error::Api(status) if status.is_not_found())
    }

    fn is_conflict(&self) -> bool {
        matches!(self, kube::Error::Api(status) if status.is_conflict())
    }

    fn is_already_exists(&self) -> bool {
        matches!(self, kube::Error::Api(status) if status.is_already_exists())
    }

    fn is_invalid(&self) -> bool {
        matches!(self, kube::Error::Api(status) if status.is_invalid())
    }

    fn is_namespace_terminating(&self) -> bool {
        let kube::Error::Api(status) = self else { return false };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        status.is_forbidden() && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
    }

    fn told(&self) -> String {
        match self {
            kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
            other => other.to_string(),
        }
    }
}

/// Forgives the errors after which nothing is left to do.
pub trait Forgive<T>: Sized {
    /// `None` instead of an error for which `forgiven` holds.
    fn forgive(self, forgiven: impl Fn(&kube::Error) -> bool) -> Result<Option<T>, kube::Error>;

    /// `None` instead of an error that says that the object does not exist.
    fn if_found(self) -> Result<Option<T>, kube::Error> {
        self.forgive(ErrorExt::is_not_found)
    }
}

impl<T> Forgive<T> for Result<T, kube::Error> {
    fn forgive(self, forgiven: impl Fn(&kube::Error) -> bool) -> Result<Option<T>, kube::Error> {
        match self {
            Err(error) if forgiven(&error) => Ok(None),
            result => result.map(Some),
        }
    }
}

/// Runs `attempt` again, up to five times, while it fails with a conflict. Each attempt must read afresh.
pub async fn retry_on_conflict<T, F, Fut>(mut attempt: F) -> Result<T, kube::Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, kube::Error>>,
{
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
    for _ in 0..4 {
        match attempt().await {
            Err(error) if error.is_conflict() => tokio::time::sleep(backoff.next_delay()).await,
            result => return result,
        }
    }
    attempt().await
}

/// Deletes only this object, and no other of the same name.
pub fn only<K: Resource>(object: &K, params: DeleteParams) -> DeleteParams {
    let preconditions = Preconditions { uid: object.meta().uid.clone(), resource_version: None };
    DeleteParams { preconditions: Some(preconditions), ..params }
}

/// Deletes the object only as it was seen: a change since then is a conflict.
pub fn only_unchanged<K: Resource>(object: &K, params: DeleteParams) -> DeleteParams {
    let meta = object.meta();
    let preconditions =
        Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() };
    DeleteParams { preconditions: Some(preconditions), ..params }
}

/// The merge patch that turns `old` into `new`; `None` when there is nothing to change.
pub fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for (name, value) in new {
        match old.get(name) {
            Some(before) => {
                if let Some(change) = merge_diff(before, value) {
                    patch.insert(name.clone(), change);
                }
            }
            None => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Writes the difference between `old` and `new` to the status subresource, failing with a conflict when the object
/// has changed since `old` was read. Writes nothing, and returns `None`, when there is no difference.
pub async fn update_status<K>(api: &Api<K>, old: &K, new: &K) -> Result<Option<K>, kube::Error>
where
    K: Resource + Serialize + DeserializeOwned + Clone + Debug,
{
    let Some(patch) = difference(old, new)? else { return Ok(None) };
    let name = old.meta().name.as_deref().unwrap_or_default();
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(Some)
}

/// Like [`update_status`], for the object itself.
pub async fn update<K>(api: &Api<K>, old: &K, new: &K) -> Result<Option<K>, kube::Error>
where
    K: Resource + Serialize + DeserializeOwned + Clone + Debug,
{
    let Some(patch) = difference(old, new)? else { return Ok(None) };
    let name = old.meta().name.as_deref().unwrap_or_default();
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(Some)
}

fn difference<K: Resource + Serialize>(old: &K, new: &K) -> Result<Option<Value>, kube::Error> {
    let before = serde_json::to_value(old).map_err(kube::Error::SerdeError)?;
    let after = serde_json::to_value(new).map_err(kube::Error::SerdeError)?;
    let Some(mut patch) = merge_diff(&before, &after) else { return Ok(None) };
    if let Some(object) = patch.as_object_mut()
        && let Some(version) = &old.meta().resource_version
        && let Some(metadata) =
            object.entry("metadata").or_insert_with(|| Value::Object(Map::new())).as_object_mut()
    {
        metadata.insert("resourceVersion".into(), Value::String(version.clone()));
    }
    Ok(Some(patch))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_diff_holds_only_what_changed_and_removes_with_null() {
        let old = json!({"a": 1, "b": {"c": [1, 2], "d": true}, "gone": "x"});
        let new = json!({"a": 1, "b": {"c": [1, 3], "d": true}, "more": 5});
        assert_eq!(merge_diff(&old, &new), Some(json!({"b": {"c": [1, 3]}, "gone": null, "more": 5})));
        assert_eq!(merge_diff(&old, &old), None);
    }
}
