//! `pods/<name>/eviction`: deletes a pod if the disruption budgets that cover it allow.
//!
//! Guarantees that no two evictions use the same allowance: the budget is written, conditional on what was read, before
//! the pod is deleted. The controller that computes budgets sees the pod in `disruptedPods` until it is gone.

use std::sync::Arc;

use api::field::Look;
use api::selector::LabelSelector;
use api::{ApiError, Reason};
use http::StatusCode;
use serde_json::{Value, json};

use crate::admission::AdmissionRequest;
use crate::http::respond::{self, Failure};
use crate::http::{RequestBody, Response};
use crate::pipeline::{Call, Change, Core, DeleteOptions, Target, WriteOptions, delete_options};
use crate::tree::set;

/// The condition of pods that end for the cluster's sake.
const DISRUPTION: &str = "DisruptionTarget";
const BUDGETS: &str = "policy/poddisruptionbudgets";
/// So many pods may be on their way out before the controller has to catch up.
const DISRUPTED_PODS_MAX: usize = 2000;

/// Evicts.
pub(super) async fn create(
    core: &Arc<Core>,
    call: &Call,
    target: &Target,
    content: RequestBody,
) -> Result<Response, Failure> {
    let (eviction, options) = super::action_body(call, content, ("policy", "v1", "Eviction")).await?;
    let said = api::object::name(&eviction);
    if !said.is_empty() && said != target.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object").into());
    }
    let mut deletion = delete_options(&call.query, eviction.get("deleteOptions"))?;
    deletion.dry_run |= options.dry_run;
    let admission = AdmissionRequest { dry_run: deletion.dry_run, ..call.admission(target, &options) };
    core.admission.validate(&admission, Some(&eviction)).await?;
    let pod = core.current(target).await.ok_or_else(|| target.not_found(&target.name))?.tree();
    if needs_allowance(&pod) {
        take_allowance(core, call, &pod, deletion.dry_run).await?;
    }
    // The pod that was judged is the pod that goes.
    if deletion.uid.is_none() {
        deletion.uid = api::object::metadata(&pod, "uid").map(str::to_string);
    }
    if !deletion.dry_run {
        mark(core, call, target, &mut deletion).await?;
    }
    core.delete(call, target, &deletion).await?;
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(respond::value(StatusCode::CREATED, &status, call.form.encoding))
}

/// Says in the pod's status why it ends: jobs and people look for it.
async fn mark(
    core: &Arc<Core>,
    call: &Call,
    target: &Target,
    deletion: &mut DeleteOptions,
) -> Result<(), Failure> {
    let mut status = Target::internal(&target.row, &target.namespace, &target.name);
    status.subresource = "status".to_string();
    let (meant, place, now) = (deletion.clone(), target.clone(), call.now.clone());
    let edit = move |live: &Value| {
        meant.check_preconditions(&place, live)?;
        Ok(disrupted(live, &now))
    };
    let edit = Change::Edit(Box::new(edit));
    let marked = core.change(call, &status, edit, &WriteOptions::default()).await?;
    if let Some(version) = &mut deletion.resource_version {
        *version = marked.object.revision.to_string();
    }
    Ok(())
}

/// The pod with the condition that tells of the eviction.
fn disrupted(pod: &Value, now: &str) -> Value {
    let mut conditions = pod.get("status").map(|s| s.items("conditions").to_vec()).unwrap_or_default();
    let known = conditions.iter().find(|c| c.text("type") == DISRUPTION && c.text("status") == "True");
    let since = known.map_or(now, |known| known.text("lastTransitionTime")).to_string();
    conditions.retain(|condition| condition.text("type") != DISRUPTION);
    conditions.push(json!({"type": DISRUPTION, "status": "True", "lastTransitionTime": since,
        "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}));
    let mut pod = pod.clone();
    set(&mut pod, &["status", "conditions"], conditions);
    pod
}

/// Pods that are finished, not started or already going disturb nobody.
fn needs_allowance(pod: &Value) -> bool {
    let phase = pod.get("status").map_or("", |s| s.text("phase"));
    !matches!(phase, "Succeeded" | "Failed" | "Pending")
        && pod.pointer("/metadata/deletionTimestamp").is_none()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.get("status").map(|s| s.items("conditions")).unwrap_or_default();
    conditions.iter().any(|c| c.text("type") == "Ready" && c.text("status") == "True")
}

async fn take_allowance(core: &Arc<Core>, call: &Call, pod: &Value, dry_run: bool) -> Result<(), Failure> {
    let namespace = api::object::namespace(pod);
    let budgets: Vec<Value> =
        core.objects.list(BUDGETS, namespace).into_iter().filter(|budget| covers(budget, pod)).collect();
    let budget = match budgets.as_slice() {
        [] => return Ok(()),
        [budget] => budget,
        _ => {
            return Err(ApiError::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            )
            .into());
        }
    };
    if !is_ready(pod) && unready_may_go(budget) {
        return Ok(());
    }
    let row = core
        .table()
        .resource("policy", "v1", "poddisruptionbudgets")
        .cloned()
        .ok_or_else(crate::pipeline::no_such_path)?;
    let mut target = Target::internal(&row, namespace, api::object::name(budget));
    target.subresource = "status".to_string();
    let pod_name = api::object::name(pod).to_string();
    let now = call.now.clone();
    let edit = move |live: &Value| with_disruption(live, &pod_name, &now);
    let options = WriteOptions { dry_run, ..WriteOptions::default() };
    match core.change(call, &target, Change::Edit(Box::new(edit)), &options).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.error.reason == Reason::TooManyRequests => Err(failure.retry_after(10)),
        Err(failure) => Err(failure),
    }
}

fn covers(budget: &Value, pod: &Value) -> bool {
    let selector = budget.pointer("/spec/selector");
    let labels = pod.pointer("/metadata/labels");
    LabelSelector::from_object(selector).is_ok_and(|s| s.matches(&labels))
}

/// Whether pods that are not ready may go: always, or as long as the application is healthy without them.
fn unready_may_go(budget: &Value) -> bool {
    if budget.pointer("/spec/unhealthyPodEvictionPolicy").and_then(Value::as_str) == Some("AlwaysAllow") {
        return true;
    }
    let status = budget.get("status").cloned().unwrap_or_default();
    let healthy = status.int("currentHealthy").unwrap_or(0);
    let desired = status.int("desiredHealthy").unwrap_or(0);
    desired > 0 && healthy >= desired
}

/// The budget with one disruption less, or 429.
fn with_disruption(live: &Value, pod_name: &str, now: &str) -> Result<Value, ApiError> {
    let refuse = |cause: String| {
        let mut error = ApiError::new(
            Reason::TooManyRequests,
            "Cannot evict pod as it would violate the pod's disruption budget.",
        );
        error.details = Some(Box::new(json!({
            "causes": [{"reason": "DisruptionBudget", "message": cause}],
        })));
        error
    };
    let name = api::object::name(live);
    let status = live.get("status").cloned().unwrap_or_default();
    let generation = live.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
    if status.int("observedGeneration").unwrap_or(0) < generation {
        return Err(refuse(format!("The disruption budget {name} is still being processed by the server.")));
    }
    let disrupted = status.get("disruptedPods").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    if disrupted > DISRUPTED_PODS_MAX {
        return Err(refuse(format!("The disruption budget {name} has too many pods on their way out.")));
    }
    let allowed = status.int("disruptionsAllowed").unwrap_or(0);
    if allowed <= 0 {
        return Err(refuse(format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status.int("desiredHealthy").unwrap_or(0),
            status.int("currentHealthy").unwrap_or(0)
        )));
    }
    let mut new = live.clone();
    set(&mut new, &["status", "disruptionsAllowed"], allowed - 1);
    set(&mut new, &["status", "disruptedPods", pod_name], now);
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_should_be_used_once() {
        let budget = json!({"metadata": {"name": "b", "generation": 1},
            "status": {"observedGeneration": 1, "disruptionsAllowed": 1}});
        let used = with_disruption(&budget, "p", "t").unwrap();
        assert_eq!(used["status"]["disruptionsAllowed"], 0);
        assert_eq!(used["status"]["disruptedPods"]["p"], "t");
        assert_eq!(with_disruption(&used, "q", "t").unwrap_err().reason, Reason::TooManyRequests);
    }
}
