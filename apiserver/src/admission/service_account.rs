//! Every pod runs as a service account: the default one unless it names another, with a token that the agent renews.

use std::sync::Arc;

use api::ApiError;
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Admission, AdmissionRequest, Operation};
use crate::objects::Objects;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MIRROR_ANNOTATION: &str = "/metadata/annotations/kubernetes.io~1config.mirror";
const TOKEN_SECONDS: u32 = 3607;

/// The plugin.
pub struct ServiceAccount {
    objects: Objects,
}

impl ServiceAccount {
    /// Looks accounts up in the cache.
    pub fn new(objects: Objects) -> Self {
        Self { objects }
    }

    async fn account(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let find = || self.objects.look_up("core/serviceaccounts", namespace, name);
        match find() {
            None if self.objects.catch_up().await => find(),
            found => found,
        }
    }
}

#[async_trait]
impl Admission for ServiceAccount {
    async fn mutate(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> Result<(), ApiError> {
        if !request.is("", "pods") || request.operation != Operation::Create {
            return Ok(());
        }
        if pod.pointer(MIRROR_ANNOTATION).is_some() {
            return Ok(());
        }
        let named = pod.pointer("/spec/serviceAccountName").and_then(Value::as_str).unwrap_or_default();
        let name = if named.is_empty() { "default".to_string() } else { named.to_string() };
        let account = self.account(request.namespace, &name).await.ok_or_else(|| {
            let why = format!(
                "error looking up service account {}/{name}: serviceaccount {name:?} not found",
                request.namespace
            );
            request.forbidden(&why)
        })?;
        let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        spec.insert("serviceAccountName".into(), name.as_str().into());
        spec.insert("serviceAccount".into(), name.as_str().into());
        let has_pull_secrets =
            spec.get("imagePullSecrets").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        if let Some(secrets) = account.get("imagePullSecrets").filter(|_| !has_pull_secrets) {
            spec.insert("imagePullSecrets".into(), secrets.clone());
        }
        let wanted = |object: Option<&Value>| object?.get("automountServiceAccountToken")?.as_bool();
        let mounts = spec.get("automountServiceAccountToken").and_then(Value::as_bool);
        if mounts.or(wanted(Some(&account))).unwrap_or(true) {
            mount_token(spec);
        }
        Ok(())
    }
}

/// Mounts a token into every container that mounts nothing else there.
fn mount_token(spec: &mut serde_json::Map<String, Value>) {
    let volume = format!("kube-api-access-{}", suffix());
    let mut mounted = false;
    for kind in ["initContainers", "containers"] {
        for container in spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if !mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
                mounted = true;
            }
        }
    }
    if mounted && let Some(volumes) = spec.entry("volumes").or_insert_with(|| json!([])).as_array_mut() {
        volumes.push(token_volume(&volume));
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{
            "path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    (0..5)
        .filter_map(|_| LETTERS.get(rand::Rng::random_range(&mut random, 0..LETTERS.len())))
        .map(|letter| char::from(*letter))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_with_its_own_mount_there_is_left_alone() {
        let mut pod = json!({"containers": [
            {"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]});
        mount_token(pod.as_object_mut().unwrap());
        assert_eq!(pod["containers"][0]["volumeMounts"][0]["mountPath"], MOUNT_PATH);
        assert_eq!(pod["containers"][0]["volumeMounts"][0]["name"], pod["volumes"][0]["name"]);
        assert_eq!(pod["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
    }
}
