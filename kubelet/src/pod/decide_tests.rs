//! What is decided, case by case.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::decide::{Action, Decision, KillCause, decide};
use super::memory::{Failure, Memory};
use super::spec::container_hash;
use super::status::{self, View};
use crate::cri::{ContainerRecord, PodRuntime, RunState, Sandbox};

pub(super) fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

pub(super) fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}))
        .unwrap()
}

fn two() -> Pod {
    pod(json!({"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}))
}

fn sandbox(ready: bool) -> Sandbox {
    Sandbox {
        id: "s0".into(),
        attempt: 0,
        ready,
        created_at: 1,
        ips: vec!["10.0.0.1".into()],
        host_network: false,
    }
}

pub(super) fn record(pod: &Pod, name: &str, state: RunState, exit_code: i32) -> ContainerRecord {
    let spec = pod.spec.as_ref().unwrap();
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let container = all.into_iter().find(|c| c.name == name).unwrap();
    ContainerRecord {
        id: format!("id-{name}"),
        name: name.into(),
        sandbox_id: "s0".into(),
        restart_count: 0,
        state,
        created_at: 2,
        started_at: i64::try_from(now().as_nanosecond()).unwrap() - 20_000_000_000,
        finished_at: i64::try_from(now().as_nanosecond()).unwrap() - 1_000_000_000,
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "i".into(),
        image_id: "sha256:1".into(),
        hash: container_hash(container),
        log_path: String::new(),
    }
}

pub(super) fn runtime(containers: Vec<ContainerRecord>) -> PodRuntime {
    PodRuntime { sandboxes: vec![sandbox(true)], containers }
}

fn run(pod: &Pod, runtime: &PodRuntime, memory: &Memory) -> Decision {
    decide(pod, runtime, memory, now())
}

fn starts(decision: &Decision) -> Vec<(&str, u32)> {
    let start = |action: &'_ Action| match action {
        Action::StartContainer { name, restart_count } => Some((name.clone(), *restart_count)),
        _ => None,
    };
    let found: Vec<(String, u32)> = decision.actions.iter().filter_map(start).collect();
    found.into_iter().map(|(name, count)| (&*name.leak(), count)).collect()
}

fn phase(
    pod: &Pod,
    runtime: &PodRuntime,
    memory: &Memory,
    ending: bool,
) -> k8s_openapi::api::core::v1::PodStatus {
    status::build(&View {
        pod,
        runtime,
        memory,
        node_ip: "1.1.1.1".parse().unwrap(),
        runtime_name: "test",
        ending,
        verdict: None,
        now: now(),
    })
}

#[test]
fn a_new_pod_gets_a_sandbox_and_then_all_its_containers() {
    let pod = two();
    let first = run(&pod, &PodRuntime::default(), &Memory::default());
    assert_eq!(first.actions, [Action::CreateSandbox { attempt: 0 }]);
    let second = run(&pod, &runtime(vec![]), &Memory::default());
    assert_eq!(starts(&second), [("a", 0), ("b", 0)]);
}

#[test]
fn what_runs_is_left_alone() {
    let pod = two();
    let containers = vec![record(&pod, "a", RunState::Running, 0), record(&pod, "b", RunState::Running, 0)];
    let decision = run(&pod, &runtime(containers), &Memory::default());
    assert!(decision.actions.is_empty() && !decision.over, "{decision:?}");
}

#[test]
fn init_containers_run_one_after_the_other_and_sidecars_stay() {
    let pod = pod(json!({"containers": [{"name": "main"}], "initContainers": [
        {"name": "one"}, {"name": "side", "restartPolicy": "Always", "startupProbe": {}}, {"name": "two"}]}));
    let done = |name: &str| record(&pod, name, RunState::Exited, 0);
    let runs = |name: &str| record(&pod, name, RunState::Running, 0);
    let mut memory = Memory::default();
    assert_eq!(starts(&run(&pod, &runtime(vec![]), &memory)), [("one", 0)]);
    assert!(run(&pod, &runtime(vec![runs("one")]), &memory).actions.is_empty());
    assert_eq!(starts(&run(&pod, &runtime(vec![done("one")]), &memory)), [("side", 0)]);
    let with_side = runtime(vec![runs("side"), done("one")]);
    assert!(run(&pod, &with_side, &memory).actions.is_empty(), "the sidecar has not started yet");
    memory.probes.entry("id-side".into()).or_default().startup = Some(true);
    assert_eq!(starts(&run(&pod, &with_side, &memory)), [("two", 0)]);
    let initialized = runtime(vec![done("two"), runs("side"), done("one")]);
    assert_eq!(starts(&run(&pod, &initialized, &memory)), [("main", 0)]);
    let status = phase(&pod, &initialized, &memory, false);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    let all = runtime(vec![done("main"), done("two"), runs("side"), done("one")]);
    assert_eq!(starts(&run(&pod, &all, &memory)), [("main", 1)]);
}

#[test]
fn a_failed_init_container_ends_a_pod_that_restarts_nothing() {
    let pod = pod(
        json!({"restartPolicy": "Never", "containers": [{"name": "main"}], "initContainers": [{"name": "i"}]}),
    );
    let failed = runtime(vec![record(&pod, "i", RunState::Exited, 1)]);
    assert!(run(&pod, &failed, &Memory::default()).over);
    assert_eq!(phase(&pod, &failed, &Memory::default(), false).phase.as_deref(), Some("Failed"));
}

#[test]
fn a_job_that_is_done_is_over_and_a_lost_sandbox_does_not_run_it_again() {
    let pod = pod(json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}, {"name": "b"}]}));
    let done = |name: &str, code| record(&pod, name, RunState::Exited, code);
    let good = runtime(vec![done("a", 0), done("b", 0)]);
    assert!(run(&pod, &good, &Memory::default()).over);
    assert_eq!(phase(&pod, &good, &Memory::default(), false).phase.as_deref(), Some("Succeeded"));
    let half = runtime(vec![done("a", 0), done("b", 3)]);
    assert_eq!(starts(&run(&pod, &half, &Memory::default())), [("b", 1)]);
    let lost = PodRuntime { sandboxes: vec![sandbox(false)], ..good };
    let decision = run(&pod, &lost, &Memory::default());
    assert!(decision.over && decision.actions.is_empty(), "{decision:?}");
}

#[test]
fn a_lost_sandbox_is_replaced_and_its_containers_start_with_higher_counts() {
    let pod = two();
    let stale = vec![record(&pod, "a", RunState::Exited, 255), record(&pod, "b", RunState::Unknown, 0)];
    let lost = PodRuntime { sandboxes: vec![sandbox(false)], containers: stale };
    let decision = run(&pod, &lost, &Memory::default());
    assert!(matches!(&decision.actions[0], Action::KillContainer { name, .. } if name == "b"));
    assert_eq!(decision.actions[1], Action::CreateSandbox { attempt: 1 });
}

#[test]
fn a_crash_restarts_at_once_and_then_waits() {
    let pod = two();
    let crashed =
        runtime(vec![record(&pod, "a", RunState::Exited, 1), record(&pod, "b", RunState::Running, 0)]);
    let mut memory = Memory::default();
    assert_eq!(starts(&run(&pod, &crashed, &memory)), [("a", 1)]);
    memory.note_restart("a", now(), now());
    let decision = run(&pod, &crashed, &memory);
    assert!(decision.actions.is_empty());
    let wait = decision.wake_at.unwrap().duration_since(now());
    assert_eq!(wait, SignedDuration::from_secs(9));
    let status = phase(&pod, &crashed, &memory, false);
    let container = &status.container_statuses.as_ref().unwrap()[0];
    let waiting = container.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(waiting.message.as_deref(), Some("back-off 10s restarting failed container=a pod=p_n(u)"));
    assert_eq!(container.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 1);
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

#[test]
fn failed_probes_and_a_changed_image_kill_the_container_with_a_word_why() {
    let pod = two();
    let running =
        runtime(vec![record(&pod, "a", RunState::Running, 0), record(&pod, "b", RunState::Running, 0)]);
    let mut memory = Memory::default();
    memory.probes.entry("id-a".into()).or_default().liveness_failed = true;
    let decision = run(&pod, &running, &memory);
    let Action::KillContainer { message, cause, .. } = &decision.actions[0] else { panic!("{decision:?}") };
    assert_eq!(
        (message.as_str(), *cause),
        ("Container a failed liveness probe, will be restarted", KillCause::Liveness)
    );
    let mut changed = pod.clone();
    changed.spec.as_mut().unwrap().containers[1].image = Some("other".into());
    let decision = run(&changed, &running, &Memory::default());
    let Action::KillContainer { message, .. } = &decision.actions[0] else { panic!("{decision:?}") };
    assert_eq!(message, "Container b definition changed, will be restarted");
}

#[test]
fn an_image_that_cannot_be_pulled_is_told_and_tried_again_later() {
    let pod = two();
    let mut memory = Memory::default();
    let backoff = super::memory::Backoff::next(None, now(), now());
    memory.note_failure("a", Failure::pull("i", "no such image".into(), backoff), now());
    let decision = run(&pod, &runtime(vec![]), &memory);
    assert_eq!(starts(&decision), [("b", 0)], "the other one is not held up");
    assert_eq!(decision.wake_at.unwrap().duration_since(now()).as_secs(), 2, "to tell of the wait");
    let status = phase(&pod, &runtime(vec![]), &memory, false);
    let waiting = status.container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("ErrImagePull"));
    assert_eq!(memory.age_pulls(now() + SignedDuration::from_secs(2)), ["a"]);
    assert_eq!(memory.failures["a"].reason, "ImagePullBackOff");
}

#[test]
fn only_the_newest_two_records_of_a_container_are_kept() {
    let pod = two();
    let mut old = record(&pod, "a", RunState::Exited, 1);
    old.id = "oldest".into();
    let containers = vec![
        record(&pod, "a", RunState::Running, 0),
        record(&pod, "a", RunState::Exited, 1),
        old,
        record(&pod, "b", RunState::Running, 0),
    ];
    let decision = run(&pod, &runtime(containers), &Memory::default());
    assert_eq!(decision.actions, [Action::RemoveContainer { id: "oldest".into() }]);
}

#[test]
fn a_deleted_pod_keeps_running_in_its_status_until_nothing_of_it_runs() {
    let mut pod = two();
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    let half = runtime(vec![record(&pod, "a", RunState::Exited, 0), record(&pod, "b", RunState::Running, 0)]);
    let status = phase(&pod, &half, &Memory::default(), true);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(status.container_statuses.unwrap()[0].state.clone().unwrap().terminated.is_some());
    let stopped = PodRuntime {
        sandboxes: vec![sandbox(false)],
        containers: vec![record(&pod, "a", RunState::Exited, 0), record(&pod, "b", RunState::Exited, 137)],
    };
    assert_eq!(phase(&pod, &stopped, &Memory::default(), true).phase.as_deref(), Some("Failed"));
}
