//! How many pods of a disruption budget may be evicted now.
//!
//! The eviction subresource spends what the status allows and notes each pod in `disruptedPods`; here pods that are gone, or that
//! were not deleted within two minutes after all, are struck off again. Not yet: controllers with a scale subresource that are
//! defined by users; their pods count one each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::owner::controller_of;
use client::patch::update_status;
use client::{Informer, ObjectKey, Outcome, queue};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};

use crate::common::conditions::{condition, set_condition, until};
use crate::common::{Context, Reconciled, pods};
use crate::deployment::resolve;

const EVICTION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);

/// Runs the controller until shutdown.
pub(crate) async fn run(context: Context) {
    let budgets = context.all::<PodDisruptionBudget>();
    let pods = context.all::<Pod>();
    let scales = Scales {
        deployments: context.all(),
        replica_sets: context.all(),
        stateful_sets: context.all(),
        replication_controllers: context.all(),
    };
    let queue = context.queue("disruption");
    let synced = budgets.synced().await && pods.synced().await && scales.replica_sets.synced().await;
    let synced = synced && scales.deployments.synced().await && scales.stateful_sets.synced().await;
    if !(synced && scales.replication_controllers.synced().await) {
        return;
    }
    budgets.feed(&queue, ObjectKey::of);
    let (enqueue, known) = (queue.clone(), budgets.clone());
    pods.on_change(move |change| {
        if known.is_empty() {
            return;
        }
        for budget in known.list_namespace(&change.object().namespace().unwrap_or_default()) {
            let Some(selector) = selector_of(&budget) else { continue };
            let before = change.old().is_some_and(|pod| selector.matches(pods::labels(pod)));
            if before || selector.matches(pods::labels(change.object())) {
                enqueue.add(ObjectKey::of(budget.as_ref()));
            }
        }
    });
    let controller = Arc::new(Controller { context, budgets, pods, scales });
    queue::run_on(queue, 2, controller, Controller::reconcile).await;
}

/// The selector of a budget; an empty one selects all pods of the namespace, a missing one none.
fn selector_of(budget: &PodDisruptionBudget) -> Option<Selector> {
    budget.spec.as_ref()?.selector.clone()?.try_into().ok()
}

/// Where the wanted number of replicas stands.
struct Scales {
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
    replication_controllers: Informer<ReplicationController>,
}

impl Scales {
    /// The controller that a pod's number is decided by, and that number; `None` when it has no scale.
    fn find(&self, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
        match owner.kind.as_str() {
            "ReplicaSet" => {
                let set = self.replica_sets.get(namespace, &owner.name)?;
                if let Some(parent) = controller_of(set.as_ref()).filter(|parent| parent.kind == "Deployment")
                {
                    let deployment = self.deployments.get(namespace, &parent.name)?;
                    return Some((parent.uid.clone(), deployment.spec.as_ref()?.replicas.unwrap_or(1)));
                }
                Some((owner.uid.clone(), set.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            "StatefulSet" => {
                let set = self.stateful_sets.get(namespace, &owner.name)?;
                Some((owner.uid.clone(), set.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            "ReplicationController" => {
                let controller = self.replication_controllers.get(namespace, &owner.name)?;
                Some((owner.uid.clone(), controller.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            _ => None,
        }
    }
}

struct Controller {
    context: Context,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    scales: Scales,
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: ObjectKey) -> Reconciled {
        let Some(budget) = self.budgets.get_key(&key) else { return Ok(Outcome::Done) };
        let mut pods = Vec::new();
        if let Some(selector) = selector_of(&budget) {
            pods = self.pods.list_namespace(&key.namespace);
            pods.retain(|pod| selector.matches(pods::labels(pod)));
        }
        let expected = self.expected(&key.namespace, &pods);
        let now = self.context.now();
        let (status, recheck) = decide(&budget, &pods, expected, now);
        let mut changed = budget.as_ref().clone();
        changed.status = Some(status);
        update_status(&self.context.api(&key.namespace), budget.as_ref(), &changed).await?;
        Ok(recheck.map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    /// How many pods the controllers behind these want in all.
    fn expected(&self, namespace: &str, pods: &[Arc<Pod>]) -> i32 {
        let mut by_controller: HashMap<String, i32> = HashMap::new();
        let mut single = 0;
        for pod in pods {
            match controller_of(pod.as_ref()).and_then(|owner| self.scales.find(namespace, owner)) {
                Some((uid, replicas)) => {
                    by_controller.insert(uid, replicas);
                }
                None => single += 1,
            }
        }
        by_controller.values().sum::<i32>() + single
    }
}

fn decide(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected_by_scale: i32,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let old = budget.status.clone().unwrap_or_default();
    let (disrupted, recheck) = still_disrupted(old.disrupted_pods.unwrap_or_default(), pods, now);
    let spec = budget.spec.clone().unwrap_or_default();
    let count = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(limit), _) => {
            (expected_by_scale, (expected_by_scale - resolve(limit, expected_by_scale, true)).max(0))
        }
        (None, Some(IntOrString::Int(number))) => (count, *number),
        (None, Some(share)) => (expected_by_scale, resolve(share, expected_by_scale, true)),
        (None, None) => (count, 0),
    };
    let healthy = pods
        .iter()
        .filter(|pod| {
            !pods::is_terminating(pod) && pods::is_ready(pod) && !disrupted.contains_key(pods::name(pod))
        })
        .count();
    let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let mut conditions = old.conditions.unwrap_or_default();
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    let generation = budget.metadata.generation;
    set_condition(&mut conditions, condition("DisruptionAllowed", allowed > 0, reason, "", generation, now));
    let status = PodDisruptionBudgetStatus {
        conditions: Some(conditions),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
        observed_generation: generation,
    };
    (status, recheck)
}

/// Pods whose eviction was granted and has yet to show; the rest is struck off.
fn still_disrupted(
    disrupted: BTreeMap<String, Time>,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let mut kept = BTreeMap::new();
    let mut recheck: Option<Duration> = None;
    for (name, since) in disrupted {
        let waiting = pods.iter().any(|pod| pods::name(pod) == name && !pods::is_terminating(pod));
        let end = since.0 + EVICTION_TIMEOUT;
        if waiting && end > now {
            let wait = until(end, now) + Duration::from_millis(10);
            recheck = Some(recheck.map_or(wait, |known| known.min(wait)));
            kept.insert(name, since);
        }
    }
    (kept, recheck)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{at, ready_pod, running_pod};

    fn allowed(spec: serde_json::Value, ready: usize, expected: i32) -> (i32, i32) {
        let budget: PodDisruptionBudget =
            serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let mut pods: Vec<Arc<Pod>> =
            (0..ready).map(|n| Arc::new(ready_pod(&format!("p{n}"), "n", at(0)))).collect();
        pods.push(Arc::new(running_pod("starting", "n")));
        let (status, _) = decide(&budget, &pods, expected, at(1));
        (status.disruptions_allowed.unwrap(), status.desired_healthy.unwrap())
    }

    #[test]
    fn the_budget_is_what_is_healthy_beyond_what_is_wanted() {
        assert_eq!(allowed(json!({"minAvailable": 2}), 3, 4), (1, 2));
        assert_eq!(allowed(json!({"minAvailable": "50%"}), 3, 4), (1, 2));
        assert_eq!(allowed(json!({"maxUnavailable": 1}), 3, 4), (0, 3));
        assert_eq!(allowed(json!({"maxUnavailable": "50%"}), 3, 4), (1, 2));
    }

    #[test]
    fn a_granted_eviction_counts_as_gone_until_it_shows_or_times_out() {
        let budget: PodDisruptionBudget = serde_json::from_value(json!({
            "metadata": {}, "spec": {"minAvailable": 1},
            "status": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
                "disruptedPods": {"a": at(0).to_string()}}
        }))
        .unwrap();
        let pods = [Arc::new(ready_pod("a", "n", at(0))), Arc::new(ready_pod("b", "n", at(0)))];
        let (status, recheck) = decide(&budget, &pods, 2, at(10));
        assert_eq!(
            (status.disruptions_allowed, status.disrupted_pods.map(|pods| pods.len())),
            (Some(0), Some(1))
        );
        assert!(recheck.is_some());
        let (later, _) = decide(&budget, &pods, 2, at(200));
        assert_eq!((later.disruptions_allowed, later.disrupted_pods), (Some(1), None));
    }
}
