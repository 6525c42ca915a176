//! The next step of a stateful set. Pure.
//!
//! Ordered sets do one thing at a time and only while everything below is ready; parallel ones do not wait. Updates go from
//! the highest ordinal down, never below the partition.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::common::conditions::until;
use crate::common::history::REVISION_HASH;
use crate::common::pods;

/// What a decision is made from.
pub(super) struct Snapshot<'a> {
    pub set: &'a StatefulSet,
    pub pods: &'a [Arc<Pod>],
    /// Name of the revision that the set is leaving (the same as `update` when it is not updating).
    pub current: &'a str,
    /// Name of the revision of the present template.
    pub update: &'a str,
}

/// One pod to create.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NewPod {
    pub ordinal: i32,
    /// Whether from the present template; else from the one that the set is leaving.
    pub updated: bool,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub create: Vec<NewPod>,
    pub delete: Vec<Arc<Pod>>,
    pub status: StatefulSetStatus,
    pub recheck: Option<Duration>,
}

/// The ordinal at the end of a pod's name, if the rest is the set's.
pub(super) fn ordinal_of(set_name: &str, pod_name: &str) -> Option<i32> {
    let (parent, ordinal) = pod_name.rsplit_once('-')?;
    let canonical = ordinal == "0" || !ordinal.starts_with('0');
    (parent == set_name && canonical).then(|| ordinal.parse().ok()).flatten().filter(|ordinal| *ordinal >= 0)
}

fn revision_of(pod: &Pod) -> &str {
    pods::labels(pod).get(REVISION_HASH).map(String::as_str).unwrap_or_default()
}

struct View<'a> {
    snapshot: &'a Snapshot<'a>,
    replicas: i32,
    start: i32,
    ordered: bool,
    min_ready_s: i32,
    now: Timestamp,
}

impl<'a> View<'a> {
    fn new(snapshot: &'a Snapshot<'a>, now: Timestamp) -> Self {
        let spec = snapshot.set.spec.as_ref();
        Self {
            snapshot,
            replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            start: spec
                .and_then(|spec| spec.ordinals.as_ref())
                .and_then(|ordinals| ordinals.start)
                .unwrap_or(0),
            ordered: spec.and_then(|spec| spec.pod_management_policy.as_deref()) != Some("Parallel"),
            min_ready_s: spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0),
            now,
        }
    }

    fn ordinals(&self) -> std::ops::Range<i32> {
        self.start..self.start.saturating_add(self.replicas)
    }

    fn pod(&self, ordinal: i32) -> Option<&'a Arc<Pod>> {
        let name = self.snapshot.set.name_any();
        self.snapshot.pods.iter().find(|pod| ordinal_of(&name, pods::name(pod)) == Some(ordinal))
    }

    /// Pods beyond the wanted ordinals, highest first.
    fn condemned(&self) -> Vec<&'a Arc<Pod>> {
        let name = self.snapshot.set.name_any();
        let mut pods: Vec<_> = self
            .snapshot
            .pods
            .iter()
            .filter_map(|pod| Some((ordinal_of(&name, pods::name(pod))?, pod)))
            .filter(|(ordinal, _)| !self.ordinals().contains(ordinal))
            .collect();
        pods.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
        pods.into_iter().map(|(_, pod)| pod).collect()
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        pods::phase(pod) == "Running" && pods::is_ready(pod) && !pods::is_terminating(pod)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        self.is_healthy(pod) && pods::is_available(pod, self.min_ready_s, self.now)
    }

    fn partition(&self) -> i32 {
        let strategy = self.snapshot.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        strategy
            .and_then(|strategy| strategy.rolling_update.as_ref())
            .and_then(|rolling| rolling.partition)
            .unwrap_or(0)
    }

    fn updates_by_itself(&self) -> bool {
        let strategy = self.snapshot.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
    }

    /// While an update is under way, pods it has not reached yet come back as they were.
    fn is_created_updated(&self, ordinal: i32) -> bool {
        if self.snapshot.current == self.snapshot.update || !self.updates_by_itself() {
            return true;
        }
        let partition = self.partition();
        if partition > 0 {
            return ordinal >= self.start + partition;
        }
        let current =
            self.snapshot.set.status.as_ref().and_then(|status| status.current_replicas).unwrap_or(0);
        ordinal >= self.start + current
    }
}

pub(super) fn decide(snapshot: &Snapshot<'_>, now: Timestamp) -> Plan {
    let view = View::new(snapshot, now);
    let mut plan = Plan { status: status(&view), ..Plan::default() };
    let next = snapshot.pods.iter().filter_map(|pod| pods::available_at(pod, view.min_ready_s));
    plan.recheck = next.filter(|at| *at > now).min().map(|at| until(at, now) + Duration::from_millis(10));
    if snapshot.set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    if fill(&view, &mut plan) && scale_down(&view, &mut plan) && view.updates_by_itself() {
        roll(&view, &mut plan);
    }
    plan
}

/// Creates missing pods. Returns whether the set may go on to what comes next.
fn fill(view: &View<'_>, plan: &mut Plan) -> bool {
    for ordinal in view.ordinals() {
        match view.pod(ordinal) {
            None => {
                plan.create.push(NewPod { ordinal, updated: view.is_created_updated(ordinal) });
                if view.ordered {
                    return false;
                }
            }
            Some(pod) if pods::is_finished(pod) && !pods::is_terminating(pod) => {
                plan.delete.push(pod.clone());
                if view.ordered {
                    return false;
                }
            }
            Some(pod) if view.ordered && !view.is_available(pod) => return false,
            Some(_) => {}
        }
    }
    true
}

/// Deletes pods beyond the wanted ordinals. Returns whether the set may go on to what comes next.
fn scale_down(view: &View<'_>, plan: &mut Plan) -> bool {
    let condemned = view.condemned();
    let in_range = view.ordinals().filter_map(|ordinal| view.pod(ordinal));
    let mut all: Vec<&Arc<Pod>> = in_range.collect();
    all.extend(condemned.iter().rev());
    let first_unhealthy = all.iter().find(|pod| !view.is_healthy(pod)).map(|pod| pods::uid(pod));
    for pod in condemned {
        if pods::is_terminating(pod) {
            if view.ordered {
                return false;
            }
            continue;
        }
        // An ordered set shrinks only while all are well, but the one that is not may be the one to go.
        if view.ordered && !view.is_available(pod) && first_unhealthy != Some(pods::uid(pod)) {
            return false;
        }
        plan.delete.push(pod.clone());
        if view.ordered {
            return false;
        }
    }
    true
}

/// Deletes the highest pod of an earlier revision, once all above it are well again.
fn roll(view: &View<'_>, plan: &mut Plan) {
    let first = view.start.saturating_add(view.partition());
    for ordinal in view.ordinals().rev().take_while(|ordinal| *ordinal >= first) {
        let Some(pod) = view.pod(ordinal) else { return };
        if revision_of(pod) != view.snapshot.update {
            if !pods::is_terminating(pod) {
                plan.delete.push(pod.clone());
                // It counts no longer, so that it comes back updated.
                let current = plan.status.current_replicas.unwrap_or(0) - 1;
                plan.status.current_replicas = Some(current).filter(|count| *count > 0);
            }
            return;
        }
        if !view.is_available(pod) {
            return;
        }
    }
}

fn status(view: &View<'_>) -> StatefulSetStatus {
    let snapshot = view.snapshot;
    let old = snapshot.set.status.clone().unwrap_or_default();
    let count = |wanted: &dyn Fn(&Pod) -> bool| {
        let name = snapshot.set.name_any();
        let ours = snapshot.pods.iter().filter(|pod| ordinal_of(&name, pods::name(pod)).is_some());
        i32::try_from(ours.filter(|pod| wanted(pod)).count()).unwrap_or(i32::MAX)
    };
    let living = |pod: &Pod| !pods::is_terminating(pod);
    let ready = count(&|pod| view.is_healthy(pod));
    let available = count(&|pod| view.is_available(pod));
    let replicas = count(&|_| true);
    let updated = count(&|pod| living(pod) && revision_of(pod) == snapshot.update);
    let mut current = count(&|pod| living(pod) && revision_of(pod) == snapshot.current);
    let mut current_revision = snapshot.current;
    let complete = updated == replicas && available == replicas && replicas == view.replicas;
    if view.updates_by_itself() && complete {
        current_revision = snapshot.update;
        current = updated;
    }
    StatefulSetStatus {
        replicas,
        ready_replicas: Some(ready).filter(|count| *count > 0),
        available_replicas: Some(available),
        current_replicas: Some(current).filter(|count| *count > 0),
        updated_replicas: Some(updated).filter(|count| *count > 0),
        current_revision: Some(current_revision.into()),
        update_revision: Some(snapshot.update.into()),
        observed_generation: snapshot.set.metadata.generation.max(old.observed_generation),
        collision_count: Some(old.collision_count.unwrap_or(0)),
        conditions: old.conditions,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::testing::{at, labelled, ready_pod, running_pod};

    /// A set with its pods, moved by its own plans; pods become ready one reconcile after they were made.
    struct World {
        set: StatefulSet,
        pods: Vec<Pod>,
        update: String,
    }

    impl World {
        fn new(spec: serde_json::Value) -> Self {
            let mut whole = json!({"metadata": {"name": "db", "generation": 1}, "spec": {"selector": {}, "template": {}}});
            whole["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            Self { set: serde_json::from_value(whole).unwrap(), pods: Vec::new(), update: "v1".into() }
        }

        fn plan(&self) -> Plan {
            let pods: Vec<Arc<Pod>> = self.pods.iter().cloned().map(Arc::new).collect();
            let known = self.set.status.as_ref().and_then(|status| status.current_revision.clone());
            let current = known.unwrap_or_else(|| self.update.clone());
            decide(
                &Snapshot { set: &self.set, pods: &pods, current: &current, update: &self.update },
                at(100),
            )
        }

        fn step(&mut self) -> Plan {
            let plan = self.plan();
            self.set.status = Some(plan.status.clone());
            for pod in &plan.delete {
                self.pods.retain(|known| known.metadata.name != pod.metadata.name);
            }
            let current = self.set.status.as_ref().unwrap().current_revision.clone().unwrap();
            for new in &plan.create {
                let revision = if new.updated { self.update.clone() } else { current.clone() };
                self.pods.push(labelled(
                    running_pod(&format!("db-{}", new.ordinal), "n"),
                    REVISION_HASH,
                    &revision,
                ));
            }
            plan
        }

        fn make_ready(&mut self) {
            for pod in &mut self.pods {
                pod.status = ready_pod("x", "n", at(0)).status;
            }
        }

        fn settle(&mut self) {
            for _ in 0..30 {
                self.step();
                self.make_ready();
            }
        }

        fn state(&self) -> Vec<String> {
            let mut state: Vec<_> =
                self.pods.iter().map(|pod| format!("{}={}", pods::name(pod), revision_of(pod))).collect();
            state.sort();
            state
        }
    }

    #[test]
    fn an_ordered_set_grows_one_ready_pod_at_a_time_and_shrinks_from_the_top() {
        let mut world = World::new(json!({"replicas": 3}));
        assert_eq!(world.step().create.len(), 1);
        assert_eq!(world.step().create.len(), 0, "db-0 is not ready");
        world.make_ready();
        assert_eq!(world.step().create[0].ordinal, 1);
        world.settle();
        assert_eq!(world.state(), ["db-0=v1", "db-1=v1", "db-2=v1"]);
        world.set.spec.as_mut().unwrap().replicas = Some(1);
        let plan = world.step();
        assert_eq!((plan.delete.len(), pods::name(&plan.delete[0])), (1, "db-2"));
        world.settle();
        assert_eq!(world.state(), ["db-0=v1"]);
    }

    #[test]
    fn a_parallel_set_does_not_wait() {
        let world = World::new(json!({"replicas": 3, "podManagementPolicy": "Parallel"}));
        assert_eq!(world.plan().create.len(), 3);
    }

    #[test]
    fn an_update_goes_from_the_top_down_and_stops_at_the_partition() {
        let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
        let mut world = World::new(json!({"replicas": 3, "updateStrategy": rolling}));
        world.settle();
        world.update = "v2".into();
        assert_eq!(pods::name(&world.step().delete[0]), "db-2");
        world.settle();
        assert_eq!(world.state(), ["db-0=v1", "db-1=v2", "db-2=v2"]);
        world.pods.retain(|pod| pods::name(pod) != "db-0");
        world.settle();
        assert_eq!(world.state()[0], "db-0=v1", "below the partition it comes back as it was");
        world.set.spec.as_mut().unwrap().update_strategy = None;
        world.settle();
        assert_eq!(world.state(), ["db-0=v2", "db-1=v2", "db-2=v2"]);
        assert_eq!(world.set.status.as_ref().unwrap().current_revision.as_deref(), Some("v2"));
    }

    #[test]
    fn a_terminating_pod_holds_an_ordered_set_up_until_it_is_gone() {
        let mut world = World::new(json!({"replicas": 2}));
        world.settle();
        world.pods[0].metadata.deletion_timestamp = Some(Time(at(1)));
        let plan = world.plan();
        assert!(plan.create.is_empty() && plan.delete.is_empty());
        world.pods.remove(0);
        assert_eq!(world.plan().create, [NewPod { ordinal: 0, updated: true }]);
    }

    #[test]
    fn only_canonical_ordinals_count() {
        assert_eq!(ordinal_of("db", "db-10"), Some(10));
        assert_eq!(ordinal_of("db", "db-01"), None);
        assert_eq!(ordinal_of("db", "other-1"), None);
    }
}
