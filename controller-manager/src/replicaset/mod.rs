//! Replica sets, and replication controllers, which are the same under an older name: keeps the wanted number of pods.
//!
//! Guarantees: never acts on a cache that does not show its own earlier creations and deletions yet; deletes the pods
//! that serve least first; adopts and releases by label with UID preconditions.

mod decide;
mod kinds;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::expectations::Expectations;
use client::owner::{controller_of, controller_ref};
use client::patch::update_status;
use client::{EventRecorder, Informer, ObjectKey, Outcome, queue};
use k8s_openapi::api::core::v1::Pod;
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use tokio::time::Instant;

use crate::common::claims::{ClaimIndex, settle_claims, sort_claims};
use crate::common::owners::{PodOwner, watch_owner_and_pods};
use crate::common::pod_control::{self, pod_from_template};
use crate::common::{Context, Reconciled, pods};

pub(crate) use kinds::ReplicaOwner;

const WORKERS: usize = 5;

/// Runs the controller for one of the two kinds until shutdown.
pub(crate) async fn run<O>(context: Context, name: &'static str)
where
    O: ReplicaOwner + PodOwner + Resource<Scope = NamespaceResourceScope> + Serialize,
{
    let owners = context.all::<O>();
    let pods = context.all::<Pod>();
    let queue = context.queue(name);
    let expectations = Arc::new(Expectations::new());
    let claim_index = ClaimIndex::new(&pods);
    let siblings = owners.by_controller();
    if !(owners.synced().await && pods.synced().await) {
        return;
    }
    watch_owner_and_pods(&owners, &pods, &queue, &expectations);
    let recorder = context.recorder(name);
    let controller = Arc::new(Controller { context, owners, claim_index, siblings, expectations, recorder });
    queue::run(queue, WORKERS, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
    .await;
}

struct Controller<O> {
    context: Context,
    owners: Informer<O>,
    claim_index: ClaimIndex<Pod>,
    siblings: client::Index<O>,
    expectations: Arc<Expectations>,
    recorder: EventRecorder,
}

impl<O> Controller<O>
where
    O: ReplicaOwner + PodOwner + Resource<Scope = NamespaceResourceScope> + Serialize,
{
    async fn reconcile(&self, key: &ObjectKey) -> Reconciled {
        let Some(owner) = self.owners.get_key(key) else {
            self.expectations.forget(key);
            return Ok(Outcome::Done);
        };
        let Some(selector) = owner.pod_selector() else { return Ok(Outcome::Done) };
        let may_scale = self.expectations.satisfied(key, Instant::now());
        let owner_uid = owner.uid().unwrap_or_default();
        let deleting = owner.meta().deletion_timestamp.is_some();
        let candidates = self.claim_index.candidates(&owner_uid, &key.namespace);
        let claims = sort_claims(candidates, &owner_uid, deleting, &selector);
        let pods_api: Api<Pod> = self.context.api(&key.namespace);
        let owners_api: Api<O> = self.context.api(&key.namespace);
        let reference = controller_ref(owner.as_ref());
        let claimed = settle_claims(claims, &owners_api, &pods_api, &reference).await?;

        let now = self.context.now();
        let scaling = if may_scale && !deleting {
            // Only scaling down asks for it.
            let crowd = std::cell::LazyCell::new(|| self.crowd(&owner));
            let on_node = |pod: &Pod| crowd.get(pods::node_name(pod)).copied().unwrap_or(0);
            decide::scaling(&claimed, owner.replicas(), on_node, now)
        } else {
            decide::Scaling::Keep
        };
        let failure = self.scale(key, &owner, scaling, &pods_api).await;
        let status = decide::status(owner.as_ref(), &claimed, failure.as_ref(), now);
        let recheck = decide::next_available(&claimed, owner.min_ready_seconds(), now);
        let mut changed = owner.as_ref().clone();
        changed.set_status(status);
        update_status(&owners_api, owner.as_ref(), &changed).await?;
        match (failure, recheck) {
            (Some(failure), _) => Err(failure.error.into()),
            (None, Some(delay)) => Ok(Outcome::RequeueAfter(delay.max(Duration::from_millis(50)))),
            (None, None) => Ok(Outcome::Done),
        }
    }

    /// How many active pods of this owner and its siblings (other revisions of one deployment) each node has.
    fn crowd(&self, owner: &O) -> HashMap<String, usize> {
        let mut family = vec![owner.uid().unwrap_or_default()];
        if let Some(parent) = controller_of(owner) {
            family.extend(self.siblings.get(&parent.uid).iter().filter_map(|sibling| sibling.uid()));
            family.sort();
            family.dedup();
        }
        let mut crowd = HashMap::new();
        for pod in
            family.iter().flat_map(|uid| self.claim_index.owned(uid)).filter(|pod| pods::is_active(pod))
        {
            *crowd.entry(pods::node_name(&pod).to_string()).or_default() += 1;
        }
        crowd
    }

    async fn scale(
        &self,
        key: &ObjectKey,
        owner: &Arc<O>,
        scaling: decide::Scaling,
        api: &Api<Pod>,
    ) -> Option<decide::Failure> {
        match scaling {
            decide::Scaling::Keep => None,
            decide::Scaling::Create(count) => {
                self.expectations.expect_creations(key, count, Instant::now());
                let template = owner.template();
                let pod = pod_from_template(&template, &controller_ref(owner.as_ref()), &key.namespace);
                let batch = pod_control::slow_start(count, |_| async {
                    pod_control::create_pod(api, &pod, owner.as_ref(), &self.recorder).await.map(|_| ())
                })
                .await;
                for _ in 0..batch.missing {
                    self.expectations.creation_observed(key);
                }
                batch.error.map(|error| decide::Failure { creating: true, error })
            }
            decide::Scaling::Delete(victims) => {
                let uids = victims.iter().map(|pod| pods::uid(pod).to_string());
                self.expectations.expect_deletions(key, uids, Instant::now());
                let deletions = victims.iter().map(|pod| async {
                    let result = pod_control::delete_exactly(api, pod).await;
                    let name = pods::name(pod);
                    match &result {
                        Ok(()) => self.recorder.record(
                            owner.as_ref(),
                            client::EventType::Normal,
                            "SuccessfulDelete",
                            format!("Deleted pod: {name}"),
                        ),
                        Err(error) => {
                            self.expectations.deletion_observed(key, pods::uid(pod));
                            let message = format!("Error deleting pod {name}: {error}");
                            self.recorder.record(
                                owner.as_ref(),
                                client::EventType::Warning,
                                "FailedDelete",
                                message,
                            );
                        }
                    }
                    result
                });
                let results = futures::future::join_all(deletions).await;
                results
                    .into_iter()
                    .find_map(Result::err)
                    .map(|error| decide::Failure { creating: false, error })
            }
        }
    }
}
