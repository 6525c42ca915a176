//! `/stats/summary`: what the node and its pods use, from the kernel and the runtime.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use k8s_cri::v1::{ContainerStats, PodSandboxStats};
use serde_json::{Value, json};

use super::routes::Shared;
use super::{Refusal, answer};
use crate::agent_state::Agent;
use crate::cri::labels;

/// One thing's CPU and memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// When it was measured, nanoseconds since 1970.
    pub at: i64,
    /// CPU time so far.
    pub cpu_nanoseconds: u64,
    /// Memory that cannot be taken back easily.
    pub working_set_bytes: u64,
    /// All memory.
    pub usage_bytes: u64,
    /// Memory of its processes.
    pub rss_bytes: u64,
}

/// One container's usage, with its names.
#[derive(Clone, Debug, Default)]
pub struct ContainerUsage {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
    /// The container's name.
    pub container: String,
    /// The container's id.
    pub id: String,
    /// What it uses.
    pub usage: Usage,
    /// Bytes in its own layer.
    pub layer_bytes: u64,
}

impl From<ContainerStats> for ContainerUsage {
    fn from(stats: ContainerStats) -> Self {
        let attributes = stats.attributes.unwrap_or_default();
        let label = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
        let value = |v: Option<k8s_cri::v1::UInt64Value>| v.map_or(0, |v| v.value);
        let (cpu, memory) = (stats.cpu.unwrap_or_default(), stats.memory.unwrap_or_default());
        Self {
            namespace: label(labels::POD_NAMESPACE),
            pod: label(labels::POD_NAME),
            uid: label(labels::POD_UID),
            container: label(labels::CONTAINER_NAME),
            id: attributes.id.clone(),
            usage: Usage {
                at: cpu.timestamp,
                cpu_nanoseconds: value(cpu.usage_core_nano_seconds),
                working_set_bytes: value(memory.working_set_bytes),
                usage_bytes: value(memory.usage_bytes),
                rss_bytes: value(memory.rss_bytes),
            },
            layer_bytes: stats.writable_layer.and_then(|layer| layer.used_bytes).map_or(0, |v| v.value),
        }
    }
}

/// Every container's usage.
pub async fn containers(agent: &Agent) -> Result<Vec<ContainerUsage>, Refusal> {
    let stats = agent.cri.container_stats().await.map_err(|error| Refusal::runtime(&error))?;
    Ok(stats.into_iter().map(ContainerUsage::from).filter(|usage| !usage.uid.is_empty()).collect())
}

/// The node's own usage, from /proc.
pub fn node() -> Usage {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/stat");
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .into_iter()
        .flat_map(|line| line.split_whitespace().skip(1))
        .filter_map(|n| n.parse().ok())
        .collect();
    // user, nice, system, irq, softirq, steal: all but idle and iowait. A tick is a hundredth of a second.
    let busy: u64 =
        ticks.iter().enumerate().filter(|(i, _)| !matches!(i, 3 | 4 | 8 | 9)).map(|(_, n)| n).sum();
    let meminfo = read("/proc/meminfo");
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
            * 1024
    };
    let total = field("MemTotal");
    Usage {
        at: now_nanoseconds(),
        cpu_nanoseconds: busy * 10_000_000,
        working_set_bytes: total.saturating_sub(field("MemAvailable")),
        usage_bytes: total.saturating_sub(field("MemFree")),
        rss_bytes: field("AnonPages"),
    }
}

fn now_nanoseconds() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// Rates need two measurements; the last one of each thing is kept.
pub type Measured = parking_lot::Mutex<HashMap<String, (i64, u64, u64)>>;

/// Nanoseconds of CPU per second, since the last measurement; the first time, since `started_at`.
fn rate(measured: &Measured, key: &str, usage: &Usage, started_at: i64) -> u64 {
    let mut measured = measured.lock();
    let (at, cpu, before) = measured.get(key).copied().unwrap_or((started_at, 0, 0));
    let passed = u128::try_from(usage.at - at).unwrap_or(0);
    // Asked again at once, the answer is the last one.
    if passed < 1_000_000_000 {
        return before;
    }
    let used = u128::from(usage.cpu_nanoseconds.saturating_sub(cpu));
    let rate = u64::try_from(used * 1_000_000_000 / passed).unwrap_or(0);
    measured.insert(key.to_string(), (usage.at, usage.cpu_nanoseconds, rate));
    rate
}

fn time(at: i64) -> String {
    crate::cri::nanoseconds(at).to_string()
}

fn cpu(usage: &Usage, nano_cores: u64) -> Value {
    json!({
        "time": time(usage.at),
        "usageNanoCores": nano_cores,
        "usageCoreNanoSeconds": usage.cpu_nanoseconds,
    })
}

fn memory(usage: &Usage) -> Value {
    json!({
        "time": time(usage.at),
        "usageBytes": usage.usage_bytes,
        "workingSetBytes": usage.working_set_bytes,
        "rssBytes": usage.rss_bytes,
    })
}

/// Remembers how busy the node is now, so that the first question already has an answer.
pub fn begin(agent: &Agent) {
    let usage = node();
    agent.measured.lock().insert("node".to_string(), (usage.at, usage.cpu_nanoseconds, 0));
}

/// When containers were started, by id, as the workers know.
fn started(agent: &Agent) -> HashMap<String, i64> {
    let mut found = HashMap::new();
    for mailbox in agent.mailboxes() {
        let pod = mailbox.latest();
        let status = pod.status.as_ref();
        let all = status.iter().flat_map(|s| {
            s.container_statuses.iter().flatten().chain(s.init_container_statuses.iter().flatten())
        });
        for status in all {
            let started =
                status.state.as_ref().and_then(|s| s.running.as_ref()).and_then(|r| r.started_at.as_ref());
            let id = status.container_id.as_deref().and_then(|id| id.rsplit('/').next());
            if let (Some(id), Some(started)) = (id, started) {
                found.insert(id.to_string(), i64::try_from(started.0.as_nanosecond()).unwrap_or(0));
            }
        }
    }
    found
}

pub(super) async fn summary(State(agent): Shared) -> Result<Response, Refusal> {
    let measured = &agent.measured;
    let usages = containers(&agent).await?;
    // A runtime that does not tell about sandboxes leaves out their networks.
    let sandboxes = agent.cri.sandbox_stats().await.unwrap_or_default();
    let started = started(&agent);
    let usage = node();
    let total = u64::try_from(agent.machine.memory_bytes).unwrap_or(0);
    let mut node_memory = memory(&usage);
    if let Some(fields) = node_memory.as_object_mut() {
        let available = total.saturating_sub(usage.working_set_bytes);
        fields.insert("availableBytes".to_string(), json!(available));
    }
    measured.lock().retain(|key, _| key == "node" || usages.iter().any(|c| c.id == *key));
    let mut pods: HashMap<String, Vec<ContainerUsage>> = HashMap::new();
    for usage in usages {
        pods.entry(usage.uid.clone()).or_default().push(usage);
    }
    let pods: Vec<Value> =
        pods.iter().map(|(uid, all)| pod(measured, uid, all, &sandboxes, &started)).collect();
    let fs = filesystem(&agent.config.root_dir);
    Ok(answer(json!({
        "node": {
            "nodeName": agent.config.node_name,
            "startTime": agent.started_at.to_string(),
            "cpu": cpu(&usage, rate(measured, "node", &usage, usage.at)),
            "memory": node_memory,
            "fs": fs,
            "runtime": { "imageFs": fs },
        },
        "pods": pods,
    })))
}

fn pod(
    measured: &Measured,
    uid: &str,
    all: &[ContainerUsage],
    sandboxes: &[PodSandboxStats],
    started: &HashMap<String, i64>,
) -> Value {
    let first = all.first().cloned().unwrap_or_default();
    let total = sum(all);
    let mut busy = 0;
    let mut pod_started = total.at;
    let mut containers = Vec::with_capacity(all.len());
    for c in all {
        let started_at = started.get(&c.id).copied().unwrap_or(c.usage.at);
        pod_started = pod_started.min(started_at);
        let nano_cores = rate(measured, &c.id, &c.usage, started_at);
        busy += nano_cores;
        containers.push(json!({ "name": c.container, "startTime": time(started_at),
            "cpu": cpu(&c.usage, nano_cores), "memory": memory(&c.usage),
            "rootfs": { "time": time(c.usage.at), "usedBytes": c.layer_bytes } }));
    }
    let mut pod = json!({
        "podRef": { "name": first.pod, "namespace": first.namespace, "uid": uid },
        "startTime": time(pod_started),
        "containers": containers,
        "cpu": cpu(&total, busy),
        "memory": memory(&total),
    });
    let of_pod = |stats: &&PodSandboxStats| {
        let labels = stats.attributes.as_ref().map(|attributes| &attributes.labels);
        labels.and_then(|labels| labels.get(labels::POD_UID)).is_some_and(|known| known == uid)
    };
    let linux = sandboxes.iter().find(of_pod).and_then(|stats| stats.linux.as_ref());
    let network = linux.and_then(|linux| linux.network.as_ref()).and_then(|n| n.default_interface.as_ref());
    if let (Some(network), Some(pod)) = (network, pod.as_object_mut()) {
        let value = |v: &Option<k8s_cri::v1::UInt64Value>| v.as_ref().map_or(0, |v| v.value);
        pod.insert(
            "network".to_string(),
            json!({ "name": network.name,
            "rxBytes": value(&network.rx_bytes), "txBytes": value(&network.tx_bytes) }),
        );
    }
    pod
}

/// A pod's usage as the sum of its containers'.
pub fn sum(all: &[ContainerUsage]) -> Usage {
    all.iter().fold(Usage::default(), |sum, c| Usage {
        at: sum.at.max(c.usage.at),
        cpu_nanoseconds: sum.cpu_nanoseconds + c.usage.cpu_nanoseconds,
        working_set_bytes: sum.working_set_bytes + c.usage.working_set_bytes,
        usage_bytes: sum.usage_bytes + c.usage.usage_bytes,
        rss_bytes: sum.rss_bytes + c.usage.rss_bytes,
    })
}

fn filesystem(path: &std::path::Path) -> Value {
    let Ok(stat) = nix::sys::statvfs::statvfs(path) else { return json!({}) };
    let unit = stat.fragment_size();
    json!({
        "time": Timestamp::now().to_string(),
        "availableBytes": stat.blocks_available() * unit,
        "capacityBytes": stat.blocks() * unit,
        "usedBytes": (stat.blocks() - stat.blocks_free()) * unit,
        "inodesFree": stat.files_free(),
        "inodes": stat.files(),
        "inodesUsed": stat.files() - stat.files_free(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(at_s: i64, cpu_s: u64) -> Usage {
        Usage { at: at_s * 1_000_000_000, cpu_nanoseconds: cpu_s * 1_000_000_000, ..Usage::default() }
    }

    #[test]
    fn the_first_rate_is_that_of_the_whole_life_and_later_ones_of_the_time_between() {
        let measured = Measured::default();
        assert_eq!(rate(&measured, "a", &usage(110, 5), 100_000_000_000), 500_000_000);
        assert_eq!(rate(&measured, "a", &usage(114, 9), 0), 1_000_000_000);
        let again = Usage { at: 114_500_000_000, ..usage(0, 9) };
        assert_eq!(rate(&measured, "a", &again, 0), 1_000_000_000, "asked again at once");
        assert_eq!(rate(&measured, "a", &usage(124, 9), 0), 0);
    }
}
