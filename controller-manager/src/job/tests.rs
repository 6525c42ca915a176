use serde_json::json;

use super::*;
use crate::testing::{at, running_pod};

/// A job with its pods, reconciled against plans applied in memory.
struct World {
    job: Job,
    pods: Vec<Pod>,
    made: usize,
    second: i64,
    deleted: bool,
}

impl World {
    fn new(spec: serde_json::Value) -> Self {
        let job =
            serde_json::from_value(json!({"metadata": {"name": "j", "uid": "j"}, "spec": spec})).unwrap();
        Self { job, pods: Vec::new(), made: 0, second: 0, deleted: false }
    }

    fn decide(&self) -> Plan {
        let pods: Vec<Arc<Pod>> = self.pods.iter().cloned().map(Arc::new).collect();
        let none = HashSet::new();
        decide(&Snapshot { job: &self.job, pods: &pods, released: &none, current: true }, at(self.second))
    }

    fn reconcile(&mut self) {
        let plan = self.decide();
        self.job.status = Some(plan.status);
        for pod in plan.release {
            let known = self.pods.iter_mut().find(|known| known.metadata.uid == pod.metadata.uid).unwrap();
            known.metadata.finalizers = None;
        }
        for pod in plan.delete {
            self.pods.retain(|known| known.metadata.uid != pod.metadata.uid);
        }
        for number in 0..plan.create {
            let mut pod = running_pod(&format!("p{}", self.made), "n");
            self.made += 1;
            pod.metadata.finalizers = Some(vec![FINALIZER.into()]);
            if let Some(slot) = plan.indexes.get(number) {
                let mut annotations =
                    std::collections::BTreeMap::from([(INDEX.to_string(), slot.index.to_string())]);
                annotations
                    .extend(slot.failures.map(|count| (INDEX_FAILURES.to_string(), count.to_string())));
                pod.metadata.annotations = Some(annotations);
            }
            self.pods.push(pod);
        }
        self.deleted |= plan.delete_job;
    }

    fn settle(&mut self) {
        for _ in 0..5 {
            self.reconcile();
        }
    }

    fn running(&self) -> usize {
        self.pods.iter().filter(|pod| pods::is_active(pod)).count()
    }

    fn end_all(&mut self, phase: &str) {
        for pod in self.pods.iter_mut().filter(|pod| pods::is_active(pod)) {
            pod.status.as_mut().unwrap().phase = Some(phase.into());
            pod.metadata.creation_timestamp = Some(Time(at(self.second)));
        }
    }

    fn status(&self) -> &JobStatus {
        self.job.status.as_ref().unwrap()
    }

    fn end(&self) -> Option<(&str, &str)> {
        let conditions = self.status().conditions.iter().flatten();
        conditions
            .filter(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed"))
            .map(|condition| (condition.type_.as_str(), condition.reason.as_deref().unwrap()))
            .next()
    }
}

#[test]
fn a_job_runs_as_many_at_once_as_allowed_until_all_have_succeeded() {
    let mut world = World::new(json!({"parallelism": 2, "completions": 3}));
    world.settle();
    assert_eq!(world.running(), 2);
    world.end_all("Succeeded");
    world.settle();
    assert_eq!((world.running(), world.status().succeeded), (1, Some(2)));
    world.end_all("Succeeded");
    world.settle();
    assert_eq!(world.end(), Some(("Complete", "CompletionsReached")));
    assert_eq!((world.made, world.status().succeeded), (3, Some(3)));
    assert!(world.status().completion_time.is_some());
    assert!(world.pods.iter().all(|pod| !has_finalizer(pod)));
}

#[test]
fn a_finished_pod_is_counted_once_however_often_its_finalizer_is_seen() {
    let mut world = World::new(json!({"parallelism": 1, "completions": 5}));
    world.settle();
    world.end_all("Succeeded");
    let stale = world.pods.clone();
    world.reconcile();
    world.reconcile();
    assert_eq!(world.status().succeeded, Some(1));
    // The cache still shows the finalizer that was removed.
    let pods: Vec<Arc<Pod>> = stale.into_iter().map(Arc::new).collect();
    let released = pods.iter().map(|pod| pods::uid(pod).to_string()).collect();
    let snapshot = Snapshot { job: &world.job, pods: &pods, released: &released, current: true };
    let plan = decide(&snapshot, at(1));
    assert_eq!(plan.status.succeeded, Some(1));
    assert_eq!(plan.status.uncounted_terminated_pods, Some(UncountedTerminatedPods::default()));
}

#[test]
fn an_indexed_job_gives_every_index_to_one_pod_and_retries_failed_ones() {
    let mut world = World::new(json!({"parallelism": 3, "completions": 3, "completionMode": "Indexed"}));
    world.settle();
    let of = |world: &World| {
        world.pods.iter().filter(|pod| pods::is_active(pod)).filter_map(index_of).collect::<Vec<_>>()
    };
    assert_eq!(of(&world), [0, 1, 2]);
    world.second = 5;
    world.pods[1].status.as_mut().unwrap().phase = Some("Failed".into());
    world.pods[1].metadata.creation_timestamp = Some(Time(at(5)));
    world.pods[2].status.as_mut().unwrap().phase = Some("Succeeded".into());
    world.settle();
    assert_eq!(of(&world), [0], "waits before it retries");
    world.second = 60;
    world.settle();
    assert_eq!(of(&world), [0, 1]);
    assert_eq!(world.status().completed_indexes.as_deref(), Some("2"));
    world.end_all("Succeeded");
    world.settle();
    assert_eq!(world.status().completed_indexes.as_deref(), Some("0-2"));
    assert_eq!(world.end().unwrap().0, "Complete");
}

#[test]
fn too_many_failures_or_too_much_time_fail_a_job() {
    let mut world = World::new(json!({"backoffLimit": 1}));
    world.settle();
    world.end_all("Failed");
    world.settle();
    assert_eq!(world.running(), 0, "backs off");
    world.second = 11;
    world.settle();
    assert_eq!(world.running(), 1);
    world.end_all("Failed");
    world.settle();
    assert_eq!(world.end(), Some(("Failed", "BackoffLimitExceeded")));
    assert_eq!(world.status().failed, Some(2));

    let mut slow = World::new(json!({"activeDeadlineSeconds": 5}));
    slow.settle();
    slow.second = 5;
    slow.settle();
    assert_eq!(slow.end(), Some(("Failed", "DeadlineExceeded")));
    assert_eq!(slow.running(), 0);
}

#[test]
fn a_suspended_job_has_no_pods_and_a_finished_one_goes_after_its_time() {
    let mut world = World::new(json!({"suspend": true, "ttlSecondsAfterFinished": 10}));
    world.settle();
    assert_eq!((world.running(), world.status().start_time.clone()), (0, None));
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.settle();
    assert_eq!(world.running(), 1);
    world.end_all("Succeeded");
    world.settle();
    assert!(!world.deleted && world.decide().recheck.is_some());
    world.second = 10;
    world.settle();
    assert!(world.deleted);
}

#[test]
fn a_failure_policy_ignores_disruptions_and_fails_fast_on_chosen_exit_codes() {
    let policy = json!({"rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    ]});
    let mut world = World::new(json!({"backoffLimit": 0, "podFailurePolicy": policy}));
    world.settle();
    world.end_all("Failed");
    let disrupted = json!([{"type": "DisruptionTarget", "status": "True"}]);
    world.pods[0].status.as_mut().unwrap().conditions = Some(serde_json::from_value(disrupted).unwrap());
    world.settle();
    world.second = 60;
    world.settle();
    assert_eq!((world.running(), world.status().failed), (1, None));
    world.end_all("Failed");
    let ended = json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 42}}}]);
    world.pods[1].status.as_mut().unwrap().container_statuses = Some(serde_json::from_value(ended).unwrap());
    world.settle();
    assert_eq!(world.end(), Some(("Failed", "PodFailurePolicy")));
}

#[test]
fn an_index_that_failed_too_often_is_given_up_while_the_others_go_on() {
    let mut world = World::new(json!({
        "parallelism": 2, "completions": 2, "completionMode": "Indexed", "backoffLimit": i32::MAX, "backoffLimitPerIndex": 1
    }));
    world.settle();
    world.pods[0].status.as_mut().unwrap().phase = Some("Failed".into());
    world.settle();
    assert!(has_finalizer(&world.pods[0]), "kept until it is replaced");
    world.second = 60;
    world.settle();
    let retry = world.pods.last().unwrap();
    assert_eq!((index_of(retry), failures_before(retry)), (Some(0), 1));
    assert!(!has_finalizer(&world.pods[0]));
    world.pods.last_mut().unwrap().status.as_mut().unwrap().phase = Some("Failed".into());
    world.settle();
    assert_eq!((world.running(), world.end()), (1, None));
    assert_eq!(world.status().failed_indexes.as_deref(), Some("0"));
    world.end_all("Succeeded");
    world.settle();
    assert_eq!(world.end(), Some(("Failed", "FailedIndexes")));
    assert_eq!((world.status().completed_indexes.as_deref(), world.status().failed), (Some("1"), Some(2)));
    assert!(world.pods.iter().all(|pod| !has_finalizer(pod)));
}

#[test]
fn a_success_policy_ends_a_job_early() {
    let policy = json!({"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]});
    let mut world = World::new(json!({
        "parallelism": 3, "completions": 3, "completionMode": "Indexed", "successPolicy": policy
    }));
    world.settle();
    world.pods[2].status.as_mut().unwrap().phase = Some("Succeeded".into());
    world.settle();
    assert_eq!(world.end(), None, "index 2 is not among the chosen");
    world.pods[1].status.as_mut().unwrap().phase = Some("Succeeded".into());
    world.settle();
    assert_eq!(world.end(), Some(("Complete", "SuccessPolicy")));
    assert_eq!(world.running(), 0);
}
