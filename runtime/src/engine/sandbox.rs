//! Sandboxes: making, stopping and removing what a pod's containers share.

use std::{fs, io, net::IpAddr, path::Path, sync::Arc};

use k8s_cri::v1::{ContainerEventType, DnsConfig, NamespaceMode, PodSandboxConfig};
use parking_lot::RwLock;
use tokio::sync::Mutex;

use super::{Engine, blocking, new_id};
use crate::{
    error::Error,
    files, mounts, netns,
    network::{PodAttachment, PortMapping, Protocol},
    record::{Sandbox, SandboxRecord},
    shim::protocol::ShimConfig,
    shim_client, time,
};

/// As other runtimes have it.
const SHARED_MEMORY_BYTES: u64 = 64 * 1024 * 1024;

impl Engine {
    pub(crate) async fn run_sandbox(
        self: &Arc<Self>,
        config: PodSandboxConfig,
        runtime_handler: String,
    ) -> Result<String, Error> {
        if !runtime_handler.is_empty() {
            return Err(Error::Invalid(format!("no runtime for {runtime_handler:?} is configured")));
        }
        if config.metadata.is_none() {
            return Err(Error::Invalid("sandbox config must include metadata".into()));
        }
        refuse_what_is_not_done(&config)?;
        let id = new_id();
        let directory = self.sandbox_directory(&id);
        let mut record = SandboxRecord {
            id: id.clone(),
            config,
            runtime_handler,
            created_at: time::now(),
            netns: None,
            addresses: Vec::new(),
            complete: false,
            stopped: false,
        };
        let sandbox = Sandbox {
            id: id.clone(),
            directory: directory.clone(),
            record: RwLock::new(record.clone()),
            pause_pid: RwLock::new(None),
            changing: Mutex::new(()),
        };
        if !sandbox.uses_host(|options| options.network()) {
            record.netns = Some(self.config.state.join("netns").join(&id));
            *sandbox.record.write() = record.clone();
        }
        let sandbox = Arc::new(sandbox);
        // The record first: from here on a crash leaves nothing unknown.
        blocking("making the sandbox", {
            let host_ipc = sandbox.uses_host(|options| options.ipc());
            let record = record.clone();
            move || prepare_files(&directory, &record, host_ipc)
        })
        .await?;
        let brought_up = match self.bring_up(&sandbox, &mut record).await {
            Ok(()) => self.watch_shim(&sandbox).await,
            Err(error) => Err(error),
        };
        if let Err(error) = brought_up {
            // The error that matters is the first one; what cannot be undone now is undone at the next start.
            if let Err(error) = self.tear_down(&sandbox).await {
                tracing::warn!(sandbox = id, %error, "cleaning up after a sandbox that did not start");
            } else if let Err(error) = self.remove_sandbox_files(&sandbox).await {
                tracing::warn!(sandbox = id, %error, "cleaning up after a sandbox that did not start");
            }
            return Err(error);
        }
        self.sandboxes.write().insert(id.clone(), Arc::clone(&sandbox));
        self.announce(&id, &sandbox, ContainerEventType::ContainerCreatedEvent);
        self.announce(&id, &sandbox, ContainerEventType::ContainerStartedEvent);
        Ok(id)
    }

    async fn bring_up(&self, sandbox: &Arc<Sandbox>, record: &mut SandboxRecord) -> Result<(), Error> {
        if let Some(path) = record.netns.clone() {
            blocking("making the network namespace", move || netns::create(&path)).await?;
        }
        let shim = shim_config(sandbox, record, &self.config.shim_cgroup());
        let network = async {
            match attachment(record) {
                Some(pod) => self.network.attach(&pod).await.map_err(Error::Network),
                None => Ok(Vec::<IpAddr>::new()),
            }
        };
        let shim = async { self.shims.start(&sandbox.directory, &shim).await.map_err(Error::from) };
        // Both take milliseconds and know nothing of each other.
        let (addresses, started) = tokio::join!(network, shim);
        record.addresses = addresses?;
        started?;
        record.complete = true;
        *sandbox.record.write() = record.clone();
        save(sandbox)
    }

    /// Stops a sandbox and everything in it. Again, if need be: what has been done is done.
    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<(), Error> {
        // One that does not exist is stopped.
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let _changing = sandbox.changing.lock().await;
        for container in self.containers_of(&sandbox.id) {
            self.stop_container_entry(&container, std::time::Duration::ZERO).await?;
        }
        let was_ready = !sandbox.record.read().stopped;
        self.tear_down(&sandbox).await?;
        if was_ready {
            self.announce(&sandbox.id, &sandbox, ContainerEventType::ContainerStoppedEvent);
        }
        Ok(())
    }

    /// Ends the shim, disconnects the network and removes the namespaces.
    pub(super) async fn tear_down(&self, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        // A shim that is gone has ended.
        if let Err(error) = shim_client::shut_down(&sandbox.directory).await {
            tracing::debug!(sandbox = sandbox.id, %error, "shim not there to be ended");
        }
        let record = sandbox.record.read().clone();
        if let Some(pod) = attachment(&record) {
            self.network.detach(&pod).await.map_err(Error::Network)?;
        }
        let (netns, shared_memory) = (record.netns.clone(), sandbox.directory.join("shm"));
        blocking("removing the namespaces", move || {
            if let Some(netns) = netns {
                netns::remove(&netns)?;
            }
            mounts::unmount(&shared_memory)
        })
        .await?;
        if !record.stopped {
            sandbox.record.write().stopped = true;
            save(sandbox)?;
        }
        Ok(())
    }

    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<(), Error> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        self.stop_sandbox(&sandbox.id).await?;
        for container in self.containers_of(&sandbox.id) {
            self.remove_container(&container.id).await?;
        }
        let _changing = sandbox.changing.lock().await;
        self.remove_sandbox_files(&sandbox).await?;
        self.sandboxes.write().remove(&sandbox.id);
        self.announce(&sandbox.id, &sandbox, ContainerEventType::ContainerDeletedEvent);
        Ok(())
    }

    pub(super) async fn remove_sandbox_files(&self, sandbox: &Sandbox) -> Result<(), Error> {
        let directory = sandbox.directory.clone();
        blocking("removing the sandbox", move || {
            mounts::unmount(&directory.join("shm"))?;
            files::remove_tree(&directory)
        })
        .await
    }
}

/// What would weaken a pod if it were passed over in silence.
fn refuse_what_is_not_done(config: &PodSandboxConfig) -> Result<(), Error> {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let users = security
        .and_then(|security| security.namespace_options.as_ref())
        .and_then(|options| options.userns_options.as_ref());
    match users {
        Some(users) if users.mode() != NamespaceMode::Node => {
            Err(Error::Invalid("user namespaces are not supported by this runtime".into()))
        }
        _ => Ok(()),
    }
}

pub(super) fn save(sandbox: &Sandbox) -> Result<(), Error> {
    let record = sandbox.record.read().clone();
    write_record(&sandbox.directory, &record).map_err(Error::io("recording the sandbox"))
}

fn write_record(directory: &Path, record: &SandboxRecord) -> io::Result<()> {
    files::replace(&directory.join("sandbox.json"), &serde_json::to_vec(record)?)
}

fn prepare_files(directory: &Path, record: &SandboxRecord, host_ipc: bool) -> io::Result<()> {
    fs::create_dir(directory)?;
    write_record(directory, record)?;
    fs::write(directory.join("hostname"), format!("{}\n", hostname(record)))?;
    match &record.config.dns_config {
        Some(dns) => fs::write(directory.join("resolv.conf"), resolv_conf(dns))?,
        None => {
            let host = fs::read("/etc/resolv.conf").unwrap_or_default();
            fs::write(directory.join("resolv.conf"), host)?;
        }
    }
    let shared_memory = directory.join("shm");
    fs::create_dir(&shared_memory)?;
    if host_ipc { Ok(()) } else { mounts::shared_memory(&shared_memory, SHARED_MEMORY_BYTES) }
}

/// The name of the pod's host; on the host's network that of the machine.
pub(super) fn hostname(record: &SandboxRecord) -> String {
    if record.config.hostname.is_empty() || record.netns.is_none() {
        return fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    }
    record.config.hostname.clone()
}

fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

fn shim_config(sandbox: &Sandbox, record: &SandboxRecord, cgroup: &str) -> ShimConfig {
    let options = sandbox.namespace_options();
    let linux = record.config.linux.clone().unwrap_or_default();
    ShimConfig {
        sandbox: record.id.clone(),
        netns: record.netns.clone(),
        hostname: record.netns.as_ref().map(|_| hostname(record)),
        private_ipc: options.ipc() != NamespaceMode::Node,
        shared_pid: options.pid() == NamespaceMode::Pod,
        sysctls: linux.sysctls.into_iter().collect(),
        cgroup: cgroup.to_owned(),
    }
}

/// What the network is told of a pod; nothing for a pod on the host's.
pub(super) fn attachment(record: &SandboxRecord) -> Option<PodAttachment> {
    let metadata = record.config.metadata.clone().unwrap_or_default();
    let port = |port: i32| u16::try_from(port).ok();
    let port_mappings = record.config.port_mappings.iter().filter(|mapping| mapping.host_port > 0);
    Some(PodAttachment {
        sandbox_id: record.id.clone(),
        netns: record.netns.clone()?,
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        port_mappings: port_mappings
            .filter_map(|mapping| {
                Some(PortMapping {
                    protocol: match mapping.protocol() {
                        k8s_cri::v1::Protocol::Tcp => Protocol::Tcp,
                        k8s_cri::v1::Protocol::Udp => Protocol::Udp,
                        k8s_cri::v1::Protocol::Sctp => Protocol::Sctp,
                    },
                    host_port: port(mapping.host_port)?,
                    container_port: port(mapping.container_port)?,
                    host_ip: mapping.host_ip.parse().ok(),
                })
            })
            .collect(),
        annotations: record.config.annotations.clone().into_iter().collect(),
    })
}
