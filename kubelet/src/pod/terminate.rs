//! Ending a pod: out of service, hooks, signal, kill, and then nothing of it is left.
//!
//! Guarantees:
//! - a pod that serves is signalled only after the EndpointSlices have ceased to name it as ready and service proxies had
//!   the configured time to follow, as long as its grace period allows that;
//! - sidecars end after the main containers, the last one first;
//! - the object is removed from the API only when no container, mount or cgroup of the pod is left, and only if it is
//!   still the same object;
//! - a pod that completed keeps its containers for their logs until it is deleted.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{ErrorExt, EventType};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use parking_lot::Mutex;

use super::spec::{self, PodExt};
use super::worker::Worker;
use super::{config, hooks};
use crate::agent_state::Agent;
use crate::cri::ContainerRecord;
use crate::volume;

/// Between attempts when the runtime or the API fails.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(10);
/// A record that the runtime fails to remove so often does not keep the pod's object any longer.
const REMOVALS_BEFORE_DELETION: usize = 4;
/// A process has this long at least between signal and kill, as upstream.
const GRACE_MIN_S: i64 = 1;

/// The clock of an ending.
struct Countdown {
    began: Instant,
    grace_s: i64,
}

impl Countdown {
    fn left(&self) -> Duration {
        let grace = Duration::from_secs(u64::try_from(self.grace_s).unwrap_or(0));
        grace.saturating_sub(self.began.elapsed())
    }

    fn left_s(&self) -> i64 {
        let left = self.left();
        i64::try_from(left.as_secs() + u64::from(left.subsec_nanos() > 0)).unwrap_or(0).max(GRACE_MIN_S)
    }
}

impl Worker {
    /// Ends the pod and clears up after it. Returns when nothing is left to do, here and in the API.
    pub(super) async fn terminate(&mut self) {
        let mut backoff = client::backoff::Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        let countdown_began = Instant::now();
        let hooks_run = Mutex::new(HashSet::new());
        let mut left_service = false;
        loop {
            self.read_news();
            if let Err(error) = self.look().await {
                tracing::warn!(pod = self.pod.title(), %error, "the runtime does not tell about a pod that ends");
                tokio::time::sleep(backoff.next_delay()).await;
                continue;
            }
            self.probes.fit(&self.agent, &self.pod, &self.runtime, &mut self.memory, &self.mailbox, true);
            if !self.gone {
                self.tell_status(true);
            }
            if self.runtime.is_stopped() {
                break;
            }
            let grace_s = self.mailbox.grace_s().unwrap_or_else(|| self.pod.grace_s());
            let countdown = Countdown { began: countdown_began, grace_s };
            if !left_service {
                left_service = self.leave_service(&countdown).await;
                continue;
            }
            if !self.stop_everything(&countdown, &hooks_run).await {
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
        self.clear_up().await;
    }

    /// Waits until nobody sends requests any more. False when the grace period became shorter meanwhile.
    async fn leave_service(&mut self, countdown: &Countdown) -> bool {
        let serves = self.pod.is_deleted() && is_ready(&self.pod);
        if !serves || self.gone || countdown.left().is_zero() {
            return true;
        }
        let config = &self.agent.config;
        // The process keeps most of its grace period for itself.
        let most = config.endpoints_wait_max.min(countdown.left() / 2);
        let propagation = config.propagation_delay;
        let waiting = self.agent.endpoints.left(&self.pod, most, propagation);
        tokio::select! {
            () = waiting => true,
            () = self.mailbox.ends_sooner(Some(countdown.grace_s)) => false,
        }
    }

    /// Stops containers and sandboxes. False when something failed and should be tried again.
    async fn stop_everything(&mut self, countdown: &Countdown, hooks_run: &Mutex<HashSet<String>>) -> bool {
        let agent = self.agent.clone();
        let pod = self.pod.clone();
        let runtime = self.runtime.clone();
        let ip = self.surroundings().pod_ips.into_iter().next().unwrap_or_default();
        let sidecars: Vec<&Container> =
            pod.init_containers().iter().filter(|c| spec::is_sidecar(c)).collect();
        let is_sidecar = |name: &str| sidecars.iter().any(|c| c.name == name);
        let stop = async {
            let mains = runtime.alive().filter(|c| !is_sidecar(&c.name));
            let mut good =
                all(join_all(mains.map(|c| stop(&agent, &pod, c, &ip, countdown, hooks_run))).await);
            for sidecar in sidecars.iter().rev() {
                for record in runtime.alive().filter(|c| c.name == sidecar.name) {
                    good &= stop(&agent, &pod, record, &ip, countdown, hooks_run).await;
                }
            }
            let containers_stopped = good;
            for sandbox in runtime.sandboxes.iter().filter(|_| containers_stopped) {
                if let Err(error) = agent.cri.stop_sandbox(&sandbox.id).await {
                    tracing::warn!(pod = pod.title(), %error, "a sandbox cannot be stopped");
                    good = false;
                }
            }
            good
        };
        tokio::select! {
            good = stop => good,
            // A second, shorter deadline: the stop begins again with what is left of it.
            () = self.mailbox.ends_sooner(Some(countdown.grace_s)) => true,
        }
    }

    /// Stops one container of a pod that goes on.
    pub(super) async fn stop_one(&self, id: &str, name: &str, grace_s: i64) {
        let Some(record) = self.runtime.containers.iter().find(|c| c.id == id) else {
            if let Err(error) = self.agent.cri.stop_container(id, grace_s).await {
                tracing::warn!(pod = self.pod.title(), name, %error, "a container cannot be stopped");
            }
            return;
        };
        let ip = self.surroundings().pod_ips.into_iter().next().unwrap_or_default();
        let countdown = Countdown { began: Instant::now(), grace_s };
        let hooks_run = Mutex::default();
        let stopping = run_hook_and_stop(&self.agent, &self.pod, record, &ip, &countdown, &hooks_run);
        tokio::select! {
            _ = stopping => {}
            () = self.mailbox.ends_sooner(self.mailbox.grace_s()) => {}
        }
    }

    async fn clear_up(&mut self) {
        let mut backoff = client::backoff::Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        while let Err(error) = self.release() {
            tracing::warn!(pod = self.pod.title(), error, "a pod leaves something behind; trying again");
            tokio::time::sleep(backoff.next_delay()).await;
        }
        if !self.gone {
            self.tell_status(true);
        }
        loop {
            self.read_news();
            if self.gone || self.pod.is_deleted() {
                break;
            }
            // It is over, and stays in the API for its owner to see.
            self.mailbox.notified().await;
            if self.runtime.containers.is_empty() {
                continue;
            }
        }
        let mut removed = self.remove_records(Some(REMOVALS_BEFORE_DELETION)).await;
        if !self.gone {
            self.writer.flushed().await;
            self.delete_object().await;
        }
        while !removed {
            removed = self.remove_records(None).await;
        }
        let logs = config::log_dir(&self.agent.config, &self.pod);
        if let Err(error) = tokio::fs::remove_dir_all(&logs).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %logs.display(), %error, "logs cannot be removed");
        }
    }

    /// Gives back what the pod held of the node.
    fn release(&self) -> Result<(), String> {
        volume::clean_up(&self.agent.config.root_dir, self.pod.uid())?;
        self.agent.cgroups.remove(&self.pod).map_err(|error| format!("cgroup: {error}"))
    }

    /// Removes what the runtime remembers of the pod. False when that did not come about in so many attempts: nothing of the
    /// pod runs any more, and a broken record need not keep its object.
    async fn remove_records(&mut self, attempts: Option<usize>) -> bool {
        let mut backoff = client::backoff::Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        for attempt in 1.. {
            for sandbox in &self.runtime.sandboxes {
                if let Err(error) = self.agent.cri.remove_sandbox(&sandbox.id).await {
                    tracing::warn!(pod = self.pod.title(), %error, "a sandbox cannot be removed; trying again");
                }
            }
            for container in self.runtime.containers.iter().filter(|_| self.runtime.sandboxes.is_empty()) {
                if let Err(error) = self.agent.cri.remove_container(&container.id).await {
                    tracing::warn!(pod = self.pod.title(), %error, "a container cannot be removed; trying again");
                }
            }
            if self.look().await.is_ok() && self.runtime.is_empty() {
                return true;
            }
            if attempts.is_some_and(|most| attempt >= most) && self.runtime.is_stopped() {
                return false;
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
        true
    }

    async fn delete_object(&mut self) {
        let api = Api::<Pod>::namespaced(self.agent.client.clone(), self.pod.namespace());
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.pod.uid().to_string()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let mut backoff = client::backoff::Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        loop {
            match api.delete(self.pod.name(), &parameters).await {
                Ok(_) => return,
                // A conflict says that another object has this name.
                Err(error) if error.is_not_found() || error.is_conflict() => return,
                Err(error) => {
                    tracing::warn!(pod = self.pod.title(), %error, "a pod's object cannot be removed; trying again");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }
}

fn all(results: Vec<bool>) -> bool {
    results.into_iter().all(|good| good)
}

fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    status.is_some_and(|s| s.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// Tells that a container is stopped, and stops it. False when the runtime failed.
async fn stop(
    agent: &Arc<Agent>,
    pod: &Pod,
    record: &ContainerRecord,
    ip: &str,
    countdown: &Countdown,
    hooks_run: &Mutex<HashSet<String>>,
) -> bool {
    if !hooks_run.lock().contains(&record.id) {
        let message = format!("Stopping container {}", record.name);
        agent.tell(pod, Some(&record.name), EventType::Normal, "Killing", message);
    }
    run_hook_and_stop(agent, pod, record, ip, countdown, hooks_run).await
}

async fn run_hook_and_stop(
    agent: &Arc<Agent>,
    pod: &Pod,
    record: &ContainerRecord,
    ip: &str,
    countdown: &Countdown,
    hooks_run: &Mutex<HashSet<String>>,
) -> bool {
    let container = pod.all_containers().find(|c| c.name == record.name);
    let is_first = hooks_run.lock().insert(record.id.clone());
    let limit = countdown.left();
    if let Some((container, hook)) = container.and_then(pre_stop)
        && is_first
        && !limit.is_zero()
    {
        let running = hooks::run(agent, container, &record.id, ip, hook, Some(limit));
        let result = tokio::time::timeout(limit, running).await;
        if !matches!(result, Ok(Ok(()))) {
            tracing::debug!(pod = pod.title(), container = record.name, ?result, "a preStop hook failed");
            agent.tell(
                pod,
                Some(&record.name),
                EventType::Warning,
                "FailedPreStopHook",
                "PreStopHook failed",
            );
        }
    }
    match agent.cri.stop_container(&record.id, countdown.left_s()).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(pod = pod.title(), container = record.name, %error, "a container cannot be stopped");
            false
        }
    }
}

fn pre_stop(container: &Container) -> Option<(&Container, &LifecycleHandler)> {
    Some((container, container.lifecycle.as_ref()?.pre_stop.as_ref()?))
}
