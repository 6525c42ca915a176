//! Stateful sets: numbered pods with names, volumes and an order.
//!
//! A pod's name is its identity, so a stale cache can at worst try to create one that exists. Not yet: the retention policy of
//! volume claims (they are always kept) and `maxUnavailable` above one.

mod decide;
mod identity;

use std::collections::HashSet;
use std::sync::Arc;

use client::owner::controller_ref;
use client::patch::update_status;
use client::{ErrorExt, EventType, ObjectKey, Outcome, queue};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::PostParams;
use kube::core::Selector;
use kube::{Api, ResourceExt};

use crate::common::claims::ClaimIndex;
use crate::common::history::{self, REVISION_HASH};
use crate::common::owned_pods::{Failure, OwnedPods};
use crate::common::owners::PodOwner;
use crate::common::{Context, Reconciled, pods};
use decide::Snapshot;

const WORKERS: usize = 5;

impl PodOwner for StatefulSet {
    const KIND: &'static str = "StatefulSet";

    fn pod_selector(&self) -> Option<Selector> {
        let selector = self.spec.as_ref()?.selector.clone();
        Selector::try_from(selector).ok().filter(|selector| !selector.selects_all())
    }
}

/// Runs the controller until shutdown.
pub(crate) async fn run(context: Context) {
    let revisions = context.all::<ControllerRevision>();
    let queue = context.queue("statefulset");
    let revision_index = ClaimIndex::new(&revisions);
    if !revisions.synced().await {
        return;
    }
    let Some(pods) = OwnedPods::<StatefulSet>::watch(&context, &queue, "statefulset-controller").await else {
        return;
    };
    let controller = Arc::new(Controller { context, pods, revision_index });
    queue::run_on(queue, WORKERS, controller, Controller::reconcile).await;
}

struct Controller {
    context: Context,
    pods: OwnedPods<StatefulSet>,
    revision_index: ClaimIndex<ControllerRevision>,
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: ObjectKey) -> Reconciled {
        let Some(set) = self.pods.owners.get_key(&key) else { return Ok(Outcome::Done) };
        let Some(selector) = set.pod_selector() else { return Ok(Outcome::Done) };
        // Its own creations and deletions must show before the next step is chosen.
        let current = self.pods.is_current(&key);
        let uid = set.uid().unwrap_or_default();
        let deleting = set.metadata.deletion_timestamp.is_some();
        let owner = controller_ref(set.as_ref());
        let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let collisions =
            set.status.as_ref().and_then(|status| status.collision_count).filter(|count| *count > 0);
        let existing = self.revision_index.owned(&uid);
        let history = history::history(&owner, &set.metadata, &template, &existing, collisions);
        let revisions_api: Api<ControllerRevision> = self.context.api(&key.namespace);
        if !deleting && let Some(outcome) = history::apply(&revisions_api, &key, &history).await? {
            return Ok(outcome);
        }
        let update_name = history.present.name_any();
        let left = set.status.as_ref().and_then(|status| status.current_revision.clone());
        let leaving = history.revisions.iter().find(|revision| Some(revision.name_any()) == left);
        let leaving = leaving.unwrap_or(&history.present).clone();
        let current_name = leaving.name_any();

        let numbered = |pod: &Pod| decide::ordinal_of(&key.name, pods::name(pod)).is_some();
        let pods = self.pods.claim(&set, &selector, numbered).await?;
        let snapshot = Snapshot { set: &set, pods: &pods, current: &current_name, update: &update_name };
        let plan = decide::decide(&snapshot, self.context.now());
        let result =
            if current { self.apply(&key, &set, &plan, &leaving, &history.present).await } else { Ok(()) };
        let mut changed = set.as_ref().clone();
        changed.status = Some(plan.status);
        update_status(&self.context.api(&key.namespace), set.as_ref(), &changed).await?;
        result?;
        let mut in_use: HashSet<String> =
            pods.iter().filter_map(|pod| pods::labels(pod).get(REVISION_HASH).cloned()).collect();
        in_use.insert(current_name);
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        history::delete(&revisions_api, history::surplus(&history, &in_use, limit)).await?;
        Ok(plan.recheck.map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    async fn apply(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        plan: &decide::Plan,
        leaving: &ControllerRevision,
        present: &ControllerRevision,
    ) -> Result<(), Failure> {
        let create = async |number: usize| {
            let Some(new) = plan.create.get(number) else { return Ok(()) };
            let revision = if new.updated { present } else { leaving };
            self.create(key, set, new.ordinal, revision).await
        };
        self.pods.change(key, set, plan.create.len(), create, &plan.delete).await
    }

    /// Creates the volume claims of an ordinal, then its pod.
    async fn create(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        ordinal: i32,
        revision: &ControllerRevision,
    ) -> Result<(), kube::Error> {
        let claims: Api<PersistentVolumeClaim> = self.context.api(&key.namespace);
        for claim in identity::claims(set, ordinal) {
            match claims.create(&PostParams::default(), &claim).await {
                Ok(created) => {
                    let message = format!(
                        "create Claim {} Pod {}-{ordinal} in StatefulSet {} success",
                        created.name_any(),
                        key.name,
                        key.name
                    );
                    self.pods.recorder.record(set, EventType::Normal, "SuccessfulCreate", message);
                }
                Err(error) if error.is_already_exists() => {}
                Err(error) => return Err(error),
            }
        }
        let pod = identity::pod(set, ordinal, revision, &key.namespace);
        let name = pods::name(&pod).to_string();
        match self.context.api::<Pod>(&key.namespace).create(&PostParams::default(), &pod).await {
            Ok(_) => {
                let message = format!("create Pod {name} in StatefulSet {} successful", key.name);
                self.pods.recorder.record(set, EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                if !(error.is_namespace_terminating() || error.is_already_exists()) {
                    let why = error.told();
                    let message =
                        format!("create Pod {name} in StatefulSet {} failed error: {why}", key.name);
                    self.pods.recorder.record(set, EventType::Warning, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }
}
