//! Horizontal autoscaling: as many replicas as the use of CPU and memory calls for.
//!
//! Every workload is looked at every 15 s. Its recommendations and steps of the last hour are held in memory; after a start
//! the present number counts as recommended, so that nothing shrinks at once. Not yet: metrics of pods, objects and from outside, for
//! which there is no API; two autoscalers that select the same pods are not told of each other.

mod decide;
mod rate;
mod usage;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::quantity::Quantity;
use api::selector::LabelSelector;
use client::patch::update_status;
use client::{Change, ErrorExt, EventRecorder, EventType, Informer, ObjectKey, Outcome, queue};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, HorizontalPodAutoscaler};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, Request};
use kube::core::{DynamicObject, GroupVersionKind};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::common::{Context, Reconciled, pods};
use decide::{Plan, Samples, Snapshot, decide, without_scale};
use rate::History;
use usage::Sample;

const WORKERS: usize = 2;
const PERIOD: Duration = Duration::from_secs(15);

/// Runs the controller until shutdown.
pub(crate) async fn run(context: Context) {
    let autoscalers = context.all::<HorizontalPodAutoscaler>();
    let pods = context.all::<Pod>();
    let queue = context.queue("horizontalpodautoscaler");
    if !(autoscalers.synced().await && pods.synced().await) {
        return;
    }
    let enqueue = queue.clone();
    autoscalers.on_change(move |change| {
        // Its own writes of the status change no generation; they must not bring it here before the period is over.
        if let Change::Modified { old, new } = change
            && old.metadata.generation == new.metadata.generation
        {
            return;
        }
        enqueue.add(ObjectKey::of(change.object().as_ref()));
    });
    let recorder = context.recorder("horizontal-pod-autoscaler");
    let controller =
        Arc::new(Controller { context, autoscalers, pods, histories: Mutex::default(), recorder });
    queue::run_on(queue, WORKERS, controller, Controller::reconcile).await;
}

struct Controller {
    context: Context,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    histories: Mutex<HashMap<ObjectKey, History>>,
    recorder: EventRecorder,
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: ObjectKey) -> Reconciled {
        let Some(autoscaler) = self.autoscalers.get_key(&key) else {
            self.histories.lock().remove(&key);
            return Ok(Outcome::Done);
        };
        let target = &autoscaler.spec.scale_target_ref;
        let plan = match self.scale_of(&key.namespace, target).await {
            Ok((workloads, scale)) => self.act(&key, &autoscaler, &workloads, &scale).await,
            Err(error) => without_scale(&autoscaler, &error.told(), self.context.now()),
        };
        for (reason, message) in plan.warnings {
            self.recorder.record(autoscaler.as_ref(), EventType::Warning, reason, message);
        }
        let mut changed = autoscaler.as_ref().clone();
        changed.status = Some(plan.status);
        update_status(&self.context.api(&key.namespace), autoscaler.as_ref(), &changed).await?;
        Ok(Outcome::RequeueAfter(PERIOD))
    }

    /// The scale of a workload of any kind that has one.
    async fn scale_of(
        &self,
        namespace: &str,
        target: &CrossVersionObjectReference,
    ) -> Result<(Api<DynamicObject>, Scale), kube::Error> {
        let version = target.api_version.as_deref().unwrap_or("v1");
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = GroupVersionKind::gvk(group, version, &target.kind);
        let (resource, _) = kube::discovery::pinned_kind(&self.context.client, &kind).await?;
        let workloads = Api::namespaced_with(self.context.client.clone(), namespace, &resource);
        let scale = workloads.get_scale(&target.name).await?;
        Ok((workloads, scale))
    }

    async fn act(
        &self,
        key: &ObjectKey,
        autoscaler: &HorizontalPodAutoscaler,
        workloads: &Api<DynamicObject>,
        scale: &Scale,
    ) -> Plan {
        let current = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let selector =
            scale.status.as_ref().and_then(|status| status.selector.as_deref()).unwrap_or_default();
        let samples = self.samples(&key.namespace, selector).await;
        let mut pods = self.pods.list_namespace(&key.namespace);
        let wanted = LabelSelector::parse(selector).ok().filter(|_| !selector.is_empty());
        pods.retain(|pod| wanted.as_ref().is_some_and(|wanted| wanted.matches(pods::labels(pod))));
        let now = self.context.now();
        let mut plan = {
            let mut histories = self.histories.lock();
            let snapshot = Snapshot {
                autoscaler,
                current,
                pods: &pods,
                samples: samples.as_ref().map_err(Clone::clone),
            };
            decide(&snapshot, histories.entry(key.clone()).or_default(), now)
        };
        let Some((replicas, because)) = plan.scale.take() else { return plan };
        let version = &scale.metadata.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}});
        let name = &autoscaler.spec.scale_target_ref.name;
        match workloads.patch_scale(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => {
                let message = format!("the HPA controller was able to update the target scale to {replicas}");
                plan.tell("AbleToScale", true, "SucceededRescale", &message, now);
                plan.status.last_scale_time = Some(Time(now));
                let message = format!("New size: {replicas}; reason: {because}");
                self.recorder.record(autoscaler, EventType::Normal, "SuccessfulRescale", message);
                self.histories.lock().entry(key.clone()).or_default().scaled(current, replicas, now);
            }
            Err(error) => {
                let why = error.told();
                let message = format!("the HPA controller was unable to update the target scale: {why}");
                plan.tell("AbleToScale", false, "FailedUpdateScale", &message, now);
                plan.status.desired_replicas = current;
                let message = format!("New size: {replicas}; reason: {because}; error: {why}");
                plan.warnings.push(("FailedRescale", message));
            }
        }
        plan
    }

    /// What the pods of a selector use, as the resource metrics API says; or why it does not.
    async fn samples(&self, namespace: &str, selector: &str) -> Result<Samples, String> {
        let request = Request::new(format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods"))
            .list(&ListParams::default().labels(selector))
            .map_err(|error| error.to_string())?;
        let list: Value = self.context.client.request(request).await.map_err(|error| error.told())?;
        Ok(samples_of(&list))
    }
}

fn samples_of(list: &Value) -> Samples {
    let mut samples = Samples::new();
    for pod in list.pointer("/items").and_then(Value::as_array).into_iter().flatten() {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let Ok(at) = text("/timestamp").parse::<Timestamp>() else { continue };
        let window: SignedDuration = text("/window").parse().unwrap_or_default();
        let name = text("/metadata/name");
        for container in pod.pointer("/containers").and_then(Value::as_array).into_iter().flatten() {
            let of = container.pointer("/name").and_then(Value::as_str).unwrap_or_default();
            let used = container.pointer("/usage").and_then(Value::as_object);
            for (resource, amount) in used.into_iter().flatten() {
                let Ok(amount) = Quantity::from_json(amount) else { continue };
                for of in [of, ""] {
                    let by_pod: &mut BTreeMap<_, _> =
                        samples.entry((of.to_string(), resource.clone())).or_default();
                    let sample = by_pod.entry(name.to_string()).or_insert(Sample { milli: 0, at, window });
                    sample.milli += amount.milli_value();
                }
            }
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_the_containers_of_a_pod() {
        let list = json!({"items": [{"metadata": {"name": "p"}, "timestamp": "2026-01-01T00:00:00Z", "window": "10s",
            "containers": [{"name": "a", "usage": {"cpu": "100m", "memory": "1Ki"}}, {"name": "b", "usage": {"cpu": "50m"}}]}]});
        let samples = samples_of(&list);
        let milli =
            |container: &str, resource: &str| samples[&(container.into(), resource.into())]["p"].milli;
        assert_eq!((milli("", "cpu"), milli("a", "cpu"), milli("b", "cpu")), (150, 100, 50));
        assert_eq!(milli("", "memory"), 1_024_000);
        assert_eq!(samples[&(String::new(), "cpu".to_string())]["p"].window, SignedDuration::from_secs(10));
    }
}
