//! Replica sets, and replication controllers, which are the same under an older name: keeps the wanted number of pods.
//!
//! Guarantees: never acts on a cache that does not show its own earlier creations and deletions yet; deletes the pods
//! that serve least first; adopts and releases by label with UID preconditions.

mod decide;
mod kinds;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::owner::{controller_of, controller_ref};
use client::patch::update_status;
use client::{ObjectKey, Outcome, queue};
use k8s_openapi::api::core::v1::Pod;
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::Serialize;

use crate::common::owned_pods::{Failure, OwnedPods};
use crate::common::owners::PodOwner;
use crate::common::pod_control::pod_from_template;
use crate::common::{Context, Reconciled, pods};

use decide::Scaling;
pub(crate) use kinds::ReplicaOwner;

const WORKERS: usize = 5;

/// Runs the controller for one of the two kinds until shutdown.
pub(crate) async fn run<O>(context: Context, name: &'static str)
where
    O: ReplicaOwner + PodOwner + Resource<Scope = NamespaceResourceScope> + Serialize,
{
    let queue = context.queue(name);
    let siblings = context.all::<O>().by_controller();
    let Some(pods) = OwnedPods::watch(&context, &queue, name).await else { return };
    let controller = Arc::new(Controller { context, pods, siblings });
    queue::run_on(queue, WORKERS, controller, Controller::reconcile).await;
}

struct Controller<O> {
    context: Context,
    pods: OwnedPods<O>,
    siblings: client::Index<O>,
}

impl<O> Controller<O>
where
    O: ReplicaOwner + PodOwner + Resource<Scope = NamespaceResourceScope> + Serialize,
{
    async fn reconcile(self: Arc<Self>, key: ObjectKey) -> Reconciled {
        let Some(owner) = self.pods.owners.get_key(&key) else { return Ok(Outcome::Done) };
        let Some(selector) = owner.pod_selector() else { return Ok(Outcome::Done) };
        let may_scale = self.pods.is_current(&key) && owner.meta().deletion_timestamp.is_none();
        let claimed = self.pods.claim(owner.as_ref(), &selector, |_| true).await?;
        let now = self.context.now();
        let scaling = if may_scale {
            // Only scaling down asks for it.
            let crowd = std::cell::LazyCell::new(|| self.crowd(&owner));
            let on_node = |pod: &Pod| crowd.get(pods::node_name(pod)).copied().unwrap_or(0);
            decide::scaling(&claimed, owner.replicas(), on_node, now)
        } else {
            Scaling::Keep
        };
        let failure = self.scale(&key, &owner, scaling).await.err();
        let status = decide::status(owner.as_ref(), &claimed, failure.as_ref(), now);
        let recheck = decide::next_available(&claimed, owner.min_ready_seconds(), now);
        let mut changed = owner.as_ref().clone();
        changed.set_status(status);
        update_status(&self.context.api(&key.namespace), owner.as_ref(), &changed).await?;
        match (failure, recheck) {
            (Some(failure), _) => Err(failure.into()),
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
        for pod in family.iter().flat_map(|uid| self.pods.known(uid)).filter(|pod| pods::is_active(pod)) {
            *crowd.entry(pods::node_name(&pod).to_string()).or_default() += 1;
        }
        crowd
    }

    async fn scale(&self, key: &ObjectKey, owner: &O, scaling: Scaling) -> Result<(), Failure> {
        let (count, victims) = match scaling {
            Scaling::Keep => return Ok(()),
            Scaling::Create(count) => (count, Vec::new()),
            Scaling::Delete(victims) => (0, victims),
        };
        let pod = pod_from_template(&owner.template(), &controller_ref(owner), &key.namespace);
        self.pods.change(key, owner, count, |_| self.pods.create(owner, &pod), &victims).await
    }
}
