//! Pods bear an unready or unreachable node for five minutes unless they say otherwise; new nodes begin as not ready.

use api::ApiError;
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Admission, AdmissionRequest, Operation};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const SECONDS: u32 = 300;

/// Adds the default tolerations to pods.
pub struct DefaultTolerations;

#[async_trait]
impl Admission for DefaultTolerations {
    async fn mutate(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> Result<(), ApiError> {
        // Also to those that are replaced by somebody who does not know of them: they could not go.
        if request.is("", "pods") && matches!(request.operation, Operation::Create | Operation::Update) {
            add_tolerations(pod);
        }
        Ok(())
    }
}

fn add_tolerations(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    if tolerations.is_null() {
        *tolerations = json!([]);
    }
    let Some(tolerations) = tolerations.as_array_mut() else { return };
    for key in [NOT_READY, UNREACHABLE] {
        let tolerated = tolerations.iter().any(|toleration| {
            let text = |field: &str| toleration.get(field).and_then(Value::as_str).unwrap_or_default();
            (text("key") == key || text("key").is_empty()) && ["", "NoExecute"].contains(&text("effect"))
        });
        if !tolerated {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
        }
    }
}

/// Taints new nodes until a controller has seen that they are ready.
pub struct NotReadyTaint;

#[async_trait]
impl Admission for NotReadyTaint {
    async fn mutate(&self, request: &AdmissionRequest<'_>, node: &mut Value) -> Result<(), ApiError> {
        if !request.is("", "nodes") || request.operation != Operation::Create {
            return Ok(());
        }
        let Some(object) = node.as_object_mut() else { return Ok(()) };
        let spec = object.entry("spec").or_insert_with(|| json!({}));
        let Some(spec) = spec.as_object_mut() else { return Ok(()) };
        let Some(taints) = spec.entry("taints").or_insert_with(|| json!([])).as_array_mut() else {
            return Ok(());
        };
        let tainted = taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule");
        if !tainted {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_says_how_long_keeps_its_word() {
        let mut pod = json!({"spec": {"tolerations": [
            {"key": NOT_READY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]}});
        add_tolerations(&mut pod);
        let tolerations = pod["spec"]["tolerations"].as_array().unwrap();
        assert_eq!(tolerations.len(), 2);
        assert_eq!(tolerations[0]["tolerationSeconds"], 5);
        assert_eq!(tolerations[1]["key"], UNREACHABLE);
    }

    #[test]
    fn a_pod_that_tolerates_everything_gets_nothing_more() {
        let mut pod = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        add_tolerations(&mut pod);
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 1);
    }
}
