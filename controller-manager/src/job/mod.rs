//! Jobs: pods that run to their end.
//!
//! Guarantees: every finished pod is counted once (see `decide`); pods of a job that vanished are let go. Jobs managed by
//! others (`managedBy`) are left to them.

mod decide;
mod indexes;
mod policy;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use client::expectations::Expectations;
use client::owner::{controller_of, controller_ref};
use client::patch::update_status;
use client::{ErrorExt, EventRecorder, EventType, Informer, ObjectKey, Outcome, queue};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::Selector;
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::common::claims::{ClaimIndex, settle_claims, sort_claims};
use crate::common::owners::{PodOwner, watch_owner_and_pods};
use crate::common::pod_control::{self, pod_from_template};
use crate::common::{Context, ReconcileError, Reconciled, pods};
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
    let jobs = context.all::<Job>();
    let pods = context.all::<Pod>();
    let queue = context.queue("job");
    let expectations = Arc::new(Expectations::new());
    let claim_index = ClaimIndex::new(&pods);
    if !(jobs.synced().await && pods.synced().await) {
        return;
    }
    watch_owner_and_pods(&jobs, &pods, &queue, &expectations);
    let recorder = context.recorder("job-controller");
    let released = Mutex::default();
    let controller =
        Arc::new(Controller { context, jobs, pods, claim_index, expectations, released, recorder });
    queue::run(queue, WORKERS, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
    .await;
}

struct Controller {
    context: Context,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    claim_index: ClaimIndex<Pod>,
    expectations: Arc<Expectations>,
    /// Pods whose finalizer was removed, by job, until the cache shows it.
    released: Mutex<HashMap<ObjectKey, HashSet<String>>>,
    recorder: EventRecorder,
}

impl Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Reconciled {
        let Some(job) = self.jobs.get_key(key) else {
            self.released.lock().remove(key);
            return self.let_go(key).await;
        };
        let managed_by = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
        if managed_by.is_some_and(|manager| manager != OURS) {
            return Ok(Outcome::Done);
        }
        let Some(selector) = job.pod_selector() else { return Ok(Outcome::Done) };
        let current = self.expectations.satisfied(key, Instant::now());
        let uid = job.uid().unwrap_or_default();
        let deleting = job.metadata.deletion_timestamp.is_some();
        let claims =
            sort_claims(self.claim_index.candidates(&uid, &key.namespace), &uid, deleting, &selector);
        let jobs_api: Api<Job> = self.context.api(&key.namespace);
        let pods_api: Api<Pod> = self.context.api(&key.namespace);
        let owner = controller_ref(job.as_ref());
        let pods = settle_claims(claims, &jobs_api, &pods_api, &owner).await?;
        let released = self.still_released(key, &pods);
        let snapshot = Snapshot { job: &job, pods: &pods, released: &released, current };
        let plan = decide::decide(&snapshot, self.context.now());
        self.apply(key, &job, plan, &owner).await
    }

    /// Forgets releases that the cache shows by now.
    fn still_released(&self, key: &ObjectKey, pods: &[Arc<Pod>]) -> HashSet<String> {
        let mut all = self.released.lock();
        let Some(released) = all.get_mut(key) else { return HashSet::new() };
        released.retain(|uid| pods.iter().any(|pod| pods::uid(pod) == uid && decide::has_finalizer(pod)));
        released.clone()
    }

    async fn apply(&self, key: &ObjectKey, job: &Arc<Job>, plan: Plan, owner: &OwnerReference) -> Reconciled {
        let jobs_api: Api<Job> = self.context.api(&key.namespace);
        let pods_api: Api<Pod> = self.context.api(&key.namespace);
        if plan.delete_job {
            let preconditions = Preconditions { uid: job.uid(), resource_version: job.resource_version() };
            let params = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Foreground),
                preconditions: Some(preconditions),
                ..DeleteParams::default()
            };
            jobs_api.delete(&key.name, &params).await?;
            return Ok(Outcome::Done);
        }
        let mut changed = job.as_ref().clone();
        changed.status = Some(plan.status.clone());
        update_status(&jobs_api, job.as_ref(), &changed).await?;
        self.announce(job, &plan.status);
        for pod in &plan.release {
            // Before the write, so that the pod's change cannot arrive first.
            self.released.lock().entry(key.clone()).or_default().insert(pods::uid(pod).into());
            remove_finalizer(&pods_api, pod).await?;
        }
        if !plan.delete.is_empty() {
            let uids = plan.delete.iter().map(|pod| pods::uid(pod).to_string());
            self.expectations.expect_deletions(key, uids, Instant::now());
            for pod in &plan.delete {
                if let Err(error) =
                    pod_control::delete_pod(&pods_api, pod, job.as_ref(), &self.recorder).await
                {
                    self.expectations.deletion_observed(key, pods::uid(pod));
                    return Err(error);
                }
            }
        }
        self.create(key, job, &plan, owner).await?;
        Ok(plan.recheck.map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    async fn create(
        &self,
        key: &ObjectKey,
        job: &Arc<Job>,
        plan: &Plan,
        owner: &OwnerReference,
    ) -> Result<(), ReconcileError> {
        if plan.create == 0 {
            return Ok(());
        }
        let api: Api<Pod> = self.context.api(&key.namespace);
        self.expectations.expect_creations(key, plan.create, Instant::now());
        let batch = pod_control::slow_start(plan.create, |number| {
            let pod = new_pod(job, owner, &key.namespace, plan.indexes.get(number).copied());
            let api = &api;
            async move { pod_control::create_pod(api, &pod, job.as_ref(), &self.recorder).await.map(|_| ()) }
        })
        .await;
        for _ in 0..batch.missing {
            self.expectations.creation_observed(key);
        }
        match batch.error {
            Some(error) if !error.is_namespace_terminating() => Err(error.into()),
            _ => Ok(()),
        }
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
                    self.recorder.record(job, EventType::Normal, "Completed", "Job completed");
                }
                ("Failed", "True") => self.recorder.record(job, EventType::Warning, reason, message),
                ("Suspended", "True") => self.recorder.record(job, EventType::Normal, "Suspended", message),
                ("Suspended", "False") => self.recorder.record(job, EventType::Normal, "Resumed", message),
                _ => {}
            }
        }
    }

    /// Nobody counts the pods of a job that is gone: their finalizers only hold them up.
    async fn let_go(&self, key: &ObjectKey) -> Reconciled {
        let held: Vec<Arc<Pod>> = self
            .pods
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
    match api.patch(pods::name(pod), &PatchParams::default(), &Patch::Strategic(&patch)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() || error.is_conflict() || error.is_invalid() => Ok(()),
        Err(error) => Err(error),
    }
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
