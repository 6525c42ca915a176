//! The node's status: built from the machine and the runtime, written when it changed, or has not been for long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::{EventType, Informer, Scope};
use jiff::Timestamp;
use k8s_cri::v1::Image;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus,
    NodeSystemInfo, ObjectReference,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::agent_state::Agent;
use crate::pod::status_seconds;

/// A node tells of so many images at most, the largest ones, as upstream.
const IMAGES_MAX: usize = 50;
const IMAGE_NAMES_MAX: usize = 5;
/// How often the runtime is asked while it is not ready: a node should be ready as soon as it can.
const POLL_NOT_READY: Duration = Duration::from_millis(200);
/// After so long without success the runtime is asked less often.
const EAGER: Duration = Duration::from_secs(60);

/// Whether the runtime and its network are good, and if not, why.
#[derive(Clone, Debug, PartialEq)]
struct Readiness {
    ready: bool,
    message: String,
}

/// Keeps the status.
pub struct StatusLoop {
    agent: Arc<Agent>,
    node: Informer<Node>,
    images: Vec<ContainerImage>,
    reported_at: Option<Instant>,
    told_ready: AtomicBool,
    pod_cidr: Option<String>,
}

impl StatusLoop {
    /// For this node.
    pub fn new(agent: Arc<Agent>) -> Self {
        let scope = Scope::all().fields(format!("metadata.name={}", agent.config.node_name));
        let node = agent.informers.get::<Node>(scope);
        Self {
            agent,
            node,
            images: Vec::new(),
            reported_at: None,
            told_ready: AtomicBool::new(false),
            pod_cidr: None,
        }
    }

    /// Runs until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let began = Instant::now();
        let mut changes = self.node.subscribe();
        let mut list_images = true;
        loop {
            let readiness = readiness(&self.agent).await;
            if list_images {
                self.list_images().await;
            }
            self.tell_pod_cidr().await;
            let good = self.report(&readiness).await;
            let eager = !(readiness.ready && good) && began.elapsed() < EAGER;
            let pause = if eager { POLL_NOT_READY } else { self.agent.config.status_interval };
            list_images = false;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => list_images = self.is_due(),
                () = self.agent.node_changed.notified() => list_images = true,
                // The node's own object: what others wrote over the agent's part is put right, and its addresses for
                // pods are passed on.
                change = changes.next() => if change.is_none() { return },
            }
        }
    }

    fn is_due(&self) -> bool {
        self.reported_at.is_none_or(|at| at.elapsed() >= self.agent.config.status_report_interval)
    }

    async fn list_images(&mut self) {
        match self.agent.cri.list_images().await {
            Ok(images) => self.images = container_images(images),
            Err(error) => tracing::debug!(%error, "the images cannot be listed"),
        }
    }

    async fn tell_pod_cidr(&mut self) {
        let node = self.node.get("", &self.agent.config.node_name);
        let cidr = node.and_then(|node| node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone()));
        if cidr == self.pod_cidr {
            return;
        }
        if let Some(cidr) = &cidr
            && let Err(error) = self.agent.cri.update_pod_cidr(cidr).await
            && !error.is_unimplemented()
        {
            tracing::warn!(%error, "the runtime does not take the node's pod addresses");
            return;
        }
        self.pod_cidr = cidr;
    }

    /// Writes what differs from what the API has. False when that failed, or the object is not seen yet.
    async fn report(&mut self, readiness: &Readiness) -> bool {
        let name = self.agent.config.node_name.clone();
        if !self.node.is_synced() {
            self.node.synced().await;
        }
        let Some(node) = self.node.get("", &name) else { return false };
        let before = node.status.clone().unwrap_or_default();
        let wanted = build(&self.agent, &before, readiness, &self.images);
        let Some(patch) = difference(&before, &wanted, self.is_due()) else { return true };
        let api = Api::<Node>::all(self.agent.client.clone());
        let body = json!({ "status": patch });
        match api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(body)).await {
            Ok(_) => {
                self.reported_at = Some(Instant::now());
                self.tell_changes(&before, &wanted);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the node's status could not be written");
                false
            }
        }
    }

    fn tell_changes(&self, before: &NodeStatus, now: &NodeStatus) {
        for condition in now.conditions.iter().flatten() {
            let old = before.conditions.iter().flatten().find(|c| c.type_ == condition.type_);
            if old.is_some_and(|old| old.status == condition.status) {
                continue;
            }
            let reason = match (condition.type_.as_str(), condition.status.as_str()) {
                ("Ready", "True") => "NodeReady",
                ("Ready", _) => "NodeNotReady",
                ("MemoryPressure", "True") => "NodeHasInsufficientMemory",
                ("MemoryPressure", _) => "NodeHasSufficientMemory",
                ("DiskPressure", "True") => "NodeHasDiskPressure",
                ("DiskPressure", _) => "NodeHasNoDiskPressure",
                ("PIDPressure", "True") => "NodeHasInsufficientPID",
                _ => "NodeHasSufficientPID",
            };
            if reason == "NodeReady" && !self.told_ready.swap(true, Ordering::Relaxed) {
                tracing::info!(node = self.agent.config.node_name, "the node is ready");
            }
            tell(
                &self.agent,
                EventType::Normal,
                reason,
                &format!("Node {} status is now: {reason}", self.agent.config.node_name),
            );
        }
    }
}

/// Tells what happened to the node. Upstream's events name the node by its name in place of its UID.
pub fn tell(agent: &Agent, kind: EventType, reason: &str, message: &str) {
    let name = Some(agent.config.node_name.clone());
    let about =
        ObjectReference { kind: Some("Node".to_string()), uid: name.clone(), name, ..Default::default() };
    agent.events.record_about(about, kind, reason, message);
}

async fn readiness(agent: &Agent) -> Readiness {
    let status = match agent.cri.status().await {
        Ok(status) => status.status.unwrap_or_default(),
        Err(error) => {
            return Readiness { ready: false, message: format!("container runtime is down: {error}") };
        }
    };
    let mut complaints = Vec::new();
    for condition in status.conditions.iter().filter(|condition| !condition.status) {
        let what = match condition.r#type.as_str() {
            "RuntimeReady" => "container runtime not ready",
            "NetworkReady" => "container runtime network not ready",
            _ => continue,
        };
        complaints.push(format!(
            "{what}: {}=false reason:{} message:{}",
            condition.r#type, condition.reason, condition.message
        ));
    }
    Readiness { ready: complaints.is_empty(), message: complaints.join(", ") }
}

/// The status that a node is registered with.
pub async fn first(agent: &Agent) -> NodeStatus {
    let readiness = readiness(agent).await;
    build(agent, &NodeStatus::default(), &readiness, &[])
}

fn build(agent: &Agent, before: &NodeStatus, readiness: &Readiness, images: &[ContainerImage]) -> NodeStatus {
    let config = &agent.config;
    let machine = &agent.machine;
    let mut addresses = vec![address("InternalIP", &config.node_ip.to_string())];
    addresses.push(address("Hostname", &config.node_name));
    let port = i32::from(agent.api_port());
    NodeStatus {
        capacity: Some(amounts(agent, true)),
        allocatable: Some(amounts(agent, false)),
        addresses: Some(addresses),
        conditions: Some(conditions(agent, before, readiness)),
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port }) }),
        images: Some(images.to_vec()),
        node_info: Some(NodeSystemInfo {
            architecture: machine.architecture.clone(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: format!("{}://{}", agent.runtime_name, agent.runtime_version),
            kernel_version: machine.kernel_version.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: config.version.clone(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_string(),
            os_image: machine.os_image.clone(),
            system_uuid: machine.system_uuid.clone(),
            swap: None,
        }),
        ..NodeStatus::default()
    }
}

fn address(kind: &str, address: &str) -> NodeAddress {
    NodeAddress { type_: kind.to_string(), address: address.to_string() }
}

fn amounts(agent: &Agent, capacity: bool) -> BTreeMap<String, Quantity> {
    let machine = &agent.machine;
    let config = &agent.config;
    let share = machine.allocatable(config);
    let mut all = BTreeMap::new();
    let mut put = |name: &str, amount: String| {
        all.insert(name.to_string(), Quantity(amount));
    };
    let disk = disk_bytes(&config.root_dir);
    let cpu = if capacity { machine.cpus * 1000 } else { share.cpu_millis };
    put("cpu", if cpu % 1000 == 0 { (cpu / 1000).to_string() } else { format!("{cpu}m") });
    let memory = if capacity { machine.memory_bytes } else { share.memory_bytes };
    put("memory", format!("{}Ki", memory / 1024));
    let kept = config.eviction.thresholds.disk.of(disk);
    put("ephemeral-storage", if capacity { format!("{}Ki", disk / 1024) } else { (disk - kept).to_string() });
    put("pods", config.max_pods.to_string());
    for (size, bytes) in &machine.huge_pages {
        let size = if *size >= 1 << 30 { format!("{}Gi", size >> 30) } else { format!("{}Mi", size >> 20) };
        let amount = if *bytes == 0 { "0".to_string() } else { format!("{}Mi", bytes >> 20) };
        put(&format!("hugepages-{size}"), amount);
    }
    all
}

fn disk_bytes(path: &std::path::Path) -> u64 {
    nix::sys::statvfs::statvfs(path).map_or(0, |stat| stat.blocks() * stat.fragment_size())
}

fn conditions(agent: &Agent, before: &NodeStatus, readiness: &Readiness) -> Vec<NodeCondition> {
    let pressure = agent.pressure();
    let now = Time(status_seconds(Timestamp::now()));
    let make = |kind: &str, status: bool, reason: &str, message: &str| {
        let status = if status { "True" } else { "False" };
        let old = before.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == status);
        NodeCondition {
            type_: kind.to_string(),
            status: status.to_string(),
            reason: Some(reason.to_string()),
            message: Some(message.to_string()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: old.and_then(|c| c.last_transition_time.clone()).or(Some(now.clone())),
        }
    };
    let pick = |flag: bool, yes: (&'static str, &'static str), no: (&'static str, &'static str)| {
        if flag { yes } else { no }
    };
    let memory = pick(
        pressure.memory,
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    );
    let disk = pick(
        pressure.disk,
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    );
    let pids = pick(
        pressure.pids,
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    );
    let ready = if readiness.ready {
        make("Ready", true, "KubeletReady", "kubelet is posting ready status")
    } else {
        make("Ready", false, "KubeletNotReady", &readiness.message)
    };
    vec![
        make("MemoryPressure", pressure.memory, memory.0, memory.1),
        make("DiskPressure", pressure.disk, disk.0, disk.1),
        make("PIDPressure", pressure.pids, pids.0, pids.1),
        ready,
    ]
}

fn container_images(mut images: Vec<Image>) -> Vec<ContainerImage> {
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    images.truncate(IMAGES_MAX);
    let named = images.into_iter().map(|image| {
        let mut names = image.repo_digests;
        names.extend(image.repo_tags);
        names.truncate(IMAGE_NAMES_MAX);
        ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
    });
    named.filter(|image| image.names.as_ref().is_some_and(|names| !names.is_empty())).collect()
}

/// The patch from one status to another. Heartbeats alone count only when a report is due.
fn difference(before: &NodeStatus, wanted: &NodeStatus, due: bool) -> Option<Map<String, Value>> {
    let to_map = |status: &NodeStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, new) = (to_map(before), to_map(wanted));
    let mut patch = Map::new();
    for (key, value) in new {
        match key.as_str() {
            "conditions" if due || conditions_changed(before, wanted) => {
                patch.insert(key, value);
            }
            "conditions" => {}
            "addresses" if old.get(&key) != Some(&value) => {
                let mut list = value.as_array().cloned().unwrap_or_default();
                list.push(json!({ "$patch": "replace" }));
                patch.insert(key, Value::Array(list));
            }
            _ if old.get(&key) != Some(&value) => {
                patch.insert(key, value);
            }
            _ => {}
        }
    }
    (!patch.is_empty()).then_some(patch)
}

fn conditions_changed(before: &NodeStatus, wanted: &NodeStatus) -> bool {
    wanted.conditions.iter().flatten().any(|now| {
        let old = before.conditions.iter().flatten().find(|c| c.type_ == now.type_);
        old.is_none_or(|old| {
            (&old.status, &old.reason, &old.message) != (&now.status, &now.reason, &now.message)
        })
    })
}
