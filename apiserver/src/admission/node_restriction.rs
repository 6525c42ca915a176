//! An agent changes its own node and its own pods, and nothing by which it could draw pods or rights to itself.

use api::ApiError;
use async_trait::async_trait;
use serde_json::Value;

use super::{Admission, AdmissionRequest, Operation};
use crate::authz::node::node_of;
use crate::objects::Objects;

const RESTRICTED_LABELS: &str = "node-restriction.kubernetes.io/";

/// The plugin.
pub struct NodeRestriction {
    objects: Objects,
}

impl NodeRestriction {
    /// Looks pods up in the cache.
    pub fn new(objects: Objects) -> Self {
        Self { objects }
    }
}

#[async_trait]
impl Admission for NodeRestriction {
    async fn validate(&self, request: &AdmissionRequest<'_>, object: Option<&Value>) -> Result<(), ApiError> {
        let Some(node) = node_of(request.user) else { return Ok(()) };
        match (request.row.storage.group.as_str(), request.row.plural.as_str()) {
            ("", "nodes") => check_node(node, request, object),
            ("", "pods") => self.check_pod(node, request, object),
            _ => Ok(()),
        }
    }
}

fn check_node(node: &str, request: &AdmissionRequest<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    let name = object.map_or(request.name, api::object::name);
    if name != node {
        return Err(request.forbidden(&format!("node {node:?} is not allowed to modify node {name:?}")));
    }
    let (Some(new), Some(old)) = (object, request.old) else { return Ok(()) };
    let labels = |object: &Value| {
        object.pointer("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let restricted = |object: &Value| -> Vec<(String, Value)> {
        labels(object).into_iter().filter(|(key, _)| key.starts_with(RESTRICTED_LABELS)).collect()
    };
    if restricted(new) != restricted(old) {
        return Err(request
            .forbidden(&format!("node {node:?} is not allowed to change labels of {RESTRICTED_LABELS}")));
    }
    if request.subresource.is_empty() && new.pointer("/spec/taints") != old.pointer("/spec/taints") {
        return Err(request.forbidden(&format!("node {node:?} is not allowed to modify taints")));
    }
    Ok(())
}

impl NodeRestriction {
    fn check_pod(
        &self,
        node: &str,
        request: &AdmissionRequest<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        let runs_on = |pod: &Value| pod.pointer("/spec/nodeName").and_then(Value::as_str).map(str::to_string);
        match (request.operation, request.subresource) {
            (Operation::Create, "") => {
                let mirror = object.is_some_and(|pod| {
                    pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some()
                });
                if mirror {
                    Ok(())
                } else {
                    Err(request.forbidden(&format!("pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods")))
                }
            }
            (Operation::Update | Operation::Delete, "" | "status") | (Operation::Create, "eviction") => {
                let known = request
                    .old
                    .cloned()
                    .or_else(|| self.objects.get("core/pods", request.namespace, request.name));
                match known.as_ref().and_then(runs_on) {
                    Some(place) if place == node => Ok(()),
                    _ => Err(request.forbidden(&format!(
                        "node {node:?} can only change pods with spec.nodeName set to itself"
                    ))),
                }
            }
            _ => Ok(()),
        }
    }
}
