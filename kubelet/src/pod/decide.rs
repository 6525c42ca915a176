//! What to do next with a pod that should run: a pure function over its spec, what the runtime holds of it, and what its
//! worker remembers.
//!
//! Guarantees: main containers start only when every init container has ended well and every sidecar has started;
//! a container that runs is left alone unless its spec or what it was granted changed, or a probe failed for good; a pod that has run to its end
//! is told so and not started again. Ending a pod is not decided here (see [`super::terminate`]).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::memory::Memory;
use super::resize;
use super::spec::{self, PodExt, RestartPolicy};
use crate::cri::{ContainerRecord, PodRuntime, RunState};

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Stop a container, with a word why.
    KillContainer {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
        /// What the event says.
        message: String,
        /// Which probe's grace period applies.
        cause: KillCause,
    },
    /// Stop a sandbox that is of no use any more.
    StopSandbox {
        /// Its id.
        id: String,
    },
    /// Make a sandbox.
    CreateSandbox {
        /// How many there were.
        attempt: u32,
    },
    /// Make and start a container.
    StartContainer {
        /// Its name.
        name: String,
        /// How often it was started before.
        restart_count: u32,
    },
    /// Change what running containers may use.
    Resize {
        /// Their ids and names.
        containers: Vec<(String, String)>,
    },
    /// Remove a container that ended and whose logs nobody can ask for.
    RemoveContainer {
        /// Its id.
        id: String,
    },
    /// Remove a sandbox that stopped and holds nothing.
    RemoveSandbox {
        /// Its id.
        id: String,
    },
}

/// Why a container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillCause {
    /// Its spec changed, or its sandbox did, or it is no longer needed.
    Spec,
    /// Its liveness probe failed.
    Liveness,
    /// Its startup probe failed.
    Startup,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// In this order.
    pub actions: Vec<Action>,
    /// When to look again although nothing happened.
    pub wake_at: Option<Timestamp>,
    /// Nothing of the pod is to run any more.
    pub over: bool,
}

impl Decision {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

struct Decider<'a> {
    pod: &'a Pod,
    runtime: &'a PodRuntime,
    memory: &'a Memory,
    now: Timestamp,
    decision: Decision,
    resized: Vec<(String, String)>,
}

/// Decides.
pub fn decide(pod: &Pod, runtime: &PodRuntime, memory: &Memory, now: Timestamp) -> Decision {
    let decision = Decision::default();
    let mut decider = Decider { pod, runtime, memory, now, decision, resized: Vec::new() };
    decider.run();
    decider.resize();
    decider.remove_leftovers();
    decider.decision
}

impl Decider<'_> {
    fn run(&mut self) {
        if let Some(deadline) = self.pod.deadline() {
            self.decision.wake(deadline);
        }
        let host_network = self.pod.host_network();
        let sandbox = self
            .runtime
            .ready_sandbox()
            .filter(|s| s.host_network == host_network && (host_network || !s.ips.is_empty()));
        match sandbox {
            Some(sandbox) => self.in_sandbox(&sandbox.id.clone()),
            None => self.without_sandbox(),
        }
    }

    /// No usable sandbox: everything left is stopped, then one is made, unless the pod has run to its end.
    fn without_sandbox(&mut self) {
        for container in self.runtime.alive() {
            self.decision.actions.push(Action::KillContainer {
                id: container.id.clone(),
                name: container.name.clone(),
                message: "Pod sandbox changed, it will be killed and re-created.".to_string(),
                cause: KillCause::Spec,
            });
        }
        for sandbox in self.runtime.sandboxes.iter().filter(|s| s.ready) {
            self.decision.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
        }
        if !self.runtime.sandboxes.is_empty() && self.has_run_to_its_end() {
            self.decision.over = self.decision.actions.is_empty();
            return;
        }
        if let Some(failure) = self.memory.sandbox_failure.as_ref().filter(|f| f.retry_at > self.now) {
            self.decision.wake(failure.retry_at);
            return;
        }
        let attempt = self.runtime.sandboxes.first().map_or(0, |sandbox| sandbox.attempt + 1);
        self.decision.actions.push(Action::CreateSandbox { attempt });
    }

    fn in_sandbox(&mut self, sandbox: &str) {
        if self.has_run_to_its_end() || self.init_has_failed(sandbox) {
            self.decision.over = true;
            return;
        }
        for container in self.pod.ephemeral_containers() {
            if self.runtime.latest(&container.name).is_none_or(|c| c.state == RunState::Created) {
                self.start(&container);
            }
        }
        if !self.init_containers(sandbox) {
            return;
        }
        for container in &self.pod.spec().containers {
            self.keep_running(container);
        }
    }

    /// Whether every main container has ended and none is started again.
    fn has_run_to_its_end(&self) -> bool {
        let containers = &self.pod.spec().containers;
        !containers.is_empty()
            && containers.iter().all(|container| {
                self.runtime.latest(&container.name).is_some_and(|c| {
                    c.ended() && !resize::restarts(self.memory, self.pod, container, c.exit_code)
                })
            })
    }

    /// Whether an init container has failed and is not started again.
    fn init_has_failed(&self, sandbox: &str) -> bool {
        self.pod.init_containers().iter().filter(|c| !spec::is_sidecar(c)).any(|container| {
            self.in_this(sandbox, &container.name).is_some_and(|c| {
                c.ended() && c.exit_code != 0 && !init_restarts(self.pod, container, c.exit_code)
            })
        })
    }

    fn in_this(&self, sandbox: &str, name: &str) -> Option<&ContainerRecord> {
        self.runtime.latest(name).filter(|c| c.sandbox_id == sandbox || c.sandbox_id.is_empty())
    }

    /// Brings the init containers on their way. True when the main ones may start.
    fn init_containers(&mut self, sandbox: &str) -> bool {
        let pod = self.pod;
        let containers = pod.init_containers();
        let initialized = pod.spec().containers.iter().any(|c| self.in_this(sandbox, &c.name).is_some());
        // An init container after which another one ran has ended well, even if its record is gone.
        let passed = containers.iter().rposition(|c| self.in_this(sandbox, &c.name).is_some()).unwrap_or(0);
        for (index, container) in containers.iter().enumerate() {
            let record = self.in_this(sandbox, &container.name).cloned();
            if spec::is_sidecar(container) {
                let started = record.as_ref().is_some_and(|c| self.has_started(container, c));
                self.keep_running(container);
                if !started && !initialized && index >= passed {
                    return false;
                }
                continue;
            }
            if initialized || index < passed {
                continue;
            }
            match record {
                Some(c) if c.ended() && c.exit_code == 0 => {}
                Some(c) if c.state == RunState::Running => {
                    let change = self.memory.allocation.change(&container.name);
                    self.resized.extend(change.map(|_| (c.id, c.name)));
                    return false;
                }
                _ => {
                    self.start(container);
                    return false;
                }
            }
        }
        true
    }

    fn has_started(&self, container: &Container, record: &ContainerRecord) -> bool {
        record.state == RunState::Running
            && self.memory.hooks_running.as_ref() != Some(&record.id)
            && (container.startup_probe.is_none()
                || self.memory.probes.get(&record.id).is_some_and(|probe| probe.startup == Some(true)))
    }

    /// A container that should run is left alone, killed to be made anew, or started.
    fn keep_running(&mut self, container: &Container) {
        let Some(record) = self.runtime.latest(&container.name) else {
            self.start(container);
            return;
        };
        if record.state != RunState::Running {
            let restarts = || resize::restarts(self.memory, self.pod, container, record.exit_code);
            if record.state == RunState::Created || restarts() {
                self.start(container);
            }
            return;
        }
        let again = spec::container_restart_policy(self.pod, container) != RestartPolicy::Never;
        let ending = if again { ", will be restarted" } else { "" };
        let probes = self.memory.probes.get(&record.id).copied().unwrap_or_default();
        let change = self.memory.allocation.change(&container.name);
        let reason = if record.hash != spec::container_hash(container) {
            Some(("definition changed", KillCause::Spec))
        } else if probes.startup == Some(false) {
            Some(("failed startup probe", KillCause::Startup))
        } else if probes.liveness_failed {
            Some(("failed liveness probe", KillCause::Liveness))
        } else if resize::ends(self.memory, container) {
            Some(("resize requires restart", KillCause::Spec))
        } else {
            self.resized.extend(change.map(|_| (record.id.clone(), record.name.clone())));
            None
        };
        if let Some((what, cause)) = reason {
            let message = format!("Container {} {what}{ending}", container.name);
            let (id, name) = (record.id.clone(), record.name.clone());
            self.decision.actions.push(Action::KillContainer { id, name, message, cause });
        }
    }

    /// Gives containers what they were granted, or waits after a failure.
    fn resize(&mut self) {
        let failed = self.memory.resize.as_ref().and_then(|resizing| resizing.failed.as_ref());
        match failed.filter(|(_, retry_at)| *retry_at > self.now) {
            Some((_, retry_at)) => self.decision.wake(*retry_at),
            None if self.resized.is_empty() => {}
            None => {
                let containers = std::mem::take(&mut self.resized);
                self.decision.actions.push(Action::Resize { containers });
            }
        }
    }

    /// Starts a container, or waits as long as its last failure demands.
    fn start(&mut self, container: &Container) {
        let name = &container.name;
        if let Some(failure) = self.memory.failures.get(name).filter(|f| f.retry_at > self.now) {
            self.decision.wake(failure.retry_at);
            if failure.reason == "ErrImagePull" {
                let aged = failure.failed_at.saturating_add(super::memory::PULL_ERROR_SHOWN);
                self.decision.wake(aged.unwrap_or(failure.retry_at));
            }
            return;
        }
        let last = self.runtime.latest(name);
        if let Some(last) = last.filter(|c| c.ended())
            && let Some((until, _)) = self.memory.crash_wait(name, last.finished(), self.now)
        {
            self.decision.wake(until);
            return;
        }
        let restart_count = next_restart_count(self.pod, name, last);
        self.decision.actions.push(Action::StartContainer { name: name.clone(), restart_count });
    }

    /// Keeps the newest two records of a container (the current one and the one before it, for its logs), and sandboxes
    /// that still hold one.
    fn remove_leftovers(&mut self) {
        let mut kept = std::collections::HashMap::<&str, usize>::new();
        let mut in_use = std::collections::HashSet::<&str>::new();
        for container in &self.runtime.containers {
            let count = kept.entry(&container.name).or_default();
            *count += 1;
            if *count > 2 && container.ended() {
                self.decision.actions.push(Action::RemoveContainer { id: container.id.clone() });
            } else {
                in_use.insert(&container.sandbox_id);
            }
        }
        for sandbox in self.runtime.sandboxes.iter().skip(1) {
            if !sandbox.ready && !in_use.contains(sandbox.id.as_str()) {
                self.decision.actions.push(Action::RemoveSandbox { id: sandbox.id.clone() });
            }
        }
    }
}

/// Init containers know "always" only as "when they fail".
pub fn init_restarts(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    exit_code != 0 && spec::restarts(pod, container, exit_code)
}

/// A container's next restart count: after its newest record, else after what the status remembers.
fn next_restart_count(pod: &Pod, name: &str, last: Option<&ContainerRecord>) -> u32 {
    if let Some(last) = last {
        return if last.state == RunState::Created { last.restart_count } else { last.restart_count + 1 };
    }
    let status = pod.status.as_ref();
    let told = status.and_then(|status| {
        let all =
            status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
        all.into_iter().find(|c| c.name == name).cloned()
    });
    let Some(told) = told else { return 0 };
    let ran = told.container_id.as_ref().is_some_and(|id| !id.is_empty());
    u32::try_from(told.restart_count).unwrap_or(0) + u32::from(ran)
}
