//! Resources that change while containers run.
//!
//! What a pod asks for is granted when the node has room for it, and noted ([`Allocation`]); until then it waits and says so.
//! What was granted is then given to the containers that run, in place or by a restart, as they want it. The status tells the
//! resources that the runtime took, not those that are asked for.
//!
//! Guarantees: the pod's own limits are in the way of neither the old limits of its containers nor the new ones; a limit on
//! memory that is lower than what is in use is not set, but tried again.
//!
//! Deliberately absent: changes of `spec.resources`, of the pod as a whole.

use client::EventType;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, ResourceRequirements};
use serde_json::json;

use super::admission;
use super::allocation::Allocation;
use super::conditions::{RESIZE_IN_PROGRESS, RESIZE_PENDING};
use super::memory::Memory;
use super::resources::{self, PodLimits};
use super::room::{Room, Wish};
use super::spec::{self, PodExt, amount};
use super::worker::Worker;
use crate::agent_state::Agent;
use crate::cri::{PodRuntime, RunState};
use crate::quantity;

/// How long after a failure a change is tried again, as upstream.
const RETRY: SignedDuration = SignedDuration::from_secs(10);

/// Why a change has to wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// `Infeasible` when the node is too small, `Deferred` when others take up the room.
    pub reason: &'static str,
    /// Which resource is short.
    pub message: String,
    /// The object's generation that asks for it.
    pub generation: Option<i64>,
}

impl Pending {
    fn told(told: &PodCondition) -> Self {
        let is_infeasible = told.reason.as_deref() == Some("Infeasible");
        Self {
            reason: if is_infeasible { "Infeasible" } else { "Deferred" },
            message: told.message.clone().unwrap_or_default(),
            generation: told.observed_generation,
        }
    }
}

/// A change that was granted and is not finished.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resizing {
    /// The object's generation that asked for it.
    pub generation: Option<i64>,
    /// Why it failed, and when it is tried again.
    pub failed: Option<(String, Timestamp)>,
}

/// Whether a container is ended, and started again, to change its resources.
pub fn ends(memory: &Memory, container: &Container) -> bool {
    memory.allocation.change(&container.name).is_some_and(|change| change.restarts(container))
}

/// Whether a container that ended is started again, as its policy says or for other resources.
pub fn restarts(memory: &Memory, pod: &Pod, container: &Container, exit_code: i32) -> bool {
    ends(memory, container) || spec::restarts(pod, container, exit_code)
}

/// Whether something that runs, or is to run again, has other resources than it was granted.
pub fn is_outstanding(pod: &Pod, runtime: &PodRuntime, memory: &Memory) -> bool {
    pod.all_containers().any(|container| {
        let runs = || runtime.latest(&container.name).is_some_and(|record| record.state == RunState::Running);
        memory.allocation.change(&container.name).is_some() && (ends(memory, container) || runs())
    })
}

/// What `granted` has and `wanted` asks for: why it cannot be had now, or `None`. Less can always be had.
fn refusal(agent: &Agent, granted: &Pod, wanted: &Pod, wish: &Wish) -> Option<(&'static str, String)> {
    let room = Room::of_node(agent);
    if let Some((name, [_, _, capacity])) = room.lacks(wish.more, Room::asked_by(granted)) {
        let requested = resources::pod_total(wanted, false, name).0;
        let message =
            format!("Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}");
        return Some(("Infeasible", message));
    }
    let others = agent.mailboxes().into_iter().filter(|mailbox| {
        let other = mailbox.latest();
        other.uid() != wanted.uid() && !other.is_over()
    });
    let others: Vec<_> = others.collect();
    let used = Room::asked_by(granted) + others.iter().map(|other| Room::asked_by(&other.latest())).sum();
    let waiting = others.iter().filter_map(|other| other.wish()).collect();
    let used = wish.used_before(room, used, waiting);
    let (name, [more, used, capacity]) = room.lacks(wish.more, used)?;
    let has = resources::pod_total(granted, false, name).0;
    Some(("Deferred", admission::lack(name, has + more, used - has, capacity)))
}

/// What an event says of a change, as upstream.
fn summary(what: &str, pod: &Pod, generation: Option<i64>, error: Option<&str>) -> String {
    let of = |containers: &[Container]| -> Vec<serde_json::Value> {
        containers.iter().map(|c| json!({ "name": c.name, "resources": c.resources })).collect()
    };
    let mut told = json!({ "containers": of(&pod.spec().containers), "generation": generation });
    if let Some(told) = told.as_object_mut() {
        if !pod.init_containers().is_empty() {
            told.insert("initContainers".to_string(), of(pod.init_containers()).into());
        }
        told.extend(error.map(|error| ("error".to_string(), error.into())));
    }
    format!("{what}: {told}")
}

impl Worker {
    /// Grants what is asked for when there is room, and notes when what was granted has been given.
    pub(super) fn review_resources(&mut self, now: Timestamp) {
        if self.memory.allocation.differs_from(&self.wanted) {
            self.ask_for_more(now);
        } else {
            self.memory.resize_pending = None;
            self.mailbox.set_wish(None);
        }
        let outstanding = is_outstanding(&self.pod, &self.runtime, &self.memory);
        match &self.memory.resize {
            None if outstanding => {
                let told = self.told(RESIZE_IN_PROGRESS).and_then(|told| told.observed_generation);
                self.begin(told.or(self.pod.metadata.generation));
            }
            Some(_) if !outstanding => self.conclude(now),
            _ => {}
        }
    }

    /// What the status says, if only of an earlier agent.
    fn told(&self, kind: &str) -> Option<&PodCondition> {
        let conditions = self.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().find(|condition| condition.type_ == kind)
    }

    fn ask_for_more(&mut self, now: Timestamp) {
        let (agent, wanted) = (self.agent.clone(), self.wanted.clone());
        let generation = wanted.metadata.generation;
        let told = self.told(RESIZE_PENDING);
        let since = told.and_then(|told| told.last_transition_time.as_ref()).map_or(now, |time| time.0);
        let wish = Wish::new(&self.pod, &wanted, since);
        // One at a time, so that nothing is granted twice, and not before all pods of the node are known.
        let turn = agent.granting.lock();
        let refused = if *turn { refusal(&agent, &self.pod, &wanted, &wish) } else { None };
        if !*turn || refused.is_some() {
            self.mailbox.set_wish(Some(wish));
            match refused {
                Some((reason, message)) => self.wait_for_room(Pending { reason, message, generation }),
                None => self.memory.resize_pending = self.told(RESIZE_PENDING).map(Pending::told),
            }
            return;
        }
        let gives_back = Room::asked_by(&self.pod).above(Room::asked_by(&wanted)) != Room::default();
        let runtime = &self.runtime;
        let mut allocation = self.memory.allocation.clone();
        allocation.grant(&wanted, |name| runtime.latest(name).is_some_and(|c| c.state == RunState::Running));
        if !self.keep(allocation) {
            return;
        }
        let mut granted = (*self.pod).clone();
        self.memory.allocation.put_into(&mut granted);
        self.pod = granted.into();
        self.mailbox.set_latest(self.pod.clone());
        self.mailbox.set_wish(None);
        drop(turn);
        if gives_back {
            agent.wake_waiting();
        }
        self.memory.resize_pending = None;
        let message = summary("Pod resize started", &self.pod, generation, None);
        agent.tell(&self.pod, None, EventType::Normal, "ResizeStarted", message);
        self.begin(generation);
    }

    fn wait_for_room(&mut self, pending: Pending) {
        let before = self.memory.resize_pending.as_ref();
        let is_known = before
            .is_some_and(|before| (before.reason, before.generation) == (pending.reason, pending.generation));
        if !is_known {
            let what = format!("Pod resize {}", pending.reason);
            let message = summary(&what, &self.wanted, pending.generation, Some(&pending.message));
            let reason = format!("Resize{}", pending.reason);
            self.agent.tell(&self.pod, None, EventType::Warning, &reason, message);
        }
        self.memory.resize_pending = Some(pending);
    }

    /// Notes an allocation for good. Without that nothing may follow from it.
    fn keep(&mut self, allocation: Allocation) -> bool {
        let saved = allocation.save(&self.agent.config.root_dir, self.pod.uid());
        if let Err(error) = &saved {
            tracing::warn!(pod = self.pod.title(), %error, "what the pod was granted cannot be noted");
        } else {
            self.memory.allocation = allocation;
        }
        saved.is_ok()
    }

    /// Notes what a pod was granted that comes to run. What an earlier agent granted stays.
    pub(super) fn grant_first(&mut self) {
        if self.memory.allocation == Allocation::default() {
            // What cannot be written now, a restart of the agent takes from the spec.
            let allocation = Allocation::of(&self.pod);
            if !self.keep(allocation.clone()) {
                self.memory.allocation = allocation;
            }
        }
    }

    /// Notes that a container has, or is about to be started with, what it was granted. False when it had that before.
    pub(super) fn has_been_given(&mut self, container: &str) -> bool {
        let mut allocation = self.memory.allocation.clone();
        // Not written, it is given once more after a restart of the agent.
        allocation.applied(container) && {
            if !self.keep(allocation.clone()) {
                self.memory.allocation = allocation;
            }
            true
        }
    }

    fn begin(&mut self, generation: Option<i64>) {
        self.memory.resize = Some(Resizing { generation, failed: None });
        self.make_way(Timestamp::now());
    }

    /// Gives the pod as a whole limits that are in no container's way.
    fn make_way(&mut self, now: Timestamp) -> bool {
        let mut before = (*self.pod).clone();
        self.memory.allocation.put_outgrown_into(&mut before);
        self.set_limits(&resources::of_pod(&before).most(&resources::of_pod(&self.pod)), now)
    }

    fn conclude(&mut self, now: Timestamp) {
        if self.is_waiting_to_retry(now) || !self.set_limits(&resources::of_pod(&self.pod), now) {
            return;
        }
        let generation = self.memory.resize.take().and_then(|resizing| resizing.generation);
        let message = summary("Pod resize completed", &self.pod, generation, None);
        self.agent.tell(&self.pod, None, EventType::Normal, "ResizeCompleted", message);
    }

    fn is_waiting_to_retry(&self, now: Timestamp) -> bool {
        let failed = self.memory.resize.as_ref().and_then(|resizing| resizing.failed.as_ref());
        failed.is_some_and(|(_, retry_at)| *retry_at > now)
    }

    fn set_limits(&mut self, limits: &PodLimits, now: Timestamp) -> bool {
        let set = self.agent.cgroups.set(&self.pod, limits);
        if let Err(error) = &set {
            self.note_failure(format!("the pod's cgroup: {error}"), now);
        }
        set.is_ok()
    }

    fn note_failure(&mut self, error: String, now: Timestamp) {
        let Some(resizing) = &mut self.memory.resize else { return };
        let is_known = resizing.failed.as_ref().is_some_and(|(before, _)| *before == error);
        let generation = resizing.generation;
        let retry_at = now.saturating_add(RETRY).unwrap_or(Timestamp::MAX);
        resizing.failed = Some((error.clone(), retry_at));
        if !is_known {
            let message = summary("Pod resize error", &self.pod, generation, Some(&error));
            self.agent.tell(&self.pod, None, EventType::Warning, "ResizeError", message);
        }
    }

    /// Gives running containers what they were granted. What fails is tried again later.
    pub(super) async fn resize(&mut self, containers: &[(String, String)]) -> bool {
        let now = Timestamp::now();
        if self.make_way(now)
            && let Err(error) = self.try_resize(containers).await
        {
            self.note_failure(error, now);
        }
        true
    }

    async fn try_resize(&mut self, containers: &[(String, String)]) -> Result<(), String> {
        let pod = self.pod.clone();
        for (id, name) in containers {
            self.check_memory(&pod, id, name).await?;
        }
        for (id, name) in containers {
            let Some(container) = pod.container(name) else { continue };
            let (memory, v2) = (self.agent.machine.memory_bytes, self.agent.cgroups.v2);
            let wanted = resources::of_container(&pod, &container, memory, v2);
            let updated = self.agent.cri.update_container(id, wanted).await;
            updated.map_err(|error| format!("container {name:?}: {error}"))?;
            self.has_been_given(name);
        }
        Ok(())
    }

    /// A limit below what is in use would end the container, or be refused by the kernel half way.
    async fn check_memory(&self, pod: &Pod, id: &str, name: &str) -> Result<(), String> {
        let limit = |of: Option<&ResourceRequirements>| amount(of, true, "memory").map_or(0, quantity::units);
        let container = pod.container(name);
        let new = limit(container.as_ref().and_then(|container| container.resources.as_ref()));
        let old = limit(self.memory.allocation.outgrown(name));
        if new == 0 || old != 0 && new >= old {
            return Ok(());
        }
        let usage = self.agent.cri.memory_usage(id).await;
        let usage =
            usage.map_err(|error| format!("unable to read memory usage of container {name:?}: {error}"))?;
        if u64::try_from(new).is_ok_and(|new| usage < new) {
            return Ok(());
        }
        Err(format!(
            "cannot decrease memory limits: attempting to set container {name:?} memory limit ({new}) below current usage ({usage})"
        ))
    }
}
