//! The pod's status: a pure function over its spec, what the runtime holds of it, what its worker remembers, and the
//! status that the API has.
//!
//! Guarantees: restart counts never go back, a terminal phase stays, and conditions that are not the agent's stay as they
//! are. Times that tell a change move only with the change.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions;
use super::memory::Memory;
use super::phase;
use super::resize;
use super::spec::{self, PodExt};
use crate::cri::{ContainerRecord, PodRuntime, RunState};

/// What a status is made from.
pub struct View<'a> {
    /// The pod with the status that the API has.
    pub pod: &'a Pod,
    /// What the runtime holds of it.
    pub runtime: &'a PodRuntime,
    /// What the worker remembers.
    pub memory: &'a Memory,
    /// The node's address.
    pub node_ip: IpAddr,
    /// The runtime's name, for container ids.
    pub runtime_name: &'a str,
    /// Whether the pod is to end, or has ended: nothing is started again.
    pub ending: bool,
    /// A verdict over the whole pod (evicted, deadline exceeded, not admitted): phase Failed with this reason.
    pub verdict: Option<&'a Verdict>,
    /// The time.
    pub now: Timestamp,
}

/// Why a pod fails as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The status's reason.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// Whether the pod was disrupted from outside, which its controller then forgives.
    pub disruption: bool,
    /// Whether it was turned away before anything ran.
    pub rejected: bool,
}

/// Makes the status.
pub fn build(view: &View<'_>) -> PodStatus {
    let pod = view.pod;
    let before = pod.status.clone().unwrap_or_default();
    let mut status = PodStatus {
        observed_generation: pod.metadata.generation,
        qos_class: before.qos_class.clone().or_else(|| Some(pod.qos_class().as_str().to_string())),
        start_time: before.start_time.clone().or(Some(Time(seconds(view.now)))),
        host_ip: Some(view.node_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: view.node_ip.to_string() }]),
        nominated_node_name: before.nominated_node_name.clone(),
        resource_claim_statuses: before.resource_claim_statuses.clone(),
        ..PodStatus::default()
    };
    if let Some(verdict) = view.verdict.filter(|verdict| verdict.rejected) {
        status.phase = Some("Failed".to_string());
        status.reason = Some(verdict.reason.clone());
        status.message = Some(verdict.message.clone());
        status.conditions = before.conditions;
        return status;
    }
    if view.ending && pod.is_over() && view.runtime.is_empty() {
        // It was over before this agent came, and nothing is left to say more of it.
        return before;
    }
    let init_done = conditions::is_initialized(view);
    let init = pod.init_containers();
    if !init.is_empty() {
        status.init_container_statuses =
            Some(init.iter().map(|c| container_status(view, c, true, init_done)).collect());
    }
    let mains = pod.spec().containers.iter().map(|c| container_status(view, c, false, init_done)).collect();
    status.container_statuses = Some(mains);
    let debugging = pod.ephemeral_containers();
    if !debugging.is_empty() {
        // They are never ready: nothing waits for them.
        let told = |c: &Container| ContainerStatus {
            ready: false,
            started: None,
            ..container_status(view, c, false, init_done)
        };
        status.ephemeral_container_statuses = Some(debugging.iter().map(told).collect());
    }
    status.phase = Some(phase::phase(view, &status, before.phase.as_deref()).to_string());
    status.reason = before.reason.filter(|_| pod.is_over());
    status.message = before.message.filter(|_| pod.is_over());
    if let Some(verdict) = view.verdict {
        status.reason = Some(verdict.reason.clone());
        status.message = Some(verdict.message.clone());
        if view.runtime.is_stopped() {
            status.phase = Some("Failed".to_string());
        }
    }
    addresses(view, &mut status, before.pod_ip, before.pod_ips);
    status.conditions = Some(conditions::build(view, &status, before.conditions.unwrap_or_default()));
    status
}

fn addresses(view: &View<'_>, status: &mut PodStatus, ip: Option<String>, ips: Option<Vec<PodIP>>) {
    let sandbox = view.runtime.sandboxes.first();
    let found: Vec<String> = match sandbox {
        Some(_) if view.pod.host_network() => vec![view.node_ip.to_string()],
        Some(sandbox) => sandbox.ips.clone(),
        None => Vec::new(),
    };
    if let Some(first) = found.first() {
        status.pod_ip = Some(first.clone());
        status.pod_ips = Some(found.into_iter().map(|ip| PodIP { ip }).collect());
    } else if sandbox.is_some_and(|sandbox| !sandbox.ready) || view.ending {
        // A stopped sandbox has no address any more; the pod keeps the one it had.
        status.pod_ip = ip;
        status.pod_ips = ips;
    }
}

/// Times in statuses are whole seconds.
pub fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn previous<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let init = status.init_container_statuses.iter().flatten();
    let mains = status.container_statuses.iter().flatten();
    let debugging = status.ephemeral_container_statuses.iter().flatten();
    init.chain(mains).chain(debugging).find(|c| c.name == name)
}

fn container_status(view: &View<'_>, container: &Container, init: bool, init_done: bool) -> ContainerStatus {
    let before = previous(view.pod, &container.name);
    let records: Vec<&ContainerRecord> =
        view.runtime.containers.iter().filter(|c| c.name == container.name).collect();
    let Some(current) = records.first().copied() else {
        return absent(view, container, before, init_done);
    };
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: if current.image.is_empty() {
            container.image.clone().unwrap_or_default()
        } else {
            current.image.clone()
        },
        image_id: current.image_id.clone(),
        container_id: Some(container_id(view, current)),
        restart_count: i32::try_from(current.restart_count)
            .unwrap_or(i32::MAX)
            .max(before.map_or(0, |before| before.restart_count)),
        state: Some(state(view, current)),
        ..ContainerStatus::default()
    };
    status.last_state = records
        .get(1)
        .filter(|last| last.ended())
        .map(|last| state(view, last))
        .or_else(|| {
            before.filter(|b| b.container_id == status.container_id).and_then(|b| b.last_state.clone())
        })
        .or_else(|| ended_before(before, status.container_id.as_deref()));
    let running = current.state == RunState::Running;
    let probes = view.memory.probes.get(&current.id).copied().unwrap_or_default();
    let hook_ended = view.memory.hooks_running.as_ref() != Some(&current.id);
    let started =
        running && hook_ended && (container.startup_probe.is_none() || probes.startup == Some(true));
    status.started = Some(started);
    status.ready = if init && !spec::is_sidecar(container) {
        current.state == RunState::Exited && current.exit_code == 0
    } else {
        started && (container.readiness_probe.is_none() || probes.readiness == Some(true))
    };
    if !running && !view.ending {
        waits_for_restart(view, container, current, &mut status, init);
    }
    let granted = container.resources.clone().unwrap_or_default();
    status.allocated_resources = granted.requests.clone();
    let outgrown = view.memory.allocation.outgrown(&container.name).filter(|_| running);
    status.resources = Some(outgrown.cloned().unwrap_or(granted));
    status
}

/// A container that ended and is to start again waits; what it ended with becomes its last state.
fn waits_for_restart(
    view: &View<'_>,
    container: &Container,
    current: &ContainerRecord,
    status: &mut ContainerStatus,
    init: bool,
) {
    let again = current.state == RunState::Created
        || if init && !spec::is_sidecar(container) {
            super::decide::init_restarts(view.pod, container, current.exit_code)
        } else {
            resize::restarts(view.memory, view.pod, container, current.exit_code)
        };
    if !again {
        return;
    }
    let waiting = if let Some(failure) = view.memory.failures.get(&container.name) {
        Some((failure.reason.clone(), Some(failure.message.clone())))
    } else if let Some((_, delay)) = view.memory.crash_wait(&container.name, current.finished(), view.now) {
        let message = format!(
            "back-off {} restarting failed container={} pod={}",
            go_duration(delay.as_secs()),
            container.name,
            view.pod.title()
        );
        Some(("CrashLoopBackOff".to_string(), Some(message)))
    } else if resize::ends(view.memory, container) {
        // As far as the API knows, a container may have ended for good by ending well.
        Some(("ContainerCreating".to_string(), None))
    } else {
        None
    };
    if let Some((reason, message)) = waiting {
        if current.ended() {
            status.last_state = status.state.take();
        }
        status.state = Some(waiting_state(&reason, message));
    }
}

/// `1m20s`, as Go writes durations.
pub fn go_duration(seconds: i64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

fn waiting_state(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_string()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

/// A container that the runtime does not know: not made yet, or gone.
fn absent(
    view: &View<'_>,
    container: &Container,
    before: Option<&ContainerStatus>,
    init_done: bool,
) -> ContainerStatus {
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        ..ContainerStatus::default()
    };
    if let Some(before) = before {
        status.restart_count = before.restart_count;
        status.last_state = before.last_state.clone();
        let state = before.state.clone().unwrap_or_default();
        if state.terminated.is_some() {
            // It ended, and its record was removed since.
            let is_init = view.pod.init_containers().iter().any(|c| c.name == container.name);
            let kept = ContainerStatus { ready: is_init && init_done && before.ready, ..before.clone() };
            return ContainerStatus { started: Some(false), ..kept };
        }
        if state.running.is_some() && (view.ending || !view.runtime.is_empty()) {
            let lost = lost_state(before, &state);
            if view.ending {
                return ContainerStatus {
                    state: Some(lost),
                    ready: false,
                    started: Some(false),
                    ..before.clone()
                };
            }
            status.last_state = Some(lost);
        }
    }
    let default = if view.pod.init_containers().is_empty() { "ContainerCreating" } else { "PodInitializing" };
    status.state = Some(match view.memory.failures.get(&container.name) {
        Some(failure) => waiting_state(&failure.reason, Some(failure.message.clone())),
        None => waiting_state(default, None),
    });
    status
}

/// The state of a container that ran and is nowhere to be found.
fn lost_state(before: &ContainerStatus, state: &ContainerState) -> ContainerState {
    let terminated = ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_string()),
        message: Some("The container could not be located when the pod was terminated".to_string()),
        container_id: before.container_id.clone(),
        started_at: state.running.as_ref().and_then(|running| running.started_at.clone()),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

/// The last state that the API remembers of a container before the current one.
fn ended_before(before: Option<&ContainerStatus>, current_id: Option<&str>) -> Option<ContainerState> {
    let before = before.filter(|before| before.container_id.as_deref() != current_id)?;
    let state = before.state.as_ref()?;
    if state.terminated.is_some() { Some(state.clone()) } else { before.last_state.clone() }
}

fn container_id(view: &View<'_>, record: &ContainerRecord) -> String {
    format!("{}://{}", view.runtime_name, record.id)
}

fn state(view: &View<'_>, record: &ContainerRecord) -> ContainerState {
    let started_at = Some(Time(seconds(record.started()))).filter(|_| record.started_at > 0);
    match record.state {
        RunState::Running => {
            let running = ContainerStateRunning { started_at };
            ContainerState { running: Some(running), ..ContainerState::default() }
        }
        RunState::Created => waiting_state("ContainerCreating", None),
        RunState::Exited | RunState::Unknown => {
            let unknown = record.state == RunState::Unknown;
            let reason = match (unknown, record.reason.is_empty(), record.exit_code) {
                (true, true, _) => "ContainerStatusUnknown".to_string(),
                (false, true, 0) => "Completed".to_string(),
                (false, true, _) => "Error".to_string(),
                (_, false, _) => record.reason.clone(),
            };
            let terminated = ContainerStateTerminated {
                exit_code: if unknown { 137 } else { record.exit_code },
                reason: Some(reason),
                message: Some(record.message.clone()).filter(|message| !message.is_empty()),
                started_at,
                finished_at: Some(Time(seconds(record.finished()))).filter(|_| record.finished_at > 0),
                container_id: Some(container_id(view, record)),
                signal: None,
            };
            ContainerState { terminated: Some(terminated), ..ContainerState::default() }
        }
    }
}
