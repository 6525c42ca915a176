//! The pod's phase, from what its containers do.
//!
//! Guarantees: a terminal phase stays; a pod that is to end keeps its phase until nothing of it runs.

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

use super::conditions;
use super::resize;
use super::spec::{self, PodExt, RestartPolicy};
use super::status::View;

#[derive(Default)]
struct Count {
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
}

fn count(statuses: &[ContainerStatus]) -> Count {
    let mut count = Count::default();
    for status in statuses {
        let state = status.state.clone().unwrap_or_default();
        if state.running.is_some() {
            count.running += 1;
        } else if let Some(terminated) = state.terminated {
            count.stopped += 1;
            count.succeeded += usize::from(terminated.exit_code == 0);
        } else if status.last_state.as_ref().is_some_and(|last| last.terminated.is_some()) {
            count.stopped += 1;
        } else {
            count.waiting += 1;
        }
    }
    count
}

/// The phase that fits the status of the containers. `before` is the phase that the API has.
pub fn phase<'a>(view: &View<'_>, status: &PodStatus, before: Option<&'a str>) -> &'a str {
    if let Some(terminal @ ("Succeeded" | "Failed")) = before {
        return terminal;
    }
    let policy = view.pod.restart_policy();
    let init_failed =
        view.pod.init_containers().iter().zip(status.init_container_statuses.iter().flatten()).any(
            |(container, status)| {
                let code = status.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
                !spec::is_sidecar(container)
                    && code.is_some_and(|code| {
                        code != 0 && !super::decide::init_restarts(view.pod, container, code)
                    })
            },
        );
    let mains = count(status.container_statuses.as_deref().unwrap_or_default());
    let over = view.ending && view.runtime.is_stopped();
    if init_failed {
        return "Failed";
    }
    if !conditions::is_initialized(view) {
        return if over && !view.runtime.is_empty() { "Failed" } else { "Pending" };
    }
    if over && mains.running == 0 {
        return if mains.stopped > 0 && mains.stopped == mains.succeeded { "Succeeded" } else { "Failed" };
    }
    if mains.waiting > 0 {
        return if before == Some("Running") { "Running" } else { "Pending" };
    }
    if mains.running > 0 {
        return "Running";
    }
    let restarted =
        view.pod.spec().containers.iter().zip(status.container_statuses.iter().flatten()).any(|(c, s)| {
            let code = s.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
            code.is_none_or(|code| resize::restarts(view.memory, view.pod, c, code))
        });
    match policy {
        _ if view.ending && view.verdict.is_none() && view.pod.is_deleted() => "Running",
        _ if restarted => "Running",
        RestartPolicy::Always if mains.stopped != mains.succeeded => "Failed",
        _ if mains.stopped == mains.succeeded => "Succeeded",
        _ => "Failed",
    }
}
