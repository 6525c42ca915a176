//! `pods/<name>/binding`, and `bindings`, its older form: puts a pod on a node.

use std::sync::Arc;

use api::ApiError;
use api::field::Look;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::http::respond::{self, Failure};
use crate::http::{RequestBody, Response};
use crate::pipeline::{Call, Change, Core, Target};
use crate::tree::set;

/// Whether the target takes a `Binding`.
pub(super) fn is_binding(target: &Target) -> bool {
    target.row.group().is_empty()
        && (target.subresource == "binding" && target.row.plural == "pods"
            || target.subresource.is_empty() && target.row.plural == "bindings")
}

/// Binds.
pub(super) async fn create(
    core: &Arc<Core>,
    call: &Call,
    target: &Target,
    content: RequestBody,
) -> Result<Response, Failure> {
    let (binding, options) = super::action_body(call, content, ("", "v1", "Binding")).await?;
    let name = match target.name.as_str() {
        "" => api::object::name(&binding).to_string(),
        name => name.to_string(),
    };
    let said = api::object::name(&binding);
    if !said.is_empty() && said != name {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object").into());
    }
    let node = binding.pointer("/target/name").and_then(Value::as_str).unwrap_or_default().to_string();
    if node.is_empty() || !matches!(binding.pointer("/target").map_or("", |t| t.text("kind")), "" | "Node") {
        let error = api::FieldError {
            reason: "FieldValueRequired",
            field: "target.name".to_string(),
            message: "Required value: a node is required".to_string(),
        };
        return Err(ApiError::invalid("", "Binding", &name, &[error]).into());
    }
    let row = core.table().resource("", "v1", "pods").cloned().ok_or_else(crate::pipeline::no_such_path)?;
    let mut pod = Target::internal(&row, &target.namespace, &name);
    pod.subresource = "binding".to_string();
    core.admission.validate(&call.admission(&pod, &options), Some(&binding)).await?;
    let now = call.now.clone();
    let uid = api::object::metadata(&binding, "uid").unwrap_or_default().to_string();
    let annotations = binding.pointer("/metadata/annotations").and_then(Value::as_object).cloned();
    let edit = move |live: &Value| bound(live, &node, &uid, annotations.as_ref(), &now);
    core.change(call, &pod, Change::Edit(Box::new(edit)), &options).await?;
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(respond::value(StatusCode::CREATED, &status, call.form.encoding))
}

/// The pod on its node.
fn bound(
    live: &Value,
    node: &str,
    uid: &str,
    annotations: Option<&Map<String, Value>>,
    now: &str,
) -> Result<Value, ApiError> {
    let name = api::object::name(live);
    let conflict = |why: String| ApiError::conflict("", "pods/binding", name, &why);
    if !uid.is_empty() && api::object::metadata(live, "uid") != Some(uid) {
        return Err(conflict("the pod's UID is another".to_string()));
    }
    if live.pointer("/metadata/deletionTimestamp").is_some() {
        return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let spec = live.get("spec").cloned().unwrap_or_default();
    if !spec.text("nodeName").is_empty() {
        return Err(conflict(format!("pod {name} is already assigned to node {:?}", spec.text("nodeName"))));
    }
    if !spec.items("schedulingGates").is_empty() {
        return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    let mut new = live.clone();
    set(&mut new, &["spec", "nodeName"], node);
    for (key, value) in annotations.into_iter().flatten() {
        set(&mut new, &["metadata", "annotations", key], value.clone());
    }
    set_scheduled(&mut new, now);
    Ok(new)
}

fn set_scheduled(pod: &mut Value, now: &str) {
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
        "observedGeneration": pod.pointer("/metadata/generation"),
    });
    let mut conditions = pod.get("status").map(|s| s.items("conditions").to_vec()).unwrap_or_default();
    conditions.retain(|c| c.text("type") != "PodScheduled");
    conditions.push(condition);
    set(pod, &["status", "conditions"], conditions);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_should_be_bound_once() {
        let pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {}});
        let bound_pod = bound(&pod, "n1", "", None, "t").unwrap();
        assert_eq!(bound_pod["spec"]["nodeName"], "n1");
        assert_eq!(bound_pod["status"]["conditions"][0]["type"], "PodScheduled");
        assert_eq!(bound(&bound_pod, "n2", "", None, "t").unwrap_err().reason.code(), 409);
        assert_eq!(bound(&pod, "n1", "other", None, "t").unwrap_err().reason.code(), 409);
    }
}
