//! Starting one container: volumes, image, environment, container, hooks; and what the status says when one of them fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use jiff::Timestamp;
use k8s_cri::v1::PodSandboxConfig;
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use super::env::{self, Lookup};
use super::memory::Failure;
use super::spec::PodExt;
use super::worker::Worker;
use super::{config, hooks, mounts, resources, security};
use crate::image::{self, Present, Wanted};
use crate::references::{Key, Kind, Reference, Waker};
use crate::volume::{self, Mounted, Sources};

/// What the runtime that is part of the binary calls itself.
const EMBEDDED: &str = "gantry";
/// After so long a pull gives up its pod's turn.
const TURN_FOR_IMAGES: Duration = Duration::from_millis(200);

/// The pod's config maps and secrets, by what it holds on to.
pub(super) struct Held {
    objects: Vec<(Key, Arc<Reference>)>,
}

impl Held {
    fn find(&self, kind: Kind, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        self.objects.iter().find(|(key, _)| key.kind == kind && key.name == name)?.1.data()
    }
}

impl Lookup for Held {
    fn config_map(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        self.find(Kind::ConfigMap, name)
    }

    fn secret(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        self.find(Kind::Secret, name)
    }
}

/// Everything that a pod refers to.
fn keys(pod: &Pod) -> Vec<Key> {
    let mut found = volume::references(pod);
    let debugging = pod.ephemeral_containers();
    for container in pod.all_containers().chain(&debugging) {
        let (maps, secrets) = env::references(container);
        found.extend(maps.into_iter().map(|name| (Kind::ConfigMap, name.to_string())));
        found.extend(secrets.into_iter().map(|name| (Kind::Secret, name.to_string())));
    }
    let pull =
        pod.spec().image_pull_secrets.iter().flatten().map(|secret| (Kind::Secret, secret.name.clone()));
    found.extend(pull);
    let namespace = pod.namespace();
    let mut keys: Vec<Key> = found
        .into_iter()
        .filter(|(_, name)| !name.is_empty())
        .map(|(kind, name)| Key { kind, namespace: namespace.to_string(), name })
        .collect();
    keys.sort();
    keys.dedup();
    keys
}

impl Worker {
    fn hold_references(&mut self) -> Held {
        let keys = keys(&self.pod);
        if self.references.len() != keys.len() {
            let mailbox = Arc::downgrade(&self.mailbox);
            let waker: Waker = Arc::new(move || {
                if let Some(mailbox) = mailbox.upgrade() {
                    mailbox.references_changed();
                }
            });
            let uid = self.pod.uid();
            let hold = |key| self.agent.references.hold(key, uid, waker.clone());
            self.references = keys.iter().map(hold).collect();
        }
        Held { objects: keys.into_iter().zip(self.references.iter().cloned()).collect() }
    }

    /// Gets ready what every container needs: objects and volumes. False when something is missing; it has been told, and
    /// the pod tries again when that changes, or soon.
    pub(super) async fn prepare(&mut self) -> bool {
        if !self.agent.services.is_synced() {
            self.agent.services.synced().await;
        }
        let held = self.hold_references();
        for (key, reference) in &held.objects {
            if !reference.answered().await {
                tracing::warn!(
                    pod = self.pod.title(),
                    name = key.name,
                    "no answer about a config map or secret"
                );
            }
        }
        match self.set_up_volumes(&held).await {
            Ok(()) => true,
            Err(error) => {
                self.agent.tell(&self.pod, None, EventType::Warning, "FailedMount", error);
                self.memory.note_sandbox_failure(Timestamp::now());
                false
            }
        }
    }

    async fn set_up_volumes(&mut self, held: &Held) -> Result<(), String> {
        let around = self.surroundings();
        let sources =
            Sources { lookup: held, around: &around, tokens: &self.tokens, client: &self.agent.client };
        let root = &self.agent.config.root_dir;
        self.volumes.refresh(root, &self.pod, &sources).await.map_err(|error| error.to_string())
    }

    /// Rewrites volumes whose objects changed.
    pub(super) async fn refresh_volumes(&mut self) {
        let held = self.hold_references();
        if let Err(error) = self.set_up_volumes(&held).await {
            tracing::debug!(pod = self.pod.title(), error, "a volume could not be refreshed");
        }
    }

    /// Makes and starts a container. Always worth another look.
    pub(super) async fn start_container(&mut self, name: &str, restart_count: u32) -> bool {
        let pod = self.pod.clone();
        let Some(container) = &pod.container(name) else { return false };
        if !self.volumes.is_complete(&pod) && !self.prepare().await {
            return false;
        }
        // One that was ended to change its resources did not crash.
        let ended_for_resize = self.has_been_given(name);
        let crashed = self.runtime.latest(name).filter(|c| c.ended() && !ended_for_resize);
        let crashed_at = crashed.map(|c| c.finished());
        let result = self.try_start(&pod, container, restart_count).await;
        let now = Timestamp::now();
        match result {
            Ok(()) => {
                self.memory.failures.remove(name);
                if let Some(finished_at) = crashed_at {
                    self.memory.note_restart(name, finished_at, now);
                }
            }
            Err(None) => {}
            Err(Some(failure)) => {
                let told = if failure.message.is_empty() { &failure.reason } else { &failure.message };
                let told = if failure.pull.is_some() { &failure.reason } else { told };
                if failure.reason == "RunContainerError"
                    && let Some(finished_at) = crashed_at
                {
                    self.memory.note_restart(name, finished_at, now);
                }
                self.agent.tell(&pod, Some(name), EventType::Warning, "Failed", format!("Error: {told}"));
                self.memory.note_failure(name, failure, now);
            }
        }
        true
    }

    /// Err(None): the pod is to end, and nothing was started.
    async fn try_start(
        &mut self,
        pod: &Pod,
        container: &Container,
        restart_count: u32,
    ) -> Result<(), Option<Failure>> {
        let Some(sandbox) = self.runtime.ready_sandbox().cloned() else { return Err(None) };
        let held = self.hold_references();
        let secrets: Vec<_> = pod
            .spec()
            .image_pull_secrets
            .iter()
            .flatten()
            .filter_map(|secret| held.find(Kind::Secret, &secret.name))
            .collect();
        let sandbox_config = self.sandbox_config(sandbox.attempt);
        self.ensure_image_volumes(pod, container, &secrets, &sandbox_config).await?;
        let wanted = Wanted {
            container: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            policy: container.image_pull_policy.clone(),
        };
        let present = self.ensure_image(pod, &wanted, &secrets, &sandbox_config).await?;
        let parts = self.parts(pod, container, restart_count, &held, &present)?;
        let config = config::container(pod, container, parts);
        // A container that was made and never started, by an agent that died in between, is in the way.
        for stale in self
            .runtime
            .containers
            .iter()
            .filter(|c| c.name == container.name && c.state == crate::cri::RunState::Created)
        {
            let removed = self.agent.cri.remove_container(&stale.id).await;
            removed.map_err(|error| Failure::new("CreateContainerError", error.to_string()))?;
        }
        self.take_turn().await;
        let id = self.agent.cri.create_container(&sandbox.id, config, sandbox_config).await;
        let id = id.map_err(|error| Failure::new("CreateContainerError", error.to_string()))?;
        self.agent.tell(pod, Some(&container.name), EventType::Normal, "Created", "Container created");
        let started = self.agent.cri.start_container(&id).await;
        started.map_err(|error| Failure::new("RunContainerError", error.to_string()))?;
        self.agent.tell(pod, Some(&container.name), EventType::Normal, "Started", "Container started");
        self.run_post_start(pod, container, &id).await.map_err(Some)
    }

    /// Brings the images that the container mounts.
    async fn ensure_image_volumes(
        &mut self,
        pod: &Pod,
        container: &Container,
        secrets: &[BTreeMap<String, Vec<u8>>],
        sandbox: &PodSandboxConfig,
    ) -> Result<(), Option<Failure>> {
        for volume in pod.spec().volumes.iter().flatten() {
            let Some(source) = &volume.image else { continue };
            let mut mounts =
                container.volume_mounts.iter().flatten().filter(|mount| mount.name == volume.name);
            let Some(mount) = mounts.next() else { continue };
            let is_partial = |mount: &VolumeMount| mount.sub_path.is_some() || mount.sub_path_expr.is_some();
            if self.agent.runtime_name != EMBEDDED && (is_partial(mount) || mounts.any(is_partial)) {
                let message = format!("subPath of image volumes is not known to {}", self.agent.runtime_name);
                return Err(Some(Failure::new("CreateContainerConfigError", message)));
            }
            let wanted = Wanted {
                container: container.name.clone(),
                image: source.reference.clone().unwrap_or_default(),
                policy: source.pull_policy.clone(),
            };
            let present = self.ensure_image(pod, &wanted, secrets, sandbox).await?;
            self.volumes.mounted.insert(volume.name.clone(), Mounted::Image(present.id));
        }
        Ok(())
    }

    /// Brings an image. A pull is not a start: when it takes long, other pods get their turn meanwhile.
    async fn ensure_image(
        &mut self,
        pod: &Pod,
        wanted: &Wanted,
        secrets: &[BTreeMap<String, Vec<u8>>],
        sandbox: &PodSandboxConfig,
    ) -> Result<Present, Option<Failure>> {
        let (agent, mailbox) = (self.agent.clone(), self.mailbox.clone());
        let backoff = self.memory.pulls.get(&wanted.image).copied();
        let ensuring = image::ensure(&agent, pod, wanted, backoff, secrets, sandbox);
        tokio::pin!(ensuring);
        loop {
            tokio::select! {
                present = &mut ensuring => {
                    if present.is_ok() {
                        self.memory.pulls.remove(&wanted.image);
                    }
                    return present.map_err(Some);
                }
                () = mailbox.ends_sooner(None) => return Err(None),
                () = tokio::time::sleep(TURN_FOR_IMAGES), if self.turn.is_some() => self.turn = None,
            }
        }
    }

    fn parts(
        &self,
        pod: &Pod,
        container: &Container,
        restart_count: u32,
        held: &Held,
        image: &Present,
    ) -> Result<config::Parts, Failure> {
        let misconfigured = |message: String| Failure::new("CreateContainerConfigError", message);
        let around = self.surroundings();
        let config = &self.agent.config;
        let services = self.agent.services.list();
        let variables = env::service_variables(pod, services.iter().map(AsRef::as_ref));
        let env = env::build(pod, container, &variables, &around, held).map_err(misconfigured)?;
        check_user(pod, container, image).map_err(misconfigured)?;
        let seccomp_root = config::seccomp_root(config);
        let mut security =
            security::of_container(pod, container, (image.uid, &image.username), &seccomp_root);
        if let Some(target) = self.debugged(pod, container) {
            security::join_processes(&mut security, target);
        }
        Ok(config::Parts {
            restart_count,
            image_id: image.id.clone(),
            mounts: mounts::build(config, pod, container, &self.volumes, &env).map_err(misconfigured)?,
            env,
            resources: resources::of_container(
                pod,
                container,
                self.agent.machine.memory_bytes,
                self.agent.cgroups.v2,
            ),
            security,
            hosts_file: mounts::hosts_file(config, pod, container, &around.pod_ips).map_err(misconfigured)?,
            message_file: mounts::message_file(config, pod, container).map_err(misconfigured)?,
        })
    }

    /// The container whose processes a debugging container is to see.
    fn debugged(&self, pod: &Pod, container: &Container) -> Option<String> {
        let mut debugging = pod.spec().ephemeral_containers.iter().flatten();
        let target = debugging.find(|c| c.name == container.name)?.target_container_name.as_ref()?;
        self.runtime.latest(target).map(|record| record.id.clone())
    }

    /// Runs the postStart hook; one that fails ends the container.
    async fn run_post_start(&mut self, pod: &Pod, container: &Container, id: &str) -> Result<(), Failure> {
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let Some(hook) = hook else { return Ok(()) };
        self.turn = None;
        self.memory.hooks_running = Some(id.to_string());
        if self.look().await.is_ok() {
            self.tell_status(false);
        }
        let ip = self.surroundings().pod_ips.into_iter().next().unwrap_or_default();
        let result = tokio::select! {
            result = hooks::run(&self.agent, container, id, &ip, hook, None) => result,
            () = self.mailbox.ends_sooner(None) => Ok(()),
        };
        self.memory.hooks_running = None;
        let Err(error) = result else { return Ok(()) };
        tracing::debug!(pod = pod.title(), error, "a postStart hook failed");
        self.agent.tell(
            pod,
            Some(&container.name),
            EventType::Warning,
            "FailedPostStartHook",
            "PostStartHook failed",
        );
        self.agent.tell(pod, Some(&container.name), EventType::Normal, "Killing", "FailedPostStartHook");
        self.stop_one(id, &container.name, pod.grace_s()).await;
        Err(Failure::new("PostStartHookError", error))
    }
}

/// runAsNonRoot is kept: neither the spec nor the image may make the container run as root.
fn check_user(pod: &Pod, container: &Container, image: &Present) -> Result<(), String> {
    if !security::must_not_be_root(pod, container) {
        return Ok(());
    }
    let title = format!("(pod: \"{}\", container: {})", pod.title(), container.name);
    match (security::run_as_user(pod, container), image.uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {title}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!("container has runAsNonRoot and image will run as root {title}")),
        (None, Some(_)) => Ok(()),
        (None, None) if !image.username.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {title}",
            image.username
        )),
        (None, None) => Err(format!("container has runAsNonRoot and image will run as root {title}")),
    }
}
