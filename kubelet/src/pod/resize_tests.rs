//! Changes of resources in place, as noted, decided and told.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};

use super::allocation::Allocation;
use super::decide::{Action, decide};
use super::decide_tests::{now, pod, record, runtime};
use super::memory::Memory;
use super::resize::{Pending, Resizing, is_outstanding};
use super::status::{self, View};
use crate::cri::{PodRuntime, RunState};

fn resources(cpu: &str, memory: &str) -> Value {
    let amounts = json!({"cpu": cpu, "memory": memory});
    json!({"requests": amounts, "limits": amounts})
}

/// A pod of one container that asks for so much.
fn sized(cpu: &str, memory: &str, policy: &Value) -> Pod {
    pod(
        json!({"restartPolicy": "OnFailure", "containers": [{"name": "a", "image": "i", "resizePolicy": policy,
        "resources": resources(cpu, memory)}]}),
    )
}

/// What is remembered of a pod that runs as `then` and was granted to be as `now`.
fn granted(then: &Pod, now: &Pod) -> Memory {
    let mut allocation = Allocation::of(then);
    allocation.grant(now, |_| true);
    Memory { allocation, ..Memory::default() }
}

fn in_state(pod: &Pod, state: RunState) -> PodRuntime {
    runtime(vec![record(pod, "a", state, 0)])
}

fn told(pod: &Pod, runtime: &PodRuntime, memory: &Memory) -> PodStatus {
    status::build(&View {
        pod,
        runtime,
        memory,
        node_ip: "192.0.2.1".parse().unwrap(),
        runtime_name: "gantry",
        ending: false,
        verdict: None,
        now: now(),
    })
}

#[test]
fn what_was_granted_should_outlive_the_agent() {
    let root = tempfile::tempdir().unwrap();
    let (small, large) = (sized("100m", "64Mi", &json!([])), sized("200m", "128Mi", &json!([])));
    assert_eq!(Allocation::load(root.path(), "u"), None);
    let before = granted(&small, &large).allocation;
    before.save(root.path(), "u").unwrap();
    let after = Allocation::load(root.path(), "u").unwrap();
    assert_eq!(after, before);
    assert!(after.change("a").is_some() && after.differs_from(&small) && !after.differs_from(&large));
    let mut asks_for_more = sized("9", "9Gi", &json!([]));
    after.put_into(&mut asks_for_more);
    assert_eq!(asks_for_more.spec, large.spec);
    std::fs::write(root.path().join("pods/u/resources.json"), "{").unwrap();
    assert_eq!(Allocation::load(root.path(), "u"), None);
}

#[test]
fn a_grant_should_be_compared_with_what_containers_have_and_not_with_the_grant_before() {
    let size = |cpu| sized(cpu, "64Mi", &json!([]));
    let mut allocation = Allocation::of(&size("100m"));
    allocation.grant(&size("200m"), |_| true);
    allocation.grant(&size("300m"), |_| true);
    assert!(allocation.change("a").is_some());
    allocation.grant(&size("0.1"), |_| true);
    assert_eq!(allocation.change("a"), None);
    // What does not run has nothing that could be changed.
    allocation.grant(&size("500m"), |_| false);
    assert_eq!(allocation.change("a"), None);
    assert!(!allocation.differs_from(&size("500m")));
}

#[test]
fn what_was_granted_should_be_given_to_running_containers() {
    let (small, large) = (sized("100m", "64Mi", &json!([])), sized("200m", "128Mi", &json!([])));
    let running = in_state(&small, RunState::Running);
    let actions = |memory: &Memory| decide(&large, &running, memory, now()).actions;
    assert_eq!(actions(&granted(&large, &large)), []);
    let mut memory = granted(&small, &large);
    let containers = vec![("id-a".to_string(), "a".to_string())];
    assert_eq!(actions(&memory), [Action::Resize { containers: containers.clone() }]);

    let retry_at = now() + SignedDuration::from_secs(3);
    memory.resize = Some(Resizing { generation: None, failed: Some(("no".to_string(), retry_at)) });
    let waiting = decide(&large, &running, &memory, now());
    assert_eq!((waiting.actions, waiting.wake_at), (vec![], Some(retry_at)));
    assert_eq!(decide(&large, &running, &memory, retry_at).actions, [Action::Resize { containers }]);
}

#[test]
fn init_containers_should_be_changed_while_they_run() {
    let with_init = |cpu: &str| {
        pod(json!({"initContainers": [{"name": "a", "image": "i", "resources": resources(cpu, "64Mi")}],
            "containers": [{"name": "main", "image": "i"}]}))
    };
    let (small, large) = (with_init("100m"), with_init("200m"));
    let decided = decide(&large, &in_state(&small, RunState::Running), &granted(&small, &large), now());
    assert!(matches!(decided.actions[..], [Action::Resize { .. }]), "{decided:?}");
    let decided = decide(&large, &in_state(&small, RunState::Exited), &granted(&small, &large), now());
    assert!(matches!(decided.actions[..], [Action::StartContainer { .. }]), "{decided:?}");
}

#[test]
fn a_container_that_asks_for_it_should_be_started_anew_however_it_ended() {
    let policy = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"},
        {"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let small = sized("100m", "64Mi", &policy);
    let running = in_state(&small, RunState::Running);
    let more_cpu = sized("200m", "64Mi", &policy);
    let decided = decide(&more_cpu, &running, &granted(&small, &more_cpu), now());
    assert!(matches!(decided.actions[..], [Action::Resize { .. }]), "{decided:?}");

    let more_memory = sized("100m", "128Mi", &policy);
    let memory = granted(&small, &more_memory);
    let decided = decide(&more_memory, &running, &memory, now());
    let [Action::KillContainer { message, .. }] = &decided.actions[..] else { panic!("{decided:?}") };
    assert_eq!(message, "Container a resize requires restart, will be restarted");

    let ended = in_state(&small, RunState::Exited);
    let decided = decide(&more_memory, &ended, &memory, now());
    let start = Action::StartContainer { name: "a".to_string(), restart_count: 1 };
    assert_eq!((decided.actions, decided.over), (vec![start], false));
    let status = told(&more_memory, &ended, &memory);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(status.container_statuses.unwrap()[0].state.as_ref().unwrap().waiting.is_some());
    assert!(is_outstanding(&more_memory, &ended, &memory));
    // One that ended of its own accord is over.
    let memory = granted(&small, &more_cpu);
    assert!(decide(&more_cpu, &ended, &memory, now()).over && !is_outstanding(&more_cpu, &ended, &memory));
}

#[test]
fn the_status_should_tell_what_is_and_what_was_granted_and_not_what_is_asked_for() {
    let (small, large) = (sized("100m", "64Mi", &json!([])), sized("200m", "128Mi", &json!([])));
    let running = in_state(&small, RunState::Running);
    let amounts = |status: &PodStatus| {
        let container = serde_json::to_value(&status.container_statuses.as_ref().unwrap()[0]).unwrap();
        let of = |pointer| container.pointer(pointer).and_then(Value::as_str).unwrap().to_string();
        (of("/resources/limits/cpu"), of("/allocatedResources/cpu"))
    };
    let conditions = |status: &PodStatus| -> Vec<Value> {
        let all = status.conditions.iter().flatten().filter(|c| c.type_.starts_with("PodResize"));
        all.map(|c| json!([c.type_, c.reason, c.message, c.observed_generation])).collect()
    };
    let text = |cpu: &str, granted: &str| (cpu.to_string(), granted.to_string());

    let mut memory = granted(&small, &small);
    let pending = Pending { reason: "Deferred", message: "cpu".to_string(), generation: Some(2) };
    memory.resize_pending = Some(pending);
    let mut status = told(&small, &running, &memory);
    assert_eq!(amounts(&status), text("100m", "100m"));
    assert_eq!(conditions(&status), [json!(["PodResizePending", "Deferred", "cpu", 2])]);

    let mut memory = granted(&small, &large);
    let retry_at = now() + SignedDuration::from_secs(3);
    memory.resize = Some(Resizing { generation: Some(2), failed: None });
    let changing = Pod { status: Some(status), ..large.clone() };
    status = told(&changing, &running, &memory);
    assert_eq!(amounts(&status), text("100m", "200m"));
    assert_eq!(conditions(&status), [json!(["PodResizeInProgress", null, null, 2])]);
    memory.resize = Some(Resizing { generation: Some(2), failed: Some(("no".to_string(), retry_at)) });
    status = told(&changing, &running, &memory);
    assert_eq!(conditions(&status), [json!(["PodResizeInProgress", "Error", "no", 2])]);

    let changed = Pod { status: Some(status), ..large.clone() };
    status = told(&changed, &running, &granted(&large, &large));
    assert_eq!((amounts(&status), conditions(&status)), (text("200m", "200m"), vec![]));
}
