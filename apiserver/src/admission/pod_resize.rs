//! Resizes of pods that are on a node: more than the whole node has to give is refused at once, as upstream.

use api::ApiError;
use api::quantity::Quantity;
use api::quota::{amounts, pod_amounts};
use async_trait::async_trait;
use serde_json::Value;

use super::{Admission, AdmissionRequest, Operation};
use crate::objects::Objects;

/// The plugin.
pub struct PodResize {
    objects: Objects,
}

impl PodResize {
    /// Looks nodes up in the cache.
    pub fn new(objects: Objects) -> Self {
        Self { objects }
    }
}

#[async_trait]
impl Admission for PodResize {
    async fn validate(&self, request: &AdmissionRequest<'_>, object: Option<&Value>) -> Result<(), ApiError> {
        let resized = request.subresource == "resize" && request.operation == Operation::Update;
        let Some(spec) = object.and_then(|pod| pod.get("spec")).filter(|_| resized) else { return Ok(()) };
        let before = request.old.and_then(|pod| pod.get("spec"));
        let node = spec.get("nodeName").and_then(Value::as_str).unwrap_or_default();
        if node.is_empty() || before == Some(spec) {
            return Ok(());
        }
        let Some(node) = self.objects.get("core/nodes", "", node) else {
            return Err(request.forbidden(&format!("node {node:?} not found")));
        };
        let (requests, room) =
            (pod_amounts(spec, "requests", true), amounts(node.pointer("/status/allocatable")));
        let units: [(&str, fn(&Quantity) -> i64); 2] =
            [("cpu", Quantity::milli_value), ("memory", Quantity::value)];
        let lacking = units.into_iter().filter_map(|(name, count)| {
            let (requested, allocatable) =
                (requests.get(name).map_or(0, count), room.get(name).map_or(0, count));
            let text = format!("{name}, requested: {requested}, allocatable: {allocatable}");
            (requested > allocatable).then_some(text)
        });
        let lacking: Vec<String> = lacking.collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let why = format!("node didn't have enough allocatable resources: {}", lacking.join("; "));
        Err(request.forbidden(&why))
    }
}
