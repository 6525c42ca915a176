//! What every part of the agent shares.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use client::{EventRecorder, EventType, Informer, Informers};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::cri::Cri;
use crate::endpoints::Endpoints;
use crate::node::Machine;
use crate::pod::{Mailbox, PodExt, ResolvConf};
use crate::references::References;

/// How many pods are started at once: more only makes each slower. Twice the cores, and at least so many.
const STARTS_AT_ONCE_MIN: usize = 4;

fn starts_at_once() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    STARTS_AT_ONCE_MIN.max(cores * 2)
}

/// The agent's parts.
pub struct Agent {
    /// Its settings.
    pub config: Config,
    /// The API.
    pub client: kube::Client,
    /// The runtime.
    pub cri: Cri,
    /// What the runtime calls itself, as in container ids.
    pub runtime_name: String,
    /// Its version.
    pub runtime_version: String,
    /// Watches.
    pub informers: Informers,
    /// All services, for environment variables.
    pub services: Informer<Service>,
    /// Who gets requests.
    pub endpoints: Endpoints,
    /// Config maps and secrets.
    pub references: References,
    /// Where happenings are told.
    pub events: EventRecorder,
    /// The node's cgroups.
    pub cgroups: Cgroups,
    /// What the machine has.
    pub machine: Machine,
    /// The node's resolvers.
    pub resolv_conf: ResolvConf,
    /// Limits how much is started at once.
    pub starts: Arc<Semaphore>,
    /// The pods' workers, by UID.
    pub pods: Mutex<HashMap<String, Arc<Mailbox>>>,
    /// Tells that the set of pods changed.
    pub pods_changed: Arc<tokio::sync::Notify>,
    /// Held while a running pod is granted other resources; true once all pods of the node are known.
    pub granting: Mutex<bool>,
    /// How many pods there are.
    pub pod_count: Arc<std::sync::atomic::AtomicUsize>,
    /// Tells the node's status that it should look again.
    pub node_changed: tokio::sync::Notify,
    /// The last measurements of CPU, for rates.
    pub measured: crate::agent::Measured,
    /// When the agent started.
    pub started_at: jiff::Timestamp,
    pressure: Mutex<Pressure>,
    api_port: AtomicU16,
}

/// What the node is short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory.
    pub memory: bool,
    /// Disk.
    pub disk: bool,
    /// Processes.
    pub pids: bool,
}

impl Agent {
    /// Puts the parts together.
    pub fn new(
        config: Config,
        informers: Informers,
        cri: Cri,
        runtime: (String, String),
        cgroups: Cgroups,
        shutdown: &tokio_util::sync::CancellationToken,
    ) -> Self {
        let client = informers.client();
        let events = EventRecorder::new(client.clone(), "kubelet", Some(&config.node_name), shutdown.clone());
        Self {
            services: informers.get(client::Scope::all()),
            endpoints: Endpoints::new(&informers),
            references: References::new(informers.clone()),
            informers,
            events,
            machine: Machine::look(),
            resolv_conf: ResolvConf::of_node(),
            starts: Arc::new(Semaphore::new(starts_at_once())),
            pods: Mutex::default(),
            pods_changed: Arc::default(),
            granting: Mutex::new(false),
            pod_count: Arc::default(),
            node_changed: tokio::sync::Notify::new(),
            measured: crate::agent::Measured::default(),
            started_at: jiff::Timestamp::now(),
            pressure: Mutex::default(),
            api_port: AtomicU16::new(config.serving.address.port()),
            runtime_name: runtime.0,
            runtime_version: runtime.1,
            config,
            client,
            cri,
            cgroups,
        }
    }

    /// The node's address.
    pub fn node_ip(&self) -> IpAddr {
        self.config.node_ip
    }

    /// Tells what happened to a pod, or to one of its containers.
    pub fn tell(
        &self,
        pod: &Pod,
        container: Option<&str>,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let field = |list: &str, name: &str| format!("spec.{list}{{{name}}}");
        let list = |name: &str| {
            if pod.init_containers().iter().any(|c| c.name == name) {
                "initContainers"
            } else if pod.spec().containers.iter().any(|c| c.name == name) {
                "containers"
            } else {
                "ephemeralContainers"
            }
        };
        let field_path = container.map(|name| field(list(name), name));
        let about = ObjectReference {
            api_version: Some("v1".to_string()),
            kind: Some("Pod".to_string()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path,
        };
        self.events.record_about(about, kind, reason, message);
    }

    /// What the node is short of.
    pub fn pressure(&self) -> Pressure {
        *self.pressure.lock()
    }

    /// The node is short of this now.
    pub fn set_pressure(&self, pressure: Pressure) {
        let before = std::mem::replace(&mut *self.pressure.lock(), pressure);
        if before != pressure {
            self.node_changed.notify_one();
        }
    }

    /// The port that the agent API listens on.
    pub fn api_port(&self) -> u16 {
        self.api_port.load(Ordering::Relaxed)
    }

    /// The agent API listens on this port.
    pub fn set_api_port(&self, port: u16) {
        self.api_port.store(port, Ordering::Relaxed);
    }

    /// The pods that the agent has.
    pub fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        self.pods.lock().values().cloned().collect()
    }

    /// There is more room on the node: whoever waits for it looks again.
    pub fn wake_waiting(&self) {
        self.mailboxes().iter().filter(|mailbox| mailbox.wish().is_some()).for_each(|mailbox| mailbox.wake());
    }
}
