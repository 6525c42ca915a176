//! What a node's agent may do: its role, and of everything that is somebody's only what belongs to its own pods.
//!
//! As upstream: secrets and config maps one at a time, and only those that a pod on the node names; pods by
//! `spec.nodeName` or one at a time; tokens only of the accounts of its pods; its own Node, lease and CSINode. What the
//! objects say is for admission to check (`NodeRestriction`). Not yet: secrets that persistent volumes name, resource
//! claims, pod certificates.

use async_trait::async_trait;
use serde_json::Value;

use super::node_graph::{Named, NodeGraph};
use super::rbac::Rule;
use super::{Attributes, Authorizer, Decision, policy};
use crate::http::request_info::RequestInfo;
use crate::objects::Objects;

const NODES: &str = "system:nodes";
const USER_PREFIX: &str = "system:node:";
const LEASES: &str = "kube-node-lease";
const UNRELATED: &str = "no relationship found between node and this object";

/// The authorizer.
pub struct NodeAuthorizer {
    objects: Objects,
    graph: NodeGraph,
    rules: Vec<Rule>,
}

impl NodeAuthorizer {
    /// Looks pods up in the cache.
    pub fn new(objects: Objects) -> Self {
        Self { graph: NodeGraph::new(objects.clone()), objects, rules: policy::node_rules() }
    }

    fn judge(&self, node: &str, info: &RequestInfo) -> Result<(), &'static str> {
        let namespaced = || match info.namespace.as_str() {
            "" => Err("can only read namespaced object of this type"),
            _ => Ok(()),
        };
        match (info.group.as_str(), info.resource.as_str(), info.subresource.as_str()) {
            ("", "secrets", "") => namespaced().and_then(|()| self.related(node, Named::Secret, info)),
            ("", "configmaps", "") => namespaced().and_then(|()| self.related(node, Named::ConfigMap, info)),
            ("", "persistentvolumeclaims", "" | "status") => self.related(node, Named::Claim, info),
            ("", "serviceaccounts", "" | "token") => self.related(node, Named::Account, info),
            ("", "persistentvolumes", "") => self.is_volume_of(node, info.authorized_name()),
            ("storage.k8s.io", "volumeattachments", "") => self.is_attached_to(node, info.authorized_name()),
            ("coordination.k8s.io", "leases", "") => match info.namespace == LEASES {
                false => Err("can only access leases in the \"kube-node-lease\" system namespace"),
                true => {
                    own(node, info, "can only access node lease with the same name as the requesting node")
                }
            },
            ("storage.k8s.io", "csinodes", "") => {
                own(node, info, "can only access CSINode with the same name as the requesting node")
            }
            ("", "nodes", "") => match info.verb {
                // Whose node is written, admission says.
                "get" | "list" | "watch" if info.authorized_name() != node => {
                    Err("a node cannot read all nodes, only its own Node object")
                }
                _ => Ok(()),
            },
            ("", "pods", "") => match info.verb {
                "get" => self.related(node, Named::Pod, info),
                "list" | "watch" if info.selected_node == node => Ok(()),
                "list" | "watch" if info.authorized_name().is_empty() => {
                    Err("can only list/watch pods with spec.nodeName field selector")
                }
                "list" | "watch" => self.related(node, Named::Pod, info),
                _ => Ok(()),
            },
            ("", "secrets" | "configmaps" | "persistentvolumeclaims" | "persistentvolumes", _) => {
                Err("cannot access subresources of this type")
            }
            _ => Ok(()),
        }
    }

    fn related(&self, node: &str, kind: Named, info: &RequestInfo) -> Result<(), &'static str> {
        match info.authorized_name() {
            "" => Err("No Object name found"),
            name if self.graph.has(node, kind, &info.namespace, name) => Ok(()),
            _ => Err(UNRELATED),
        }
    }

    /// A volume belongs to a node by the claim that it is bound to.
    fn is_volume_of(&self, node: &str, name: &str) -> Result<(), &'static str> {
        let volume = self.objects.get("core/persistentvolumes", "", name).ok_or(UNRELATED)?;
        let claim = volume.pointer("/spec/claimRef").ok_or(UNRELATED)?;
        let text = |field: &str| claim.get(field).and_then(Value::as_str).unwrap_or_default();
        if self.graph.has(node, Named::Claim, text("namespace"), text("name")) {
            Ok(())
        } else {
            Err(UNRELATED)
        }
    }

    fn is_attached_to(&self, node: &str, name: &str) -> Result<(), &'static str> {
        let attachment = self.objects.get("storage.k8s.io/volumeattachments", "", name).ok_or(UNRELATED)?;
        if attachment.pointer("/spec/nodeName").is_some_and(|place| place == node) {
            Ok(())
        } else {
            Err(UNRELATED)
        }
    }
}

/// On creation the name is not known yet; admission looks at it.
fn own(node: &str, info: &RequestInfo, why: &'static str) -> Result<(), &'static str> {
    if info.verb == "create" || info.name == node { Ok(()) } else { Err(why) }
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let Some(node) = node_of(attributes.user) else { return Decision::NoOpinion(String::new()) };
        let info = attributes.info;
        if !self.rules.iter().any(|rule| rule.allows(info)) {
            return Decision::NoOpinion(String::new());
        }
        let judged = match self.judge(node, info) {
            // A pod may have been bound a moment ago, on another server.
            Err(_) if self.objects.catch_up().await => self.judge(node, info),
            judged => judged,
        };
        match judged {
            Ok(()) => Decision::Allow(String::new()),
            Err(why) => Decision::NoOpinion(why.to_string()),
        }
    }
}

/// The node's name, if the user is a node.
pub fn node_of(user: &crate::auth::UserInfo) -> Option<&str> {
    user.name.strip_prefix(USER_PREFIX).filter(|name| !name.is_empty() && user.is_in(NODES))
}
