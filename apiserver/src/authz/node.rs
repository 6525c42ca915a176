//! What a node's agent may do: its role, and of secrets, config maps and tokens only those that its pods name.

use std::collections::HashSet;

use async_trait::async_trait;
use serde_json::Value;

use super::rbac::Rule;
use super::{Attributes, Authorizer, Decision, policy};
use crate::http::request_info::RequestInfo;
use crate::objects::Objects;

const NODES: &str = "system:nodes";
const USER_PREFIX: &str = "system:node:";
const LEASES: &str = "kube-node-lease";

/// The authorizer.
pub struct NodeAuthorizer {
    objects: Objects,
    rules: Vec<Rule>,
}

impl NodeAuthorizer {
    /// Looks pods up in the cache.
    pub fn new(objects: Objects) -> Self {
        Self { objects, rules: policy::node_rules() }
    }

    /// Whether a pod on the node names an object.
    fn is_named(&self, node: &str, info: &RequestInfo, names: impl Fn(&Value) -> HashSet<String>) -> bool {
        if info.namespace.is_empty() || info.authorized_name().is_empty() {
            return false;
        }
        let prefix = crate::objects::prefix_of("core/pods", &info.namespace);
        let pods = self.objects.snapshot("core/pods");
        let here = pods.under(&prefix, None).filter(|pod| {
            pod.fields.iter().any(|(field, value)| field == "spec.nodeName" && **value == *node)
        });
        here.map(|pod| pod.tree()).any(|pod| names(&pod).contains(info.authorized_name()))
    }

    async fn is_named_or_will_be(
        &self,
        node: &str,
        info: &RequestInfo,
        names: impl Fn(&Value) -> HashSet<String> + Send + Sync + Copy,
    ) -> bool {
        // A pod may have been bound a moment ago, on another server.
        self.is_named(node, info, names)
            || (self.objects.catch_up().await && self.is_named(node, info, names))
    }
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let Some(node) = node_of(attributes.user) else { return Decision::NoOpinion(String::new()) };
        let info = attributes.info;
        if !self.rules.iter().any(|rule| rule.allows(info)) {
            return Decision::NoOpinion(String::new());
        }
        let allow = || Decision::Allow("Node: allowed by the node's role".to_string());
        let unless = |allowed: bool, why: &str| {
            if allowed { allow() } else { Decision::NoOpinion(format!("node {node:?}: {why}")) }
        };
        match (info.group.as_str(), info.resource.as_str(), info.subresource.as_str()) {
            ("", "secrets", _) => unless(
                self.is_named_or_will_be(node, info, secrets_of).await,
                "no pod on it uses this secret",
            ),
            ("", "configmaps", _) => unless(
                self.is_named_or_will_be(node, info, config_maps_of).await,
                "no pod on it uses this config map",
            ),
            ("", "persistentvolumeclaims", _) => {
                unless(self.is_named_or_will_be(node, info, claims_of).await, "no pod on it uses this claim")
            }
            ("", "serviceaccounts", "token") => unless(
                self.is_named_or_will_be(node, info, account_of).await,
                "no pod on it uses this account",
            ),
            ("coordination.k8s.io", "leases", _) => {
                let own = info.namespace == LEASES && (info.name == node || info.verb == "create");
                unless(own, "it may only touch its own lease")
            }
            ("storage.k8s.io", "csinodes", _) => {
                unless(info.name == node || info.verb == "create", "it may only touch its own CSINode")
            }
            ("", "nodes", _) if ["update", "patch"].contains(&info.verb) => {
                unless(info.name == node, "it may only change itself")
            }
            _ => allow(),
        }
    }
}

/// The node's name, if the user is a node.
pub fn node_of(user: &crate::auth::UserInfo) -> Option<&str> {
    user.name.strip_prefix(USER_PREFIX).filter(|_| user.is_in(NODES))
}

fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer).and_then(Value::as_str).map(str::to_string)
}

fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"]
        .into_iter()
        .flat_map(|kind| items(pod, kind))
}

/// What `env`, `envFrom` and volumes name, by the words that each uses for the kind.
fn referenced(pod: &Value, env: &str, env_from: &str, volume: &str) -> HashSet<String> {
    let mut names = HashSet::new();
    for container in containers(pod) {
        names.extend(items(container, "/env").filter_map(|e| text(e, &format!("/valueFrom/{env}/name"))));
        names.extend(items(container, "/envFrom").filter_map(|e| text(e, &format!("/{env_from}/name"))));
    }
    for source in items(pod, "/spec/volumes") {
        names.extend(text(source, volume));
        let kind = if env_from == "secretRef" { "secret" } else { "configMap" };
        names.extend(items(source, "/projected/sources").filter_map(|s| text(s, &format!("/{kind}/name"))));
    }
    names
}

fn secrets_of(pod: &Value) -> HashSet<String> {
    let mut names = referenced(pod, "secretKeyRef", "secretRef", "/secret/secretName");
    names.extend(items(pod, "/spec/imagePullSecrets").filter_map(|secret| text(secret, "/name")));
    names
}

fn config_maps_of(pod: &Value) -> HashSet<String> {
    referenced(pod, "configMapKeyRef", "configMapRef", "/configMap/name")
}

fn claims_of(pod: &Value) -> HashSet<String> {
    items(pod, "/spec/volumes")
        .filter_map(|volume| text(volume, "/persistentVolumeClaim/claimName"))
        .collect()
}

fn account_of(pod: &Value) -> HashSet<String> {
    text(pod, "/spec/serviceAccountName").into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_way_to_name_a_secret_is_seen() {
        let pod = json!({"spec": {
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "a"}}}], "envFrom": [{"secretRef": {"name": "b"}}]}],
            "initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "c"}}}]}],
            "imagePullSecrets": [{"name": "d"}],
            "volumes": [{"secret": {"secretName": "e"}}, {"projected": {"sources": [{"secret": {"name": "f"}}]}}],
        }});
        let mut names: Vec<String> = secrets_of(&pod).into_iter().collect();
        names.sort();
        assert_eq!(names, ["a", "b", "c", "d", "e", "f"]);
        assert!(config_maps_of(&pod).is_empty());
    }
}
