//! Room on the node: conditions when memory, disk or process ids run short, images that nobody uses go first, and then pods.
//!
//! One pod goes at a time, the one that uses most beyond what it asked for, the least important first; pods that the node
//! needs stay. Deliberately absent: soft thresholds, limits of single pods on local storage.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::EventType;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use crate::agent_state::{Agent, Pressure};
use crate::image::ImageCollector;
use crate::pod::{PodExt, Verdict, pod_total};
use crate::thresholds::Threshold;

/// From here up a priority means that the node needs the pod.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;
/// After an eviction, before the next: the figures take a while to follow.
const BETWEEN_EVICTIONS: Duration = Duration::from_secs(10);

/// What is free on the node.
#[derive(Clone, Copy, Debug)]
struct Free {
    memory: Share,
    disk: Share,
    inodes: Share,
    pids: Share,
}

/// How much is free, of a whole.
#[derive(Clone, Copy, Debug)]
struct Share {
    free: u64,
    whole: u64,
}

impl Share {
    /// For what the machine does not tell: it is not short of it.
    const UNKNOWN: Self = Self { free: u64::MAX, whole: 0 };

    fn is_under(self, threshold: Threshold) -> bool {
        self.free < threshold.of(self.whole)
    }
}

/// Keeps room until shutdown.
pub async fn keep_room(agent: Arc<Agent>, shutdown: CancellationToken) {
    let mut images = ImageCollector::new(agent.clone());
    let mut last = LastSeen::default();
    let mut evicted_at: Option<Instant> = None;
    let mut collected_at: Option<Instant> = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(agent.config.eviction.interval) => {}
        }
        let free = look(&agent.config.root_dir);
        let now = shortages(&agent, &free);
        agent.set_pressure(last.held(now, agent.config.eviction.transition));
        if now.disk || collected_at.is_none_or(|at| at.elapsed() >= agent.config.image_gc.interval) {
            collected_at = Some(Instant::now());
            images.collect(now.disk).await;
        }
        let rested = evicted_at.is_none_or(|at| at.elapsed() >= BETWEEN_EVICTIONS);
        if rested && (now.memory || (now.disk && shortages(&agent, &look(&agent.config.root_dir)).disk)) {
            evict_one(&agent, &free, now).await;
            evicted_at = Some(Instant::now());
        }
    }
}

/// Pressure is told for a while after it went, so that nothing moves back at once.
#[derive(Default)]
struct LastSeen {
    memory: Option<Instant>,
    disk: Option<Instant>,
    pids: Option<Instant>,
}

impl LastSeen {
    fn held(&mut self, now: Pressure, transition: Duration) -> Pressure {
        let hold = |last: &mut Option<Instant>, is: bool| {
            if is {
                *last = Some(Instant::now());
            }
            is || last.is_some_and(|at| at.elapsed() < transition)
        };
        Pressure {
            memory: hold(&mut self.memory, now.memory),
            disk: hold(&mut self.disk, now.disk),
            pids: hold(&mut self.pids, now.pids),
        }
    }
}

fn shortages(agent: &Agent, free: &Free) -> Pressure {
    let thresholds = &agent.config.eviction.thresholds;
    Pressure {
        memory: free.memory.is_under(thresholds.memory),
        disk: free.disk.is_under(thresholds.disk) || free.inodes.is_under(thresholds.inodes),
        pids: free.pids.is_under(thresholds.pids),
    }
}

fn look(root: &Path) -> Free {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let memory = match (kib("MemAvailable:"), kib("MemTotal:")) {
        (Some(free), Some(whole)) => Share { free: free * 1024, whole: whole * 1024 },
        _ => Share::UNKNOWN,
    };
    let (disk, inodes) = match nix::sys::statvfs::statvfs(root) {
        Ok(stat) => {
            let block = stat.fragment_size();
            let disk = Share { free: stat.blocks_available() * block, whole: stat.blocks() * block };
            // Some file systems make inodes as they need them, and count none.
            let inodes = Share { free: stat.files_free(), whole: stat.files() };
            (disk, inodes)
        }
        Err(_) => (Share::UNKNOWN, Share::UNKNOWN),
    };
    let number = |path: &str| std::fs::read_to_string(path).ok().and_then(|n| n.trim().parse::<u64>().ok());
    let threads = std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|line| line.split_whitespace().nth(3)?.split_once('/')?.1.parse::<u64>().ok());
    let pids = match (number("/proc/sys/kernel/pid_max"), threads) {
        (Some(most), Some(threads)) => Share { free: most.saturating_sub(threads), whole: most },
        _ => Share::UNKNOWN,
    };
    Free { memory, disk, inodes, pids }
}

async fn evict_one(agent: &Agent, free: &Free, now: Pressure) {
    let mut used: HashMap<String, (i64, i64)> = HashMap::new();
    match agent.cri.container_stats().await {
        Ok(stats) => {
            for usage in stats.into_iter().map(crate::agent::ContainerUsage::from) {
                let entry = used.entry(usage.uid).or_default();
                entry.0 += i64::try_from(usage.usage.working_set_bytes).unwrap_or(i64::MAX);
                entry.1 += i64::try_from(usage.layer_bytes).unwrap_or(i64::MAX);
            }
        }
        Err(error) => tracing::warn!(%error, "the runtime does not tell what pods use"),
    }
    let mut candidates: Vec<_> = agent
        .mailboxes()
        .into_iter()
        .filter(|mailbox| mailbox.grace_s().is_none())
        .map(|mailbox| (mailbox.latest(), mailbox))
        .filter(|(pod, _)| !pod.is_over() && pod.spec().priority.unwrap_or(0) < CRITICAL_PRIORITY)
        .collect();
    candidates.sort_by_key(|(pod, _)| rank(pod, &used, now.memory));
    let Some((pod, mailbox)) = candidates.pop() else { return };
    let thresholds = &agent.config.eviction.thresholds;
    let (what, threshold, available) = if now.memory {
        ("memory", thresholds.memory, free.memory.free)
    } else if free.disk.is_under(thresholds.disk) {
        ("ephemeral-storage", thresholds.disk, free.disk.free)
    } else {
        ("inodes", thresholds.inodes, free.inodes.free)
    };
    let available = if what == "inodes" { available.to_string() } else { format!("{}Ki", available / 1024) };
    let message = format!(
        "The node was low on resource: {what}. Threshold quantity: {threshold}, available: {available}. "
    );
    tracing::warn!(pod = pod.title(), what, "evicting a pod");
    agent.tell(&pod, None, EventType::Warning, "Evicted", message.clone());
    let verdict = Verdict { reason: "Evicted".to_string(), message, disruption: true, rejected: false };
    mailbox.condemn(verdict, 0);
}

/// Ascending, so that the last one goes first: those beyond what they asked for, the less important, the larger.
fn rank(pod: &Pod, used: &HashMap<String, (i64, i64)>, memory: bool) -> (bool, i64, i64) {
    let (memory_used, disk_used) = used.get(pod.uid()).copied().unwrap_or_default();
    let name = if memory { "memory" } else { "ephemeral-storage" };
    let used = if memory { memory_used } else { disk_used };
    let beyond = used - pod_total(pod, false, name).0;
    (beyond > 0, -i64::from(pod.spec().priority.unwrap_or(0)), beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, priority: i32, request: &str) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {"uid": uid}, "spec": {"priority": priority,
            "containers": [{"name": "a", "resources": {"requests": {"memory": request}}}]}}))
        .unwrap()
    }

    #[test]
    fn who_uses_more_than_it_asked_for_goes_before_the_important_and_the_modest() {
        let used = HashMap::from([
            ("greedy".to_string(), (300 << 20, 0)),
            ("important".to_string(), (900 << 20, 0)),
            ("modest".to_string(), (500 << 20, 0)),
        ]);
        let mut pods = [pod("modest", 0, "1Gi"), pod("greedy", 0, "100Mi"), pod("important", 1000, "100Mi")];
        pods.sort_by_key(|pod| rank(pod, &used, true));
        let order: Vec<_> = pods.iter().rev().map(|pod| pod.uid().to_string()).collect();
        assert_eq!(order, ["greedy", "important", "modest"]);
    }
}
