//! A pod's runtime class: what it costs beside the containers, and on which nodes it runs.

use api::ApiError;
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Admission, AdmissionRequest, Operation};
use crate::objects::Objects;

/// The plugin.
pub struct RuntimeClass {
    objects: Objects,
}

impl RuntimeClass {
    /// Looks classes up in the cache.
    pub fn new(objects: Objects) -> Self {
        Self { objects }
    }

    /// The class that the pod names; a refusal when there is none of that name.
    fn class_of(&self, request: &AdmissionRequest<'_>, pod: &Value) -> Result<Option<Value>, ApiError> {
        let name = pod.pointer("/spec/runtimeClassName").and_then(Value::as_str).unwrap_or_default();
        if !request.is("", "pods") || request.operation != Operation::Create || name.is_empty() {
            return Ok(None);
        }
        let class = self.objects.get("node.k8s.io/runtimeclasses", "", name);
        let missing = || request.forbidden(&format!("pod rejected: RuntimeClass {name:?} not found"));
        class.ok_or_else(missing).map(Some)
    }
}

#[async_trait]
impl Admission for RuntimeClass {
    async fn mutate(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> Result<(), ApiError> {
        let Some(class) = self.class_of(request, pod)? else { return Ok(()) };
        if let Some(overhead) = class.pointer("/overhead/podFixed").filter(|fixed| !fixed.is_null()) {
            let said = pod.pointer("/spec/overhead").filter(|said| !said.is_null());
            if said.is_some_and(|said| said != overhead) {
                let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
                return Err(request.forbidden(why));
            }
            crate::tree::set(pod, &["spec", "overhead"], overhead.clone());
        }
        let selector = class.pointer("/scheduling/nodeSelector").and_then(Value::as_object);
        for (key, value) in selector.into_iter().flatten() {
            let said = pod.pointer("/spec/nodeSelector").and_then(|selector| selector.get(key));
            if said.is_some_and(|said| said != value) {
                let why = format!("conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}");
                return Err(request.forbidden(&why));
            }
            crate::tree::set(pod, &["spec", "nodeSelector", key], value.clone());
        }
        let wanted = class.pointer("/scheduling/tolerations").and_then(Value::as_array);
        if let Some(wanted) = wanted.filter(|list| !list.is_empty()) {
            let has = pod.pointer("/spec/tolerations").and_then(Value::as_array).cloned();
            let mut all = has.unwrap_or_default();
            all.extend(wanted.iter().filter(|one| !all.contains(one)).cloned().collect::<Vec<_>>());
            crate::tree::set(pod, &["spec", "tolerations"], json!(all));
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, object: Option<&Value>) -> Result<(), ApiError> {
        let Some(pod) = object else { return Ok(()) };
        if !request.is("", "pods") || request.operation != Operation::Create {
            return Ok(());
        }
        let overhead = pod.pointer("/spec/overhead").filter(|o| o.as_object().is_some_and(|o| !o.is_empty()));
        let class = self.class_of(request, pod)?;
        let fixed = class.as_ref().and_then(|class| class.pointer("/overhead/podFixed"));
        if overhead.is_some() && fixed.is_none() {
            return Err(request.forbidden(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            ));
        }
        Ok(())
    }
}
