//! Writes a pod's status to the API: only what changed, only the status, and always the newest.
//!
//! Statuses that are overtaken before they are written are never written. What somebody else wrote over the agent's part
//! is put right when the agent sees it.

use std::sync::Arc;
use std::time::Duration;

use client::ErrorExt;
use client::backoff::Backoff;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::conditions;
use super::spec::PodExt;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// How long a change that nobody waits for may wait for the next one.
const SETTLE: Duration = Duration::from_millis(100);

#[derive(Clone, Default)]
struct Wanted {
    status: Arc<PodStatus>,
    /// What the API was last seen to have, with its version.
    seen: Option<(u64, Arc<PodStatus>)>,
    generation: u64,
}

/// A pod's status on its way to the API.
pub struct StatusWriter {
    wanted: watch::Sender<Wanted>,
    written: watch::Receiver<u64>,
    task: tokio::task::AbortHandle,
}

impl StatusWriter {
    /// A writer for a pod. `told` is called with nothing when the object turns out to be gone.
    pub fn new(client: &kube::Client, pod: &Pod) -> Self {
        let (wanted, receiver) = watch::channel(Wanted::default());
        let (sender, written) = watch::channel(0);
        let writing = Writing {
            api: Api::namespaced(client.clone(), pod.namespace()),
            name: pod.name().to_string(),
            uid: pod.uid().to_string(),
            base: to_map(pod.status.as_ref()),
            base_version: version(pod),
        };
        let task = tokio::spawn(writing.run(receiver, sender)).abort_handle();
        Self { wanted, written, task }
    }

    /// Writes this status as soon as possible.
    pub fn set(&self, status: &PodStatus) {
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted.status != *status;
            if changed {
                wanted.status = Arc::new(status.clone());
                wanted.generation += 1;
            }
            changed
        });
    }

    /// The API was seen to have this object.
    pub fn seen(&self, pod: &Pod) {
        let status = Arc::new(pod.status.clone().unwrap_or_default());
        self.wanted.send_modify(|wanted| wanted.seen = Some((version(pod), status)));
    }

    /// Waits until the newest status has been written, or cannot be.
    pub async fn flushed(&self) {
        let generation = self.wanted.borrow().generation;
        let mut written = self.written.clone();
        // The task ends when the object is gone: then there is nothing left to write.
        drop(written.wait_for(|done| *done >= generation).await);
    }
}

impl Drop for StatusWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn to_map(status: Option<&PodStatus>) -> Map<String, Value> {
    match status.map(serde_json::to_value) {
        Some(Ok(Value::Object(map))) => map,
        _ => Map::new(),
    }
}

struct Writing {
    api: Api<Pod>,
    name: String,
    uid: String,
    /// What the API has.
    base: Map<String, Value>,
    base_version: u64,
}

impl Writing {
    async fn run(mut self, mut wanted: watch::Receiver<Wanted>, written: watch::Sender<u64>) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        while wanted.changed().await.is_ok() {
            self.settle(&mut wanted).await;
            loop {
                let Wanted { status, seen, generation } = wanted.borrow_and_update().clone();
                if let Some((version, status)) = seen.filter(|(version, _)| *version > self.base_version) {
                    self.base = to_map(Some(&status));
                    self.base_version = version;
                }
                if generation == 0 {
                    break;
                }
                match self.write(&status).await {
                    Ok(()) => {
                        backoff.reset();
                        written.send_replace(generation);
                        break;
                    }
                    Err(error) if error.is_invalid() => {
                        tracing::error!(pod = self.name, %error, "the API refuses the pod's status");
                        written.send_replace(generation);
                        break;
                    }
                    // The object is gone, or another one has its name.
                    Err(error) if error.is_not_found() => return,
                    Err(error) if error.is_conflict() && self.is_replaced().await => return,
                    Err(error) => {
                        tracing::warn!(pod = self.name, %error, "the pod's status could not be written; trying again");
                        tokio::time::sleep(backoff.next_delay()).await;
                    }
                }
            }
        }
    }

    /// Whether the object is another one by now, or none. Who cannot tell goes on trying.
    async fn is_replaced(&mut self) -> bool {
        match self.api.get_opt(&self.name).await {
            Ok(Some(pod)) if pod.metadata.uid.as_deref() == Some(&self.uid) => {
                self.base_version = version(&pod);
                self.base = to_map(pod.status.as_ref());
                false
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }

    /// Waits a moment for what comes next, unless somebody waits for this: a pod that starts quickly is written once.
    async fn settle(&self, wanted: &mut watch::Receiver<Wanted>) {
        let deadline = tokio::time::Instant::now() + SETTLE;
        while !self.is_urgent(&wanted.borrow().status) {
            if !matches!(tokio::time::timeout_at(deadline, wanted.changed()).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// Whether others act upon the change: the phase, or whether the pod takes requests.
    fn is_urgent(&self, status: &PodStatus) -> bool {
        let ready =
            status.conditions.iter().flatten().find(|c| c.type_ == "Ready").map(|c| c.status.as_str());
        let conditions = self.base.get("conditions").and_then(Value::as_array).into_iter().flatten();
        let mut ready_conditions =
            conditions.filter(|c| c.get("type").and_then(Value::as_str) == Some("Ready"));
        let was_ready = ready_conditions.next().and_then(|c| c.get("status")).and_then(Value::as_str);
        let phase = self.base.get("phase").and_then(Value::as_str);
        status.phase.as_deref() != phase || (ready == Some("True")) != (was_ready == Some("True"))
    }

    async fn write(&mut self, status: &PodStatus) -> Result<(), kube::Error> {
        let Some(patch) = difference(&self.base, &to_map(Some(status))) else { return Ok(()) };
        let body = json!({ "metadata": { "uid": self.uid }, "status": patch });
        let reply =
            self.api.patch_status(&self.name, &PatchParams::default(), &Patch::Strategic(body)).await?;
        self.base_version = version(&reply);
        self.base = to_map(reply.status.as_ref());
        Ok(())
    }
}

/// The strategic merge patch from one status to another. None when they agree.
fn difference(old: &Map<String, Value>, new: &Map<String, Value>) -> Option<Map<String, Value>> {
    let mut patch = Map::new();
    for (key, value) in new {
        let before = old.get(key);
        if before == Some(value) {
            continue;
        }
        let changed = match key.as_str() {
            "conditions" => changed_conditions(before, value),
            "podIPs" | "hostIPs" => replaced_list(before, value),
            _ => Some(value.clone()),
        };
        patch.extend(changed.map(|value| (key.clone(), value)));
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(patch)
}

/// Conditions merge by type: those that are as they were are left out, and nobody else's is touched. Those of the agent's
/// that no longer hold go.
fn changed_conditions(before: Option<&Value>, now: &Value) -> Option<Value> {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let (before, now) = (list(before), list(Some(now)));
    let mut changed: Vec<Value> = Vec::new();
    for condition in now.iter().cloned() {
        let old = before.iter().find(|old| old.get("type") == condition.get("type"));
        if old == Some(&condition) {
            continue;
        }
        let mut condition = condition;
        if let (Some(Value::Object(old)), Value::Object(new)) = (old, &mut condition) {
            // A merge keeps what the patch does not name: a reason that went is named as null.
            for key in old.keys().filter(|key| *key != "lastProbeTime") {
                new.entry(key.clone()).or_insert(Value::Null);
            }
        }
        changed.push(condition);
    }
    let is_in = |list: &[Value], kind: &str| list.iter().any(|c| c.get("type").is_some_and(|t| t == kind));
    let past = conditions::PASSING.into_iter().filter(|kind| is_in(&before, kind) && !is_in(&now, kind));
    changed.extend(past.map(|kind| json!({ "type": kind, "$patch": "delete" })));
    (!changed.is_empty()).then_some(Value::Array(changed))
}

/// Addresses merge by themselves: to change them the list is replaced.
fn replaced_list(before: Option<&Value>, now: &Value) -> Option<Value> {
    let mut list = now.as_array().cloned().unwrap_or_default();
    if before.and_then(Value::as_array).is_some_and(|before| !before.is_empty()) {
        list.push(json!({ "$patch": "replace" }));
    }
    Some(Value::Array(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn only_what_changed_is_written_and_foreign_conditions_are_not() {
        let old = map(json!({"phase": "Pending", "hostIP": "1.1.1.1", "message": "m", "conditions": [
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
            {"type": "PodScheduled", "status": "True"}, {"type": "example.com/gate", "status": "True"},
            {"type": "PodResizePending", "status": "True"}, {"type": "example.com/other", "status": "True"}]}));
        let new = map(json!({"phase": "Running", "hostIP": "1.1.1.1", "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"},
            {"type": "example.com/gate", "status": "True"}]}));
        assert_eq!(
            Value::Object(difference(&old, &new).unwrap()),
            json!({"phase": "Running", "message": null,
                "conditions": [{"type": "Ready", "status": "True", "reason": null},
                    {"type": "PodResizePending", "$patch": "delete"}]})
        );
        assert_eq!(difference(&new, &new), None);
    }
}
