//! An agent changes its own node and its own pods, and nothing by which it could draw pods, secrets or rights to itself.
//!
//! Beside the Node authorizer, which sees paths, this sees objects: labels and taints of the node, the node of a mirror
//! pod, the pod that a token is for, the name of a new lease. As upstream's plugin. Not yet: resource slices, pod
//! certificates, audiences that CSI drivers ask for.

use api::ApiError;
use async_trait::async_trait;
use serde_json::Value;

use super::{Admission, AdmissionRequest, Operation};
use crate::authz::node::node_of;
use crate::authz::{Attributes, AuthorizerChain, Decision};
use crate::http::request_info::RequestInfo;
use crate::objects::Objects;

const RESTRICTED: &str = "node-restriction.kubernetes.io";
const LEASES: &str = "kube-node-lease";
const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";
/// Labels under `kubernetes.io` and `k8s.io` that an agent may set on its own node.
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// The plugin.
pub struct NodeRestriction {
    objects: Objects,
    authorizers: AuthorizerChain,
}

impl NodeRestriction {
    /// Looks pods and nodes up in the cache; asks whether a node may have tokens for audiences that no pod names.
    pub fn new(objects: Objects, authorizers: AuthorizerChain) -> Self {
        Self { objects, authorizers }
    }
}

#[async_trait]
impl Admission for NodeRestriction {
    async fn validate(&self, request: &AdmissionRequest<'_>, object: Option<&Value>) -> Result<(), ApiError> {
        let Some(node) = node_of(request.user) else { return Ok(()) };
        let refuse = |why: String| Err(request.forbidden(&why));
        let name = request.name;
        match (request.row.storage.group.as_str(), request.row.plural.as_str()) {
            ("", "nodes") => check_node(node, request, object),
            ("", "pods") => self.check_pod(node, request, object),
            ("", "serviceaccounts") if request.subresource == "token" => {
                self.check_token(node, request, object.unwrap_or(&Value::Null)).await
            }
            ("", "persistentvolumeclaims") if request.subresource == "status" => {
                check_claim_status(node, request, object)
            }
            ("", "persistentvolumeclaims") => refuse("may only update PVC status".to_string()),
            ("coordination.k8s.io", "leases") if request.namespace != LEASES => {
                refuse(format!("can only access leases in the {LEASES:?} system namespace"))
            }
            ("coordination.k8s.io", "leases") if name != node => {
                refuse("can only access node lease with the same name as the requesting node".to_string())
            }
            ("storage.k8s.io", "csinodes") if name != node => {
                refuse("can only access CSINode with the same name as the requesting node".to_string())
            }
            _ => Ok(()),
        }
    }
}

fn check_node(node: &str, request: &AdmissionRequest<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    let name = request.name;
    let refuse = |why: &str| Err(request.forbidden(&format!("node {node:?} {why}")));
    if name != node {
        return refuse(&format!("is not allowed to modify node {name:?}"));
    }
    let Some(new) = object else { return Ok(()) };
    let part = |object: Option<&Value>, pointer: &str| {
        let value = object.and_then(|object| object.pointer(pointer)).cloned();
        value.filter(|v| !v.is_null() && v.as_array().is_none_or(|list| !list.is_empty()))
    };
    let forbidden = forbidden_labels(Some(new), request.old).join(", ");
    let Some(old) = request.old else {
        return match forbidden.as_str() {
            "" => Ok(()),
            labels => refuse(&format!("is not allowed to set the following labels: {labels}")),
        };
    };
    if part(Some(new), "/spec/taints") != part(Some(old), "/spec/taints") {
        return refuse("is not allowed to modify taints");
    }
    if part(Some(new), "/metadata/ownerReferences") != part(Some(old), "/metadata/ownerReferences") {
        return refuse("is not allowed to modify ownerReferences");
    }
    if !forbidden.is_empty() {
        return Err(request.forbidden(&format!("is not allowed to modify labels: {forbidden}")));
    }
    Ok(())
}

/// The labels that differ and are none of the node's to set, sorted.
fn forbidden_labels(new: Option<&Value>, old: Option<&Value>) -> Vec<String> {
    let labels = |object: Option<&Value>| {
        object
            .and_then(|o| o.pointer("/metadata/labels"))
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    let (new, old) = (labels(new), labels(old));
    let changed = new.iter().filter(|(key, value)| old.get(*key) != Some(value)).map(|(key, _)| key);
    let removed = old.keys().filter(|key| !new.contains_key(*key));
    let mut forbidden: Vec<String> = changed.chain(removed).filter(|key| !may_set(key)).cloned().collect();
    forbidden.sort();
    forbidden
}

fn may_set(label: &str) -> bool {
    let Some((namespace, _)) = label.split_once('/') else { return true };
    let within = |domain: &str| namespace == domain || namespace.ends_with(&format!(".{domain}"));
    if within(RESTRICTED) {
        return false;
    }
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    OWN_LABELS.contains(&label) || within("kubelet.kubernetes.io") || within("node.kubernetes.io")
}

fn check_claim_status(
    node: &str,
    request: &AdmissionRequest<'_>,
    object: Option<&Value>,
) -> Result<(), ApiError> {
    let bare = |object: Option<&Value>| {
        let mut object = object.cloned().unwrap_or_default();
        let drop = |part: Option<&mut Value>, fields: &[&str]| {
            if let Some(map) = part.and_then(Value::as_object_mut) {
                map.retain(|field, _| !fields.contains(&field.as_str()));
            }
        };
        drop(object.get_mut("metadata"), &["resourceVersion", "managedFields"]);
        let growing = ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"];
        drop(object.get_mut("status"), &growing);
        object
    };
    if bare(object) != bare(request.old) {
        let why = format!(
            "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
        );
        return Err(request.forbidden(&why));
    }
    Ok(())
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl NodeRestriction {
    fn check_pod(
        &self,
        node: &str,
        request: &AdmissionRequest<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        let refuse = |why: &str| Err(request.forbidden(&format!("node {node:?} {why}")));
        let known = || {
            let old = request.old.cloned();
            old.or_else(|| self.objects.get("core/pods", request.namespace, request.name))
        };
        let is_own = |pod: &Value| text(pod, "/spec/nodeName") == node;
        match (request.operation, request.subresource) {
            (Operation::Create, "") => self.check_mirror(node, request, object.unwrap_or(&Value::Null)),
            (Operation::Delete, "") => match known() {
                Some(pod) if is_own(&pod) => Ok(()),
                _ => refuse("can only delete pods with spec.nodeName set to itself"),
            },
            (Operation::Update, "status") => match request.old {
                Some(old) if !is_own(old) => {
                    refuse("can only update pod status for pods with spec.nodeName set to itself")
                }
                Some(old)
                    if old.pointer("/metadata/labels")
                        != object.and_then(|o| o.pointer("/metadata/labels")) =>
                {
                    refuse("cannot update labels through pod status")
                }
                _ => Ok(()),
            },
            (Operation::Create, "eviction") => match known() {
                Some(pod) if is_own(&pod) => Ok(()),
                _ => refuse("can only evict pods with spec.nodeName set to itself"),
            },
            (operation, "") => refuse(&format!("can only create and delete mirror pods, not {operation:?}")),
            (_, other) => Err(request.forbidden(&format!(
                "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
            ))),
        }
    }

    fn check_mirror(&self, node: &str, request: &AdmissionRequest<'_>, pod: &Value) -> Result<(), ApiError> {
        let refuse = |why: &str| Err(request.forbidden(&format!("node {node:?} {why}")));
        if pod.pointer(MIRROR).is_none() {
            let why = "pod does not have \"kubernetes.io/config.mirror\" annotation";
            return Err(request.forbidden(&format!("{why}, node {node:?} can only create mirror pods")));
        }
        if text(pod, "/spec/nodeName") != node {
            return refuse("can only create pods with spec.nodeName set to itself");
        }
        let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let [owner] = owners.map(Vec::as_slice).unwrap_or_default() else {
            return refuse("can only create pods with a single owner reference set to itself");
        };
        let is = |field: &str, value: &str| owner.get(field).is_some_and(|v| v == value);
        if !is("apiVersion", "v1") || !is("kind", "Node") || !is("name", node) {
            return refuse("can only create pods with an owner reference set to itself");
        }
        if owner.get("controller") != Some(&Value::Bool(true)) {
            return refuse("can only create pods with a controller owner reference set to itself");
        }
        if owner.get("blockOwnerDeletion") == Some(&Value::Bool(true)) {
            return refuse("must not set blockOwnerDeletion on an owner reference");
        }
        let known = self.objects.get("core/nodes", "", node);
        let known = known.ok_or_else(|| ApiError::not_found("", "nodes", node))?;
        if !is("uid", api::object::metadata(&known, "uid").unwrap_or_default()) {
            return refuse("UID mismatch in the owner reference");
        }
        match references_of_mirror(pod) {
            Some(kind) => refuse(&format!("can not create pods that reference {kind}")),
            None => Ok(()),
        }
    }

    async fn check_token(
        &self,
        node: &str,
        request: &AdmissionRequest<'_>,
        asked: &Value,
    ) -> Result<(), ApiError> {
        let refuse = |why: &str| Err(request.forbidden(why));
        let bound = |field: &str| text(asked, &format!("/spec/boundObjectRef/{field}"));
        if bound("apiVersion") != "v1" || bound("kind") != "Pod" || bound("name").is_empty() {
            return refuse("node requested token not bound to a pod");
        }
        if bound("uid").is_empty() {
            return refuse("node requested token with a pod binding without a uid");
        }
        let pod = self.objects.get("core/pods", request.namespace, bound("name"));
        let pod = pod.ok_or_else(|| ApiError::not_found("", "pods", bound("name")))?;
        let uid = api::object::metadata(&pod, "uid").unwrap_or_default();
        if uid != bound("uid") {
            return refuse(&format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                bound("uid")
            ));
        }
        if text(&pod, "/spec/nodeName") != node {
            return refuse("node requested token bound to a pod scheduled on a different node");
        }
        let audience = match asked.pointer("/spec/audiences").and_then(Value::as_array).map(Vec::as_slice) {
            None | Some([]) => "",
            Some([one]) => one.as_str().unwrap_or_default(),
            Some(_) => return refuse("node may only request 0 or 1 audiences"),
        };
        if names_audience(&pod, audience) || self.may_have(request, audience).await {
            return Ok(());
        }
        let user = &request.user.name;
        refuse(&format!(
            "audience {audience:?} not found in pod spec volume, {user} is not authorized to request tokens for this audience"
        ))
    }

    /// Whether a role lets the node have tokens for an audience.
    async fn may_have(&self, request: &AdmissionRequest<'_>, audience: &str) -> bool {
        let info = RequestInfo {
            is_resource: true,
            special_verb: "request-serviceaccounts-token-audience".to_string(),
            version: "v1".to_string(),
            resource: audience.to_string(),
            namespace: request.namespace.to_string(),
            name: request.name.to_string(),
            ..RequestInfo::default()
        };
        let attributes = Attributes { user: request.user, info: &info };
        matches!(self.authorizers.decide(&attributes).await, Decision::Allow(_))
    }
}

fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn names_audience(pod: &Value, audience: &str) -> bool {
    let sources = items(pod, "/spec/volumes").flat_map(|volume| items(volume, "/projected/sources"));
    let tokens = sources.filter_map(|source| source.get("serviceAccountToken"));
    tokens.into_iter().any(|token| text(token, "/audience") == audience)
}

/// What a mirror pod names though it may not: by it a node would get at anything.
fn references_of_mirror(pod: &Value) -> Option<&'static str> {
    if !text(pod, "/spec/serviceAccountName").is_empty() {
        return Some("serviceaccounts");
    }
    if items(pod, "/spec/resourceClaims").next().is_some() {
        return Some("resourceclaims");
    }
    let containers = ["/spec/initContainers", "/spec/containers"].into_iter().flat_map(|l| items(pod, l));
    let mut variables = containers.flat_map(|c| items(c, "/env").chain(items(c, "/envFrom")));
    let by_environment = variables.any(|v| {
        ["/valueFrom/secretKeyRef", "/valueFrom/configMapKeyRef", "/secretRef", "/configMapRef"]
            .into_iter()
            .any(|pointer| v.pointer(pointer).is_some())
    });
    if by_environment || items(pod, "/spec/imagePullSecrets").next().is_some() {
        return Some("secrets or configmaps");
    }
    let local = ["name", "emptyDir", "hostPath", "downwardAPI", "image", "nfs", "gitRepo"];
    let is_local = |volume: &Value| {
        volume.as_object().is_some_and(|map| map.keys().all(|field| local.contains(&field.as_str())))
    };
    (!items(pod, "/spec/volumes").all(is_local)).then_some("volumes of other API objects")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_sets_only_labels_that_draw_no_pods() {
        for label in [
            "disk",
            "example.com/team",
            "kubernetes.io/hostname",
            "node.kubernetes.io/kind",
            "x.kubelet.kubernetes.io/y",
        ] {
            assert!(may_set(label), "{label}");
        }
        for label in [
            "node-restriction.kubernetes.io/pci",
            "a.node-restriction.kubernetes.io/pci",
            "node-role.kubernetes.io/control-plane",
            "k8s.io/x",
            "foo.k8s.io/x",
            "kubernetes.io/other",
        ] {
            assert!(!may_set(label), "{label}");
        }
    }
}
