//! Jobs: pods that run to their end.
//!
//! Guarantees: every finished pod is counted once (see `decide`); pods of a job that vanished are let go. Jobs managed by
//! others (`managedBy`) are left to them.

mod decide;
mod indexes;
mod policy;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use client::owner::{controller_of, controller_ref};
use client::patch::{only_unchanged, update_status};
use client::{ErrorExt, EventType, Forgive, Informer, ObjectKey, Outcome, queue};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::core::Selector;
use parking_lot::Mutex;
use serde_json::json;

use crate::common::owned_pods::OwnedPods;
use crate::common::owners::PodOwner;
use crate::common::pod_control::{self, pod_from_template};
use crate::common::{Context, Reconciled, pods};
use decide::{FINALIZER, INDEX, INDEX_FAILURES, Plan, Slot, Snapshot};

const WORKERS: usize = 5;
const OURS: &str = "kubernetes.io/job-controller";

impl PodOwner for Job {
    const KIND: &'static str = "Job";

    fn pod_selector(&self) -> Option<Selector> {
        let selector = self.spec.as_ref()?.selector.clone()?;
        Selector::try_from(selector).ok().filter(|selector| !selector.selects_all())
    }
}

/// Runs the controller until shutdown.
pub(crate) async fn run(context: Context) {
    let all_pods = context.all::<Pod>();
    let queue = context.queue("job");
    let Some(pods) = OwnedPods::watch(&context, &queue, "job-controller").await else { return };
    let controller = Arc::new(Controller { context, pods, all_pods, released: Mutex::default() });
    queue::run_on(queue, WORKERS, controller, Controller::reconcile).await;
}

struct Controller {
    context: Context,
    pods: OwnedPods<Job>,
    all_pods: Informer<Pod>,
    /// Pods whose finalizer was removed, by job, until the cache shows it.
    released: Mutex<HashMap<ObjectKey, HashSet<String>>>,
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: ObjectKey) -> Reconciled {
        let Some(job) = self.pods.owners.get_key(&key) else {
            self.released.lock().remove(&key);
            return self.let_go(&key).await;
        };
        let managed_by = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
        if managed_by.is_some_and(|manager| manager != OURS) {
            return Ok(Outcome::Done);
        }
        let Some(selector) = job.pod_selector() else { return Ok(Outcome::Done) };
        let current = self.pods.is_current(&key);
        let pods = self.pods.claim(&job, &selector, |_| true).await?;
        let released = self.still_released(&key, &pods);
        let snapshot = Snapshot { job: &job, pods: &pods, released: &released, current };
        let plan = decide::decide(&snapshot, self.context.now());
        self.apply(&key, &job, plan).await
    }

    /// Forgets releases that the cache shows by now.
    fn still_released(&self, key: &ObjectKey, pods: &[Arc<Pod>]) -> HashSet<String> {
        let mut all = self.released.lock();
        let Some(released) = all.get_mut(key) else { return HashSet::new() };
        released.retain(|uid| pods.iter().any(|pod| pods::uid(pod) == uid && decide::has_finalizer(pod)));
        released.clone()
    }

    async fn apply(&self, key: &ObjectKey, job: &Job, plan: Plan) -> Reconciled {
        let jobs_api: Api<Job> = self.context.api(&key.namespace);
        let pods_api: Api<Pod> = self.context.api(&key.namespace);
        if plan.delete_job {
            jobs_api.delete(&key.name, &only_unchanged(job, DeleteParams::foreground())).await?;
            return Ok(Outcome::Done);
        }
        let mut changed = job.clone();
        changed.status = Some(plan.status.clone());
        update_status(&jobs_api, job, &changed).await?;
        self.announce(job, &plan.status);
        for pod in &plan.release {
            // Before the write, so that the pod's change cannot arrive first.
            self.released.lock().entry(key.clone()).or_default().insert(pods::uid(pod).into());
            remove_finalizer(&pods_api, pod).await?;
        }
        let owner = controller_ref(job);
        let create = async |number: usize| {
            let slot = plan.indexes.get(number).copied();
            self.pods.create(job, &new_pod(job, &owner, &key.namespace, slot)).await
        };
        self.pods.change(key, job, plan.create, create, &plan.delete).await?;
        Ok(plan.recheck.map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    /// Says once what a user waits for.
    fn announce(&self, job: &Job, status: &JobStatus) {
        let had = |type_: &str, value: &str| {
            let old = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
            old.into_iter().any(|condition| condition.type_ == type_ && condition.status == value)
        };
        for condition in status.conditions.iter().flatten() {
            let message = condition.message.clone().unwrap_or_default();
            let reason = condition.reason.as_deref().unwrap_or_default();
            match (condition.type_.as_str(), condition.status.as_str()) {
                (type_, value) if had(type_, value) => {}
                ("Complete", "True") => {
                    self.pods.recorder.record(job, EventType::Normal, "Completed", "Job completed");
                }
                ("Failed", "True") => self.pods.recorder.record(job, EventType::Warning, reason, message),
                ("Suspended", "True") => {
                    self.pods.recorder.record(job, EventType::Normal, "Suspended", message)
                }
                ("Suspended", "False") => {
                    self.pods.recorder.record(job, EventType::Normal, "Resumed", message)
                }
                _ => {}
            }
        }
    }

    /// Nobody counts the pods of a job that is gone: their finalizers only hold them up.
    async fn let_go(&self, key: &ObjectKey) -> Reconciled {
        let held: Vec<Arc<Pod>> = self
            .all_pods
            .list_namespace(&key.namespace)
            .into_iter()
            .filter(|pod| decide::has_finalizer(pod))
            .filter(|pod| {
                controller_of(pod.as_ref()).is_some_and(|owner| owner.kind == "Job" && owner.name == key.name)
            })
            .collect();
        if held.is_empty() {
            return Ok(Outcome::Done);
        }
        let live = self.context.api::<Job>(&key.namespace).get_metadata_opt(&key.name).await?;
        let live_uid = live.and_then(|job| job.metadata.uid);
        let api: Api<Pod> = self.context.api(&key.namespace);
        for pod in held {
            let owner = controller_of(pod.as_ref()).map(|owner| owner.uid.clone());
            if owner != live_uid {
                remove_finalizer(&api, &pod).await?;
            }
        }
        Ok(Outcome::Done)
    }
}

async fn remove_finalizer(api: &Api<Pod>, pod: &Pod) -> Result<(), kube::Error> {
    let patch = json!({ "metadata": {
        "uid": pods::uid(pod),
        "$deleteFromPrimitiveList/finalizers": [FINALIZER],
    }});
    let patched = api.patch(pods::name(pod), &PatchParams::default(), &Patch::Strategic(&patch)).await;
    // It is gone, or another pod of the same name.
    let nothing_left =
        |error: &kube::Error| error.is_not_found() || error.is_conflict() || error.is_invalid();
    patched.forgive(nothing_left).map(|_| ())
}

fn new_pod(job: &Job, owner: &OwnerReference, namespace: &str, slot: Option<Slot>) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pod_from_template(&template, owner, namespace);
    pod.metadata.finalizers.get_or_insert_default().push(FINALIZER.into());
    let Some(Slot { index, failures }) = slot else { return pod };
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.into(), index.to_string());
    annotations.extend(failures.map(|count| (INDEX_FAILURES.to_string(), count.to_string())));
    pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
    pod.metadata.generate_name = Some(pod_control::generate_name(&format!("{}-{index}", owner.name)));
    let Some(spec) = &mut pod.spec else { return pod };
    if spec.hostname.is_none() {
        spec.hostname = Some(format!("{}-{index}", owner.name));
    }
    let variable = EnvVar {
        name: "JOB_COMPLETION_INDEX".into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.labels['{INDEX}']"),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        value: None,
    };
    for container in spec.init_containers.iter_mut().flatten().chain(spec.containers.iter_mut()) {
        let env = container.env.get_or_insert_default();
        if !env.iter().any(|known| known.name == variable.name) {
            env.push(variable.clone());
        }
    }
    pod
}
