//! A pod's worker: the thin shell around the decisions.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use jiff::{SignedDuration, Timestamp};
use k8s_cri::v1::PodSandboxConfig;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::admission;
use super::allocation::Allocation;
use super::config;
use super::decide::{Action, KillCause, decide};
use super::fields::Surroundings;
use super::mailbox::Mailbox;
use super::memory::Memory;
use super::merge;
use super::spec::PodExt;
use super::status::{self, Verdict, View};
use super::writer::StatusWriter;
use crate::agent::rotated_logs;
use crate::agent_state::Agent;
use crate::cri::{CriError, PodRuntime};
use crate::probe::{ProbeKind, Probes};
use crate::references::Reference;
use crate::tokens::Tokens;
use crate::volume::PodVolumes;

/// After an error of the runtime, the worker looks again.
const RETRY: Duration = Duration::from_secs(1);
/// A pod is looked at this often although nothing happened, in case something was missed.
const LOOK_AGAIN: Duration = Duration::from_secs(90);

/// What a worker does next.
pub(super) enum Next {
    /// Look again at once.
    Again,
    /// Sleep until woken, or until then.
    Sleep(Option<Timestamp>),
    /// The pod is to end.
    End(Option<Verdict>),
}

/// A pod's worker.
pub(super) struct Worker {
    pub agent: Arc<Agent>,
    /// The object, with the status as the worker last made it and the resources that were granted.
    pub pod: Arc<Pod>,
    /// The object as the API has it.
    pub wanted: Arc<Pod>,
    pub mailbox: Arc<Mailbox>,
    pub runtime: PodRuntime,
    pub memory: Memory,
    pub probes: Probes,
    pub volumes: PodVolumes,
    pub tokens: Tokens,
    pub references: Vec<Arc<Reference>>,
    pub writer: StatusWriter,
    pub gone: bool,
    pub verdict: Option<Verdict>,
    /// The pod's turn among those that start.
    pub turn: Option<tokio::sync::OwnedSemaphorePermit>,
    admitted: bool,
    adopted: bool,
    cgroup_made: bool,
}

impl Worker {
    pub fn new(agent: Arc<Agent>, pod: Arc<Pod>, mailbox: Arc<Mailbox>) -> Self {
        let writer = StatusWriter::new(&agent.client, &pod);
        let mut memory = Memory::default();
        let wanted = pod.clone();
        let mut pod = pod;
        if let Some(allocation) = Allocation::load(&agent.config.root_dir, pod.uid()) {
            allocation.put_into(Arc::make_mut(&mut pod));
            mailbox.set_latest(pod.clone());
            memory.allocation = allocation;
        }
        Self {
            agent,
            pod,
            wanted,
            mailbox,
            runtime: PodRuntime::default(),
            memory,
            probes: Probes::default(),
            volumes: PodVolumes::default(),
            tokens: Tokens::default(),
            references: Vec::new(),
            writer,
            gone: false,
            verdict: None,
            turn: None,
            admitted: false,
            adopted: false,
            cgroup_made: false,
        }
    }

    /// Works until nothing of the pod is left, here and in the API.
    pub async fn run(mut self) {
        loop {
            self.read_news();
            let next = if self.is_to_end() { Next::End(None) } else { self.sync().await };
            match next {
                Next::Again => {}
                Next::Sleep(until) => {
                    // News that change nothing, such as the pod's own status coming back, do not end the sleep.
                    while self.sleep(until).await && !self.read_news() {}
                }
                Next::End(verdict) => {
                    self.turn = None;
                    self.mailbox.set_wish(None);
                    self.verdict = self.verdict.take().or(verdict);
                    self.terminate().await;
                    break;
                }
            }
        }
        let uid = self.pod.uid();
        self.references.iter().for_each(|reference| reference.forget(uid));
    }

    fn is_to_end(&self) -> bool {
        self.gone || self.verdict.is_some() || self.pod.is_deleted() || self.pod.is_over()
    }

    /// Takes in what others told. False when nothing follows from it.
    pub fn read_news(&mut self) -> bool {
        let news = self.mailbox.take();
        let mut matters = news.gone
            || news.verdict.is_some()
            || news.references_changed
            || news.woken
            || !news.reports.is_empty();
        self.gone |= news.gone;
        if let Some(verdict) = news.verdict {
            self.verdict.get_or_insert(verdict);
        }
        if news.references_changed {
            self.memory.forget_config_failures();
        }
        for report in news.reports {
            let state = self.memory.probes.entry(report.container_id).or_default();
            match report.kind {
                ProbeKind::Startup => state.startup = Some(report.good),
                ProbeKind::Readiness => state.readiness = Some(report.good),
                ProbeKind::Liveness => state.liveness_failed = !report.good,
            }
        }
        if let Some(pod) = news.pod {
            self.writer.seen(&pod);
            let mut merged = merge::with_own_status(&pod, self.pod.status.as_ref());
            self.memory.allocation.put_into(&mut merged);
            self.wanted = pod;
            matters |= merge::differs(&merged, &self.pod);
            self.pod = Arc::new(merged);
            self.mailbox.set_latest(self.pod.clone());
        }
        matters
    }

    /// True when news came, false when the time did.
    async fn sleep(&self, until: Option<Timestamp>) -> bool {
        let most = Timestamp::now().saturating_add(SignedDuration::try_from(LOOK_AGAIN).unwrap_or_default());
        let until = until.unwrap_or(Timestamp::MAX).min(most.unwrap_or(Timestamp::MAX));
        let until = self.tokens.renew_at().map_or(until, |renew| renew.min(until));
        let pause = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
        tokio::select! {
            () = tokio::time::sleep(pause) => false,
            () = self.mailbox.notified() => true,
        }
    }

    /// One round while the pod should run: look, decide, tell, take a step.
    async fn sync(&mut self) -> Next {
        if let Err(error) = self.look().await {
            tracing::warn!(pod = self.pod.title(), %error, "the runtime does not tell about a pod");
            tokio::time::sleep(RETRY).await;
            return Next::Again;
        }
        let now = Timestamp::now();
        if !self.admitted {
            if self.runtime.is_empty()
                && let Err(verdict) = admission::admit(&self.agent, &self.pod)
            {
                let message = verdict.message.clone();
                self.agent.tell(&self.pod, None, EventType::Warning, &verdict.reason, message);
                return Next::End(Some(verdict));
            }
            self.grant_first();
            self.admitted = true;
        }
        if self.pod.deadline().is_some_and(|deadline| deadline <= now) {
            let message = "Pod was active on the node longer than the specified deadline".to_string();
            let reason = "DeadlineExceeded".to_string();
            self.agent.tell(&self.pod, None, EventType::Normal, &reason, message.clone());
            return Next::End(Some(Verdict { reason, message, disruption: false, rejected: false }));
        }
        self.probes.fit(&self.agent, &self.pod, &self.runtime, &mut self.memory, &self.mailbox, false);
        for name in self.memory.age_pulls(now) {
            let Some(failure) = self.memory.failures.get_mut(&name) else { continue };
            let image = failure.image.as_deref().unwrap_or_default();
            let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {}", failure.message);
            failure.message.clone_from(&message);
            self.agent.tell(&self.pod, Some(&name), EventType::Normal, "BackOff", message);
        }
        self.tell_crash_waits(now);
        self.review_resources(now);
        let decision = decide(&self.pod, &self.runtime, &self.memory, now);
        self.tell_status(false);
        if decision.over {
            return Next::End(None);
        }
        if !self.volumes.mounted.is_empty() {
            self.refresh_volumes().await;
        } else if !self.adopted && self.runtime.ready_sandbox().is_some() {
            // Containers that another agent started: their volumes are kept fresh from here on.
            self.adopted = true;
            self.prepare().await;
        }
        let mut acted = false;
        for action in decision.actions {
            acted |= self.act(action).await;
            if self.mailbox.grace_s().is_some() {
                return Next::Again;
            }
        }
        if acted {
            return Next::Again;
        }
        self.turn = None;
        Next::Sleep(decision.wake_at)
    }

    /// Tells once of every crash that the container waits before its next start.
    fn tell_crash_waits(&mut self, now: Timestamp) {
        for container in self.pod.all_containers() {
            let Some(record) = self.runtime.latest(&container.name).filter(|c| c.ended()) else { continue };
            let waits = self.memory.crash_wait(&container.name, record.finished(), now).is_some();
            if waits && self.memory.waits_told.insert(record.id.clone()) {
                let name = &container.name;
                let message =
                    format!("Back-off restarting failed container {name} in pod {}", self.pod.title());
                self.agent.tell(&self.pod, Some(name), EventType::Warning, "BackOff", message);
            }
        }
    }

    /// Looks at what the runtime has of the pod.
    pub async fn look(&mut self) -> Result<(), CriError> {
        self.runtime = PodRuntime::observe(&self.agent.cri, self.pod.uid(), &self.runtime).await?;
        let runtime = &self.runtime;
        self.memory.retain_containers(|id| runtime.containers.iter().any(|c| c.id == id));
        Ok(())
    }

    /// Makes the pod's status from what is known now, and hands it to the writer.
    pub fn tell_status(&mut self, ending: bool) -> PodStatus {
        let status = status::build(&View {
            pod: &self.pod,
            runtime: &self.runtime,
            memory: &self.memory,
            node_ip: self.agent.node_ip(),
            runtime_name: &self.agent.runtime_name,
            ending,
            verdict: self.verdict.as_ref(),
            now: Timestamp::now(),
        });
        if self.pod.status.as_ref() != Some(&status) {
            Arc::make_mut(&mut self.pod).status = Some(status.clone());
            self.mailbox.set_latest(self.pod.clone());
        }
        self.writer.set(&status);
        status
    }

    /// Takes one step. True when the pod should be looked at again for it.
    async fn act(&mut self, action: Action) -> bool {
        match action {
            Action::CreateSandbox { attempt } => self.create_sandbox(attempt).await,
            Action::StartContainer { name, restart_count } => {
                self.start_container(&name, restart_count).await
            }
            Action::KillContainer { id, name, message, cause } => {
                self.agent.tell(&self.pod, Some(&name), EventType::Normal, "Killing", message);
                let grace_s = self.kill_grace_s(&name, cause);
                self.stop_one(&id, &name, grace_s).await;
                true
            }
            Action::Resize { containers } => self.resize(&containers).await,
            Action::StopSandbox { id } => {
                self.done("stopping a sandbox", self.agent.cri.stop_sandbox(&id).await)
            }
            Action::RemoveContainer { id } => {
                let removed = self.done("removing a container", self.agent.cri.remove_container(&id).await);
                if removed {
                    self.remove_log(&id);
                }
                removed
            }
            Action::RemoveSandbox { id } => {
                self.done("removing a sandbox", self.agent.cri.remove_sandbox(&id).await)
            }
        }
    }

    /// Nobody can ask for the logs of a container that is gone.
    fn remove_log(&self, id: &str) {
        let record = self.runtime.containers.iter().find(|c| c.id == id);
        let Some(path) = record.map(|c| PathBuf::from(&c.log_path)).filter(|path| path.is_absolute()) else {
            return;
        };
        for file in rotated_logs(&path).into_iter().chain([path.clone()]) {
            if let Err(error) = std::fs::remove_file(&file)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %file.display(), %error, "a log cannot be removed");
            }
        }
    }

    /// Logs what failed; the next round decides anew. Leftovers are tried again when the pod is looked at for other reasons.
    fn done(&self, what: &str, result: Result<(), CriError>) -> bool {
        if let Err(error) = &result {
            tracing::warn!(pod = self.pod.title(), %error, "{what} failed");
        }
        result.is_ok()
    }

    fn kill_grace_s(&self, name: &str, cause: KillCause) -> i64 {
        let container = self.pod.all_containers().find(|c| c.name == name);
        let probe = container.and_then(|container| match cause {
            KillCause::Liveness => container.liveness_probe.as_ref(),
            KillCause::Startup => container.startup_probe.as_ref(),
            KillCause::Spec => None,
        });
        let own = probe.and_then(|probe| probe.termination_grace_period_seconds);
        own.or(self.pod.spec().termination_grace_period_seconds).unwrap_or(30)
    }

    async fn create_sandbox(&mut self, attempt: u32) -> bool {
        if attempt > 0 && !self.runtime.containers.is_empty() && self.memory.sandbox_failure.is_none() {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.agent.tell(&self.pod, None, EventType::Normal, "SandboxChanged", message);
        }
        if !self.prepare().await {
            return true;
        }
        if !self.cgroup_made {
            let limits = super::resources::of_pod(&self.pod);
            match self.agent.cgroups.set(&self.pod, &limits) {
                Ok(()) => self.cgroup_made = true,
                Err(error) => {
                    tracing::warn!(pod = self.pod.title(), %error, "the pod's cgroup cannot be made");
                }
            }
        }
        let handler = match self.runtime_handler().await {
            Ok(handler) => handler,
            Err(error) => return self.sandbox_failed(&error),
        };
        self.take_turn().await;
        let made = self.agent.cri.run_sandbox(self.sandbox_config(attempt), handler).await;
        match made {
            Ok(_) => {
                self.memory.sandbox_failure = None;
                true
            }
            Err(error) => self.sandbox_failed(&error.to_string()),
        }
    }

    /// Waits until the pod may be started. It keeps its turn until its containers run (see `sync`): of many pods at once the
    /// first ones are up early, rather than all of them late.
    pub(super) async fn take_turn(&mut self) {
        if self.turn.is_none() {
            // The semaphore is never closed.
            self.turn = self.agent.starts.clone().acquire_owned().await.ok();
        }
    }

    fn sandbox_failed(&mut self, error: &str) -> bool {
        let message = format!("Failed to create pod sandbox: {error}");
        self.agent.tell(&self.pod, None, EventType::Warning, "FailedCreatePodSandBox", message);
        self.memory.note_sandbox_failure(Timestamp::now());
        true
    }

    /// The runtime's name for the pod's runtime class.
    async fn runtime_handler(&self) -> Result<String, String> {
        let Some(class) = self.pod.spec().runtime_class_name.as_ref().filter(|class| !class.is_empty())
        else {
            return Ok(String::new());
        };
        let api = kube::Api::<k8s_openapi::api::node::v1::RuntimeClass>::all(self.agent.client.clone());
        let found = api.get_opt(class).await.map_err(|error| error.to_string())?;
        found
            .map(|class| class.handler)
            .ok_or_else(|| format!("runtimeclass.node.k8s.io \"{class}\" not found"))
    }

    pub fn sandbox_config(&self, attempt: u32) -> PodSandboxConfig {
        let parent = self.agent.cgroups.parent(&self.pod);
        config::sandbox(&self.agent.config, &self.pod, attempt, parent, &self.agent.resolv_conf)
    }

    /// What the pod may learn of itself.
    pub fn surroundings(&self) -> Surroundings {
        let sandbox = self.runtime.sandboxes.first();
        let pod_ips = match sandbox {
            Some(_) if self.pod.host_network() => vec![self.agent.node_ip().to_string()],
            Some(sandbox) => sandbox.ips.clone(),
            None => Vec::new(),
        };
        let allocatable = self.agent.machine.allocatable(&self.agent.config);
        Surroundings {
            host_ip: self.agent.node_ip().to_string(),
            pod_ips,
            node_cpu_millis: allocatable.cpu_millis,
            node_memory_bytes: allocatable.memory_bytes,
        }
    }
}
