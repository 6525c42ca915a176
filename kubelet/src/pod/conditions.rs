//! The pod's conditions. Those of others are carried along as they are.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::memory::Memory;
use super::spec::{self, PodExt};
use super::status::{View, seconds};
use crate::cri::RunState;

const READY_TO_START: &str = "PodReadyToStartContainers";
const INITIALIZED: &str = "Initialized";
const READY: &str = "Ready";
const CONTAINERS_READY: &str = "ContainersReady";
const SCHEDULED: &str = "PodScheduled";
const DISRUPTION: &str = "DisruptionTarget";
/// Other resources have to wait.
pub const RESIZE_PENDING: &str = "PodResizePending";
/// Other resources are being given to containers.
pub const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";
/// Conditions of the agent's that are there only while they hold.
pub const PASSING: [&str; 2] = [RESIZE_PENDING, RESIZE_IN_PROGRESS];
/// Conditions of the agent's that are always there.
pub const OWN: [&str; 5] = [READY, CONTAINERS_READY, INITIALIZED, READY_TO_START, SCHEDULED];

/// One condition's content, without its times.
struct Verdict {
    kind: &'static str,
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
    /// The object's generation that it is about, where that is not the newest.
    generation: Option<i64>,
}

impl Verdict {
    fn yes(kind: &'static str) -> Self {
        Self { kind, status: true, reason: None, message: None, generation: None }
    }

    fn no(kind: &'static str, reason: &'static str, message: Option<String>) -> Self {
        Self { status: false, reason: Some(reason), message, ..Self::yes(kind) }
    }
}

/// Whether every init container has ended well and every sidecar has started, or did so before the main ones ran.
pub fn is_initialized(view: &View<'_>) -> bool {
    incomplete_init(view).is_empty()
}

fn incomplete_init(view: &View<'_>) -> Vec<String> {
    let pod = view.pod;
    let sandbox = view.runtime.sandboxes.first().map(|sandbox| sandbox.id.as_str());
    let in_sandbox = |id: &str| id.is_empty() || sandbox.is_none_or(|sandbox| sandbox == id);
    let main_ran = pod
        .spec()
        .containers
        .iter()
        .any(|c| view.runtime.latest(&c.name).is_some_and(|r| in_sandbox(&r.sandbox_id)));
    if main_ran || view.runtime.is_empty() && told_initialized(view) {
        return Vec::new();
    }
    let done = |container: &&Container| {
        let Some(record) = view.runtime.latest(&container.name) else {
            return view.ending && told_terminated_well(view, &container.name);
        };
        if spec::is_sidecar(container) {
            record.state == RunState::Running
                && (container.startup_probe.is_none()
                    || view.memory.probes.get(&record.id).is_some_and(|probe| probe.startup == Some(true)))
        } else {
            record.state == RunState::Exited && record.exit_code == 0
        }
    };
    pod.init_containers().iter().filter(|c| !done(c)).map(|c| c.name.clone()).collect()
}

/// With nothing left in the runtime, the API's word counts, if the pod ever ran.
fn told_initialized(view: &View<'_>) -> bool {
    let Some(status) = &view.pod.status else { return false };
    let told = status.conditions.iter().flatten().any(|c| c.type_ == INITIALIZED && c.status == "True");
    told && view.ending
}

fn told_terminated_well(view: &View<'_>, name: &str) -> bool {
    let status = view.pod.status.as_ref();
    status.into_iter().flat_map(|s| s.init_container_statuses.iter().flatten()).any(|c| {
        c.name == name
            && c.state.as_ref().and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0)
    })
}

/// Makes the conditions.
pub fn build(view: &View<'_>, status: &PodStatus, before: Vec<PodCondition>) -> Vec<PodCondition> {
    let phase = status.phase.as_deref().unwrap_or_default();
    let containers_ready = containers_ready(view, status, phase);
    let ready = ready(view, &containers_ready, &before);
    let mut verdicts = vec![ready_to_start(view), initialized(view, phase), ready, containers_ready];
    if !before.iter().any(|c| c.type_ == SCHEDULED) {
        verdicts.push(Verdict::yes(SCHEDULED));
    }
    if let Some(verdict) = view.verdict.filter(|verdict| verdict.disruption) {
        verdicts.push(Verdict {
            reason: Some("TerminationByKubelet"),
            message: Some(verdict.message.clone()),
            ..Verdict::yes(DISRUPTION)
        });
    }
    verdicts.extend(resize(view.memory));
    let mut conditions: Vec<PodCondition> = Vec::with_capacity(before.len() + verdicts.len());
    for verdict in &verdicts {
        let old = before.iter().find(|c| c.type_ == verdict.kind);
        conditions.push(condition(view, verdict, old));
    }
    for foreign in before {
        let is_past = PASSING.contains(&foreign.type_.as_str());
        if !is_past && !conditions.iter().any(|c| c.type_ == foreign.type_) {
            conditions.push(foreign);
        }
    }
    conditions
}

/// What becomes of resources that were changed; nothing once they are as asked for.
fn resize(memory: &Memory) -> impl Iterator<Item = Verdict> {
    let pending = memory.resize_pending.as_ref().map(|pending| Verdict {
        reason: Some(pending.reason),
        message: Some(pending.message.clone()),
        generation: pending.generation,
        ..Verdict::yes(RESIZE_PENDING)
    });
    let under_way = memory.resize.as_ref().map(|resizing| Verdict {
        reason: resizing.failed.as_ref().map(|_| "Error"),
        message: resizing.failed.as_ref().map(|(error, _)| error.clone()),
        generation: resizing.generation,
        ..Verdict::yes(RESIZE_IN_PROGRESS)
    });
    pending.into_iter().chain(under_way)
}

fn condition(view: &View<'_>, verdict: &Verdict, old: Option<&PodCondition>) -> PodCondition {
    let status = if verdict.status { "True" } else { "False" };
    let unchanged = old.filter(|old| old.status == status);
    PodCondition {
        type_: verdict.kind.to_string(),
        status: status.to_string(),
        reason: verdict.reason.map(str::to_string),
        message: verdict.message.clone(),
        last_probe_time: None,
        last_transition_time: unchanged
            .and_then(|old| old.last_transition_time.clone())
            .or(Some(Time(seconds(view.now)))),
        observed_generation: verdict.generation.or(view.pod.metadata.generation),
    }
}

fn ready_to_start(view: &View<'_>) -> Verdict {
    let host = view.pod.host_network();
    if view.runtime.ready_sandbox().is_some_and(|sandbox| host || !sandbox.ips.is_empty()) {
        Verdict::yes(READY_TO_START)
    } else {
        Verdict { status: false, ..Verdict::yes(READY_TO_START) }
    }
}

fn initialized(view: &View<'_>, phase: &str) -> Verdict {
    let incomplete = incomplete_init(view);
    match phase {
        "Succeeded" => Verdict { reason: Some("PodCompleted"), ..Verdict::yes(INITIALIZED) },
        _ if incomplete.is_empty() => Verdict::yes(INITIALIZED),
        _ => {
            let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
            Verdict::no(INITIALIZED, "ContainersNotInitialized", Some(message))
        }
    }
}

fn containers_ready(view: &View<'_>, status: &PodStatus, phase: &str) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::no(CONTAINERS_READY, "PodCompleted", None),
        "Failed" => return Verdict::no(CONTAINERS_READY, "PodFailed", None),
        _ => {}
    }
    let sidecars = view
        .pod
        .init_containers()
        .iter()
        .zip(status.init_container_statuses.iter().flatten())
        .filter(|(container, _)| spec::is_sidecar(container))
        .map(|(_, status)| status);
    let mains = status.container_statuses.iter().flatten();
    let unready: Vec<&str> =
        sidecars.chain(mains).filter(|c: &&ContainerStatus| !c.ready).map(|c| c.name.as_str()).collect();
    if unready.is_empty() {
        return Verdict::yes(CONTAINERS_READY);
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    Verdict::no(CONTAINERS_READY, "ContainersNotReady", Some(message))
}

fn ready(view: &View<'_>, containers: &Verdict, before: &[PodCondition]) -> Verdict {
    if !containers.status {
        return Verdict {
            status: false,
            reason: containers.reason,
            message: containers.message.clone(),
            ..Verdict::yes(READY)
        };
    }
    let gates = view.pod.spec().readiness_gates.iter().flatten();
    let complaints: Vec<String> = gates
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match before.iter().find(|c| c.type_ == *kind) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist."))
                }
                Some(c) if c.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                    c.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if complaints.is_empty() {
        return Verdict::yes(READY);
    }
    Verdict::no(READY, "ReadinessGatesNotReady", Some(complaints.join(", ")))
}
