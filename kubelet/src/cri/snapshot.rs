//! What the runtime holds of one pod at one moment.
//!
//! Assumes that containers and sandboxes carry upstream's labels; those without are not the agent's and stay unseen.

use std::collections::HashMap;
use std::path::Path;

use jiff::Timestamp;
use k8s_cri::v1::{ContainerState, ContainerStatus, NamespaceMode, PodSandboxState, PodSandboxStatus};

use super::{Cri, CriError, labels};

/// The longest termination message kept, as upstream.
const MESSAGE_BYTES_MAX: usize = 4096;
/// How much of a log stands in for a message.
const LOG_TAIL_BYTES: usize = 2048;

/// A pod's sandboxes and containers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodRuntime {
    /// The newest first.
    pub sandboxes: Vec<Sandbox>,
    /// The newest first.
    pub containers: Vec<ContainerRecord>,
}

/// A sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    /// The runtime's name for it.
    pub id: String,
    /// How many the pod had before.
    pub attempt: u32,
    /// Whether it runs.
    pub ready: bool,
    /// When it was made.
    pub created_at: i64,
    /// Its addresses, the first its main one.
    pub ips: Vec<String>,
    /// Whether it is on the node's network.
    pub host_network: bool,
}

/// A container's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Made and not started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime cannot tell.
    Unknown,
}

/// A container that runs or ran.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerRecord {
    /// The runtime's name for it.
    pub id: String,
    /// Its name in the pod.
    pub name: String,
    /// The sandbox it is in, where the runtime told.
    pub sandbox_id: String,
    /// How often it was started before.
    pub restart_count: u32,
    /// How it does.
    pub state: RunState,
    /// When it was made.
    pub created_at: i64,
    /// When it was started, nanoseconds since 1970.
    pub started_at: i64,
    /// When it ended.
    pub finished_at: i64,
    /// What it ended with.
    pub exit_code: i32,
    /// Why it ended, as the runtime says.
    pub reason: String,
    /// Its last words.
    pub message: String,
    /// The image it was made from, as the pod named it.
    pub image: String,
    /// That image, by digest where known.
    pub image_id: String,
    /// The hash over its spec when it was made.
    pub hash: String,
    /// Its log file.
    pub log_path: String,
}

impl ContainerRecord {
    /// Whether it has ended, as far as anyone can tell.
    pub fn ended(&self) -> bool {
        matches!(self.state, RunState::Exited | RunState::Unknown)
    }

    /// When it ended.
    pub fn finished(&self) -> Timestamp {
        nanoseconds(self.finished_at)
    }

    /// When it was started.
    pub fn started(&self) -> Timestamp {
        nanoseconds(self.started_at)
    }
}

/// CRI's times are nanoseconds since 1970.
pub fn nanoseconds(value: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(value)).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl PodRuntime {
    /// Looks at a pod. Containers that had ended in `known` cannot change any more and are not asked for again.
    pub async fn observe(cri: &Cri, uid: &str, known: &PodRuntime) -> Result<Self, CriError> {
        let (sandboxes, containers) =
            tokio::try_join!(cri.list_sandboxes(Some(uid)), cri.list_containers(Some(uid)))?;
        let mut ended: HashMap<&str, &ContainerRecord> = HashMap::new();
        ended.extend(
            known.containers.iter().filter(|c| c.state == RunState::Exited).map(|c| (c.id.as_str(), c)),
        );
        let mut seen = Self::default();
        for sandbox in sandboxes {
            match cri.sandbox_status(&sandbox.id).await {
                Ok(reply) => seen.sandboxes.extend(reply.status.map(Sandbox::from)),
                Err(error) if error.is_not_found() => {}
                // A sandbox whose network is broken has no status with some runtimes; that it is there, and whether it
                // runs, is known.
                Err(error) if error.code == tonic::Code::Unknown => {
                    tracing::debug!(sandbox = sandbox.id, %error, "a sandbox has no status");
                    seen.sandboxes.push(Sandbox::from_list(sandbox));
                }
                Err(error) => return Err(error),
            }
        }
        for container in containers {
            if let Some(record) = ended.get(container.id.as_str()) {
                seen.containers.push((*record).clone());
                continue;
            }
            let Some(status) = cri.container_status(&container.id).await? else { continue };
            let mut record = ContainerRecord::from_status(status, container.pod_sandbox_id);
            if record.image_id.is_empty() {
                record.image_id = container.image_id;
            }
            seen.containers.push(record);
        }
        seen.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.created_at, s.attempt)));
        seen.containers.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.restart_count)));
        Ok(seen)
    }

    /// The newest sandbox, if it runs.
    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// The newest container of a name.
    pub fn latest(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// Containers that may still have processes.
    pub fn alive(&self) -> impl Iterator<Item = &ContainerRecord> {
        self.containers.iter().filter(|c| c.state == RunState::Running || c.state == RunState::Unknown)
    }

    /// Whether nothing runs any more.
    pub fn is_stopped(&self) -> bool {
        self.alive().next().is_none() && self.sandboxes.iter().all(|sandbox| !sandbox.ready)
    }

    /// Whether the runtime has nothing of the pod.
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }
}

impl Sandbox {
    fn from_list(sandbox: k8s_cri::v1::PodSandbox) -> Self {
        Self {
            ready: sandbox.state() == PodSandboxState::SandboxReady,
            attempt: sandbox.metadata.map_or(0, |metadata| metadata.attempt),
            id: sandbox.id,
            created_at: sandbox.created_at,
            ips: Vec::new(),
            host_network: false,
        }
    }
}

impl From<PodSandboxStatus> for Sandbox {
    fn from(status: PodSandboxStatus) -> Self {
        let ready = status.state() == PodSandboxState::SandboxReady;
        let network = status.network.unwrap_or_default();
        let host_network = status
            .linux
            .and_then(|linux| linux.namespaces)
            .and_then(|namespaces| namespaces.options)
            .is_some_and(|options| options.network == NamespaceMode::Node as i32);
        let mut ips: Vec<String> = Some(network.ip).filter(|ip| !ip.is_empty()).into_iter().collect();
        ips.extend(network.additional_ips.into_iter().map(|ip| ip.ip));
        let attempt = status.metadata.map_or(0, |metadata| metadata.attempt);
        Self { id: status.id, attempt, ready, created_at: status.created_at, ips, host_network }
    }
}

impl ContainerRecord {
    fn from_status(status: ContainerStatus, sandbox_id: String) -> Self {
        let state = match status.state() {
            ContainerState::ContainerCreated => RunState::Created,
            ContainerState::ContainerRunning => RunState::Running,
            ContainerState::ContainerExited => RunState::Exited,
            ContainerState::ContainerUnknown => RunState::Unknown,
        };
        let message = if state == RunState::Exited { last_words(&status) } else { String::new() };
        let metadata = status.metadata.clone().unwrap_or_default();
        let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
        let image = status.image.map(|image| {
            if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image }
        });
        Self {
            name: status.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
            restart_count: annotation(labels::RESTART_COUNT).parse().unwrap_or(metadata.attempt),
            hash: annotation(labels::HASH),
            image: image.unwrap_or_default(),
            image_id: if status.image_ref.is_empty() { status.image_id } else { status.image_ref },
            id: status.id,
            sandbox_id,
            state,
            created_at: status.created_at,
            started_at: status.started_at,
            finished_at: status.finished_at,
            exit_code: status.exit_code,
            reason: status.reason,
            message,
            log_path: status.log_path,
        }
    }
}

/// What an ended container left in its message file, or else its log's end if it asked for that.
fn last_words(status: &ContainerStatus) -> String {
    let path =
        status.annotations.get(labels::TERMINATION_MESSAGE_PATH).map(String::as_str).unwrap_or_default();
    let policy = status.annotations.get(labels::TERMINATION_MESSAGE_POLICY).map(String::as_str);
    let file = status.mounts.iter().find(|mount| !path.is_empty() && mount.container_path == path);
    let left = file.and_then(|mount| read_start(Path::new(&mount.host_path))).unwrap_or_default();
    if !left.is_empty() {
        return left;
    }
    if policy == Some("FallbackToLogsOnError") && status.exit_code != 0 {
        return crate::agent::log_tail(Path::new(&status.log_path), LOG_TAIL_BYTES, 80);
    }
    status.message.clone()
}

fn read_start(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
