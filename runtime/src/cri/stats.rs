//! What containers and pods use.

use std::{
    collections::HashMap,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_cri::v1::{
    ContainerAttributes, ContainerStats, CpuUsage, FilesystemIdentifier, FilesystemUsage,
    LinuxPodSandboxStats, MemoryUsage, NetworkInterfaceUsage, NetworkUsage, PodSandboxAttributes,
    PodSandboxStats, ProcessUsage, UInt64Value,
};
use parking_lot::Mutex;

use crate::{
    cgroup::Usage,
    engine::Engine,
    record::{ContainerEntry, Phase, Sandbox},
    time,
    usage::{self, TreeUsage},
};

/// Rates over less than this are noise.
const RATE_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// What a container has written is measured again after this.
const WRITABLE_LIFETIME: Duration = Duration::from_secs(60);

/// What has to be remembered between two readings.
#[derive(Default)]
pub(super) struct Meter(Mutex<HashMap<String, Reading>>);

#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    cpu_ns: u64,
    nano_cores: Option<u64>,
    writable: Option<(Instant, TreeUsage)>,
}

impl Meter {
    /// Measures a running container; nothing for others.
    pub(super) fn container(&self, engine: &Engine, entry: &Arc<ContainerEntry>) -> Option<ContainerStats> {
        if !matches!(entry.phase(), Phase::Running { .. }) {
            self.0.lock().remove(&entry.id);
            return None;
        }
        let record = entry.record.read().clone();
        let usage = engine.cgroups.usage(&record.cgroup)?;
        let (nano_cores, writable) = self.note(&entry.id, usage.cpu_ns, || {
            usage::of_tree(&engine.config.root.join("containers").join(&entry.id).join("upper"))
                .unwrap_or_default()
        });
        let timestamp = time::now();
        Some(ContainerStats {
            attributes: Some(ContainerAttributes {
                id: record.id,
                metadata: record.config.metadata,
                labels: record.config.labels,
                annotations: record.config.annotations,
            }),
            cpu: Some(cpu(timestamp, usage.cpu_ns, nano_cores)),
            memory: Some(memory(timestamp, &usage)),
            writable_layer: Some(FilesystemUsage {
                timestamp,
                fs_id: Some(FilesystemIdentifier { mountpoint: engine.config.root.display().to_string() }),
                used_bytes: some(writable.bytes),
                inodes_used: some(writable.inodes),
            }),
            swap: None,
        })
    }

    pub(super) fn sandbox(&self, engine: &Engine, sandbox: &Arc<Sandbox>) -> PodSandboxStats {
        let containers: Vec<_> = engine
            .containers_of(&sandbox.id)
            .iter()
            .filter_map(|entry| self.container(engine, entry))
            .collect();
        let record = sandbox.record.read().clone();
        let linux = record.config.linux.clone().unwrap_or_default();
        let group = Some(linux.cgroup_parent).filter(|group| !group.trim_matches('/').is_empty());
        let usage = group.and_then(|group| engine.cgroups.usage(&group)).unwrap_or_default();
        let (nano_cores, _) = self.note(&sandbox.id, usage.cpu_ns, TreeUsage::default);
        let timestamp = time::now();
        PodSandboxStats {
            attributes: Some(PodSandboxAttributes {
                id: record.id,
                metadata: record.config.metadata,
                labels: record.config.labels,
                annotations: record.config.annotations,
            }),
            linux: Some(LinuxPodSandboxStats {
                cpu: Some(cpu(timestamp, usage.cpu_ns, nano_cores)),
                memory: Some(memory(timestamp, &usage)),
                network: record.netns.and_then(|_| network(sandbox, timestamp)),
                process: Some(ProcessUsage { timestamp, process_count: some(usage.processes) }),
                containers,
            }),
            windows: None,
        }
    }

    /// Forgets what is not there any more.
    pub(super) fn retain(&self, engine: &Engine) {
        self.0.lock().retain(|id, _| engine.container(id).is_ok() || engine.sandbox(id).is_ok());
    }

    fn note(&self, id: &str, cpu_ns: u64, measure: impl FnOnce() -> TreeUsage) -> (Option<u64>, TreeUsage) {
        let now = Instant::now();
        let last = self.0.lock().get(id).copied();
        let writable = match last.and_then(|last| last.writable) {
            Some((at, usage)) if now - at < WRITABLE_LIFETIME => (at, usage),
            _ => (now, measure()),
        };
        let reading = match last {
            Some(last) if now - last.at < RATE_INTERVAL_MIN => Reading { writable: Some(writable), ..last },
            Some(last) => {
                let elapsed = u64::try_from((now - last.at).as_nanos()).unwrap_or(u64::MAX);
                let used = u128::from(cpu_ns.saturating_sub(last.cpu_ns)) * 1_000_000_000;
                let rate = u64::try_from(used / u128::from(elapsed.max(1))).unwrap_or(u64::MAX);
                Reading { at: now, cpu_ns, nano_cores: Some(rate), writable: Some(writable) }
            }
            None => Reading { at: now, cpu_ns, nano_cores: None, writable: Some(writable) },
        };
        self.0.lock().insert(id.to_owned(), reading);
        (reading.nano_cores, writable.1)
    }
}

fn some(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn cpu(timestamp: i64, cpu_ns: u64, nano_cores: Option<u64>) -> CpuUsage {
    CpuUsage { timestamp, usage_core_nano_seconds: some(cpu_ns), usage_nano_cores: nano_cores.and_then(some) }
}

fn memory(timestamp: i64, usage: &Usage) -> MemoryUsage {
    let available = usage.memory_limit_bytes.map(|limit| limit.saturating_sub(usage.working_set_bytes));
    MemoryUsage {
        timestamp,
        working_set_bytes: some(usage.working_set_bytes),
        available_bytes: available.and_then(some),
        usage_bytes: some(usage.memory_bytes),
        rss_bytes: some(usage.rss_bytes),
        page_faults: some(usage.page_faults),
        major_page_faults: some(usage.major_page_faults),
    }
}

/// The shim is in the pod's network namespace, so its view is the pod's.
fn network(sandbox: &Sandbox, timestamp: i64) -> Option<NetworkUsage> {
    let shim = fs::read_to_string(sandbox.directory.join("shim.pid")).ok()?;
    let table = fs::read_to_string(format!("/proc/{}/net/dev", shim.trim())).ok()?;
    let interfaces = interfaces(&table);
    let default_interface = interfaces.iter().find(|interface| interface.name == "eth0").cloned();
    let default_interface = default_interface.or_else(|| interfaces.first().cloned());
    Some(NetworkUsage { timestamp, default_interface, interfaces })
}

fn interfaces(table: &str) -> Vec<NetworkInterfaceUsage> {
    let rows = table.lines().filter_map(|line| line.split_once(':'));
    rows.filter(|(name, _)| name.trim() != "lo")
        .map(|(name, counters)| {
            let counters: Vec<u64> =
                counters.split_whitespace().filter_map(|field| field.parse().ok()).collect();
            let counter = |index: usize| counters.get(index).copied().and_then(some);
            NetworkInterfaceUsage {
                name: name.trim().to_owned(),
                rx_bytes: counter(0),
                rx_errors: counter(2),
                tx_bytes: counter(8),
                tx_errors: counter(10),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_should_be_read_without_loopback() {
        let table = "Inter-|   Receive                                                |  Transmit\n\
                     \x20face |bytes    packets errs drop fifo frame compressed multicast|bytes\n\
                     \x20   lo:  1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n\
                     \x20 eth0: 100 2 3 0 0 0 0 0 200 4 5 0 0 0 0 0\n";
        let read = interfaces(table);
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].rx_bytes, read[0].tx_errors), (some(100), some(5)));
    }
}
