//! Liveness, readiness and startup probes: a small task per probe of a running container, which speaks up only when its
//! verdict changes.

mod check;
mod grpc;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::task::AbortHandle;

use crate::agent_state::Agent;
use crate::cri::{PodRuntime, RunState};
use crate::pod::{Mailbox, Memory, PodExt};

/// Which question a probe answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// Has it started?
    Startup,
    /// Should it get traffic?
    Readiness,
    /// Should it be restarted?
    Liveness,
}

impl ProbeKind {
    fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// A verdict that changed.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of which container.
    pub container_id: String,
    /// Of which probe.
    pub kind: ProbeKind,
    /// Good or bad.
    pub good: bool,
}

/// The running probes of one pod.
#[derive(Default)]
pub struct Probes {
    tasks: HashMap<(String, ProbeKind), AbortHandle>,
}

impl Probes {
    /// Starts and stops probes so that they fit what runs. While the pod ends only readiness is asked.
    pub fn fit(
        &mut self,
        agent: &Arc<Agent>,
        pod: &Arc<Pod>,
        runtime: &PodRuntime,
        memory: &mut Memory,
        mailbox: &Arc<Mailbox>,
        ending: bool,
    ) {
        let mut wanted = Vec::new();
        for container in pod.all_containers() {
            let Some(record) = runtime.latest(&container.name).filter(|c| c.state == RunState::Running)
            else {
                continue;
            };
            let state = memory.probes.entry(record.id.clone()).or_insert_with(|| adopt(pod, &record.id));
            let started = container.startup_probe.is_none() || state.startup == Some(true);
            if !started && state.startup.is_none() && !ending {
                wanted.push((container, record, ProbeKind::Startup));
            }
            if started && container.readiness_probe.is_some() {
                wanted.push((container, record, ProbeKind::Readiness));
            }
            if started && container.liveness_probe.is_some() && !state.liveness_failed && !ending {
                wanted.push((container, record, ProbeKind::Liveness));
            }
        }
        self.tasks.retain(|(id, kind), task| {
            let keep = wanted.iter().any(|(_, record, wanted)| record.id == *id && wanted == kind);
            if !keep {
                task.abort();
            }
            keep
        });
        let ip = runtime.sandboxes.first().and_then(|sandbox| sandbox.ips.first()).cloned();
        let ip = ip.filter(|_| !pod.host_network()).unwrap_or_else(|| agent.node_ip().to_string());
        for (container, record, kind) in wanted {
            let key = (record.id.clone(), kind);
            if self.tasks.contains_key(&key) {
                continue;
            }
            let known = memory.probes.get(&record.id).and_then(|state| match kind {
                ProbeKind::Readiness => state.readiness,
                _ => None,
            });
            let prober = Prober {
                agent: agent.clone(),
                pod: pod.clone(),
                container: container.clone(),
                container_id: record.id.clone(),
                started_at: record.started(),
                ip: ip.clone(),
                kind,
                known,
                mailbox: mailbox.clone(),
            };
            self.tasks.insert(key, tokio::spawn(prober.run()).abort_handle());
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.tasks.values().for_each(AbortHandle::abort);
    }
}

/// A container that the API knows as started and ready stays so until its probes say otherwise: an agent that starts anew
/// takes nobody out of service.
fn adopt(pod: &Pod, id: &str) -> crate::pod::ProbeState {
    let mut state = crate::pod::ProbeState::default();
    let Some(status) = &pod.status else { return state };
    let all =
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let suffix = format!("://{id}");
    for told in
        all.into_iter().filter(|c| c.container_id.as_deref().is_some_and(|told| told.ends_with(&suffix)))
    {
        state.startup = Some(true).filter(|_| told.started == Some(true));
        state.readiness = Some(told.ready).filter(|ready| *ready);
    }
    state
}

struct Prober {
    agent: Arc<Agent>,
    pod: Arc<Pod>,
    container: Container,
    container_id: String,
    started_at: Timestamp,
    ip: String,
    kind: ProbeKind,
    known: Option<bool>,
    mailbox: Arc<Mailbox>,
}

impl Prober {
    fn spec(&self) -> Option<&Probe> {
        match self.kind {
            ProbeKind::Startup => self.container.startup_probe.as_ref(),
            ProbeKind::Readiness => self.container.readiness_probe.as_ref(),
            ProbeKind::Liveness => self.container.liveness_probe.as_ref(),
        }
    }

    async fn run(self) {
        let Some(probe) = self.spec() else { return };
        let at_least_one = |value: Option<i32>, default: i32| value.unwrap_or(default).max(1);
        let seconds = |value: i32| Duration::from_secs(u64::try_from(value).unwrap_or(0));
        let period = seconds(at_least_one(probe.period_seconds, 10));
        let timeout = seconds(at_least_one(probe.timeout_seconds, 1));
        let failures_needed = at_least_one(probe.failure_threshold, 3);
        let successes_needed = at_least_one(probe.success_threshold, 1);
        self.initial_delay(seconds(probe.initial_delay_seconds.unwrap_or(0))).await;
        let mut verdict = self.known;
        let (mut last, mut run) = (None, 0);
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let result =
                check::run(&self.agent, &self.container, &self.container_id, &self.ip, probe, timeout).await;
            let good = result.is_ok();
            if let Err(message) = result {
                let message = format!("{} probe failed: {message}", self.kind.title());
                self.agent.tell(
                    &self.pod,
                    Some(&self.container.name),
                    EventType::Warning,
                    "Unhealthy",
                    message,
                );
            }
            run = if last == Some(good) { run + 1 } else { 1 };
            last = Some(good);
            let needed = if good { successes_needed } else { failures_needed };
            if run < needed || verdict == Some(good) {
                // A container that never was ready is told so once, without waiting for the threshold.
                if verdict.is_some() || good || self.kind != ProbeKind::Readiness {
                    continue;
                }
            }
            verdict = Some(good);
            let report = Report { container_id: self.container_id.clone(), kind: self.kind, good };
            self.mailbox.report(report);
            let is_final = match self.kind {
                ProbeKind::Startup => true,
                ProbeKind::Liveness => !good,
                ProbeKind::Readiness => false,
            };
            if is_final {
                return;
            }
        }
    }

    async fn initial_delay(&self, delay: Duration) {
        let passed = Timestamp::now().duration_since(self.started_at);
        let passed = Duration::try_from(passed).unwrap_or_default();
        if let Some(rest) = delay.checked_sub(passed) {
            tokio::time::sleep(rest).await;
        }
    }
}
