//! What the scheduler does to the cluster: binds, says why not, evicts.

use std::sync::Arc;

use client::{ErrorExt, EventRecorder, EventType};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ObjectMeta, Status};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::decide::{Nomination, Unschedulable};
use crate::model::PodInfo;

/// How a binding ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The pod is bound.
    Done,
    /// It did not work; if the pod is still pending by then, another try may.
    Failed,
}

/// Carries decisions out. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Actions {
    client: Client,
    recorder: EventRecorder,
    scheduler_name: Arc<str>,
}

impl Actions {
    pub(crate) fn new(client: Client, recorder: EventRecorder, scheduler_name: String) -> Self {
        Self { client, recorder, scheduler_name: scheduler_name.into() }
    }

    /// Binds a pod to a node.
    pub(crate) async fn bind(&self, pod: &PodInfo, node: &str) -> Bound {
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(pod.key.name.clone()),
                namespace: Some(pod.key.namespace.clone()),
                uid: Some(pod.uid.clone()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Node".into()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let params = PostParams::default();
        let result: Result<Status, _> =
            self.pods(pod).create_subresource("binding", &pod.key.name, &params, &binding).await;
        match result {
            Ok(_) => {
                tracing::info!(pod = %pod.key, node, "bound");
                let message = format!("Successfully assigned {} to {node}", pod.key);
                self.recorder.record(&*pod.object, EventType::Normal, "Scheduled", message);
                Bound::Done
            }
            Err(error) if error.is_not_found() || error.is_conflict() => {
                // It is gone, on its way out, gated or bound by somebody else.
                tracing::debug!(pod = %pod.key, node, %error, "binding refused");
                Bound::Failed
            }
            Err(error) => {
                tracing::warn!(pod = %pod.key, node, %error, "binding failed; trying again");
                let message = format!("binding rejected: {}", error.told());
                self.recorder.record(&*pod.object, EventType::Warning, "FailedScheduling", message);
                Bound::Failed
            }
        }
    }

    /// Tells users why a pod cannot be scheduled, and makes room for it if that was decided.
    pub(crate) async fn report(&self, pod: &PodInfo, verdict: &Unschedulable) {
        tracing::debug!(pod = %pod.key, reason = %verdict.message, "unschedulable");
        let message = verdict.message.clone();
        self.recorder.record(&*pod.object, EventType::Warning, "FailedScheduling", message);
        if let Some(patch) = status_patch(pod, verdict, Timestamp::now()) {
            let (api, params) = (self.pods(pod), PatchParams::default());
            match api.patch_status(&pod.key.name, &params, &Patch::Strategic(&patch)).await {
                // Somebody changed it since: what was found out about it may be out of date.
                Err(error) if !error.is_not_found() && !error.is_conflict() => {
                    tracing::warn!(pod = %pod.key, %error, "cannot write why the pod is unschedulable");
                }
                _ => {}
            }
        }
        if let Nomination::New(preemption) = &verdict.nomination {
            for victim in &preemption.victims {
                self.evict(pod, victim, &preemption.node).await;
            }
        }
    }

    async fn evict(&self, preemptor: &PodInfo, victim: &PodInfo, node: &str) {
        let condition = json!({"status": {"conditions": [{
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": format!("{}: preempting to accommodate a higher priority pod", self.scheduler_name),
            "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }]}});
        let api = self.pods(victim);
        let name = &victim.key.name;
        let marked = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(&condition)).await;
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(victim.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        let deleted = match marked {
            Ok(_) => api.delete(name, &params).await.map(|_| ()),
            Err(error) => Err(error),
        };
        match deleted {
            Ok(()) => {
                tracing::info!(victim = %victim.key, preemptor = %preemptor.key, node, "preempted");
                let message = format!("Preempted by pod {} on node {node}", preemptor.uid);
                self.recorder.record(&*victim.object, EventType::Normal, "Preempted", message);
            }
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            // The preemptor comes back after a while and decides anew.
            Err(error) => tracing::warn!(victim = %victim.key, %error, "cannot preempt"),
        }
    }

    fn pods(&self, pod: &PodInfo) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.key.namespace)
    }
}

/// The change of a pod's status that says why it cannot be scheduled; `None` if it says so already.
fn status_patch(pod: &PodInfo, verdict: &Unschedulable, now: Timestamp) -> Option<Value> {
    let status = pod.object.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let current = conditions.into_iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    let says_so = current.is_some_and(|current| {
        current.status == "False"
            && current.reason.as_deref() == Some("Unschedulable")
            && current.message.as_deref() == Some(&verdict.message)
    });
    let nominated = match &verdict.nomination {
        Nomination::New(preemption) => Some(&*preemption.node),
        Nomination::Kept => pod.nominated_node(),
        Nomination::None => None,
    };
    let renominated = nominated != pod.nominated_node();
    if says_so && !renominated {
        return None;
    }
    let mut condition = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": verdict.message,
        "observedGeneration": pod.object.metadata.generation,
    });
    let is_change = current.is_none_or(|current| current.status != "False");
    if is_change && let Some(condition) = condition.as_object_mut() {
        let at = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        condition.insert("lastTransitionTime".into(), at.into());
    }
    let mut status = json!({"conditions": [condition]});
    if renominated && let Some(status) = status.as_object_mut() {
        status.insert("nominatedNodeName".into(), json!(nominated));
    }
    let metadata = json!({"uid": pod.uid, "resourceVersion": pod.object.metadata.resource_version});
    Some(json!({"metadata": metadata, "status": status}))
}
