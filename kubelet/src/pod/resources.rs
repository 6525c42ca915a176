//! Requests and limits as the kernel's numbers, as upstream computes them.

use std::collections::HashMap;

use k8s_cri::v1::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::spec::{PodExt, QosClass, amount};
use crate::quantity;

const SHARES_PER_CPU: i64 = 1024;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
const QUOTA_PERIOD_US: i64 = 100_000;
const QUOTA_MIN_US: i64 = 1000;
/// From here up a priority means that the node needs the pod.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// CPU shares for so many thousandths of a core.
pub fn cpu_shares(millis: i64) -> i64 {
    if millis <= 0 {
        SHARES_MIN
    } else {
        (millis.saturating_mul(SHARES_PER_CPU) / 1000).clamp(SHARES_MIN, SHARES_MAX)
    }
}

/// Microseconds of CPU per period, for a limit.
pub fn cpu_quota(millis: i64) -> i64 {
    if millis <= 0 { 0 } else { (millis.saturating_mul(QUOTA_PERIOD_US) / 1000).max(QUOTA_MIN_US) }
}

fn value(
    resources: Option<&ResourceRequirements>,
    limit: bool,
    name: &str,
    read: fn(&k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> i64,
) -> Option<i64> {
    amount(resources, limit, name).map(read)
}

/// One container's limits.
pub fn of_container(
    pod: &Pod,
    container: &Container,
    node_memory_bytes: i64,
    cgroup_v2: bool,
) -> LinuxContainerResources {
    let resources = container.resources.as_ref();
    let cpu_limit = value(resources, true, "cpu", quantity::millis).unwrap_or(0);
    let cpu_request = value(resources, false, "cpu", quantity::millis).unwrap_or(cpu_limit);
    let mut unified = HashMap::new();
    if cgroup_v2 {
        unified.insert("memory.oom.group".to_string(), "1".to_string());
    }
    LinuxContainerResources {
        cpu_period: QUOTA_PERIOD_US,
        cpu_quota: cpu_quota(cpu_limit),
        cpu_shares: cpu_shares(cpu_request),
        memory_limit_in_bytes: value(resources, true, "memory", quantity::units).unwrap_or(0),
        oom_score_adj: oom_score_adj(pod, container, node_memory_bytes),
        unified,
        ..LinuxContainerResources::default()
    }
}

/// Whom the kernel ends first when the node has no memory left: the lower, the later.
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: i64) -> i64 {
    if pod.spec().priority.is_some_and(|priority| priority >= CRITICAL_PRIORITY) {
        return -997;
    }
    match pod.qos_class() {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = value(container.resources.as_ref(), false, "memory", quantity::units).unwrap_or(0);
            let share = i128::from(request) * 1000 / i128::from(node_memory_bytes.max(1));
            let adjusted = 1000 - i64::try_from(share).unwrap_or(1000);
            // Never as safe as a guaranteed pod, never as lost as one that asks for nothing.
            adjusted.clamp(3, 999)
        }
    }
}

/// A pod's own limits, for its cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PodLimits {
    /// CPU shares.
    pub cpu_shares: i64,
    /// Microseconds of CPU per period; None: no limit.
    pub cpu_quota_us: Option<i64>,
    /// The period of that.
    pub cpu_period_us: i64,
    /// Bytes; None: no limit.
    pub memory_bytes: Option<i64>,
}

impl PodLimits {
    /// Limits that are in the way of neither these nor the others.
    pub fn most(&self, other: &Self) -> Self {
        let most = |own: Option<i64>, other: Option<i64>| own.zip(other).map(|(own, other)| own.max(other));
        Self {
            cpu_shares: self.cpu_shares.max(other.cpu_shares),
            cpu_quota_us: most(self.cpu_quota_us, other.cpu_quota_us),
            cpu_period_us: self.cpu_period_us,
            memory_bytes: most(self.memory_bytes, other.memory_bytes),
        }
    }
}

/// What a pod asks for or may take of one resource, with its init containers and overhead, as the scheduler counts it. None
/// when a container sets none (which matters for limits: one unlimited container makes the pod unlimited).
pub fn pod_total(pod: &Pod, limit: bool, name: &str) -> (i64, bool) {
    let read = if name == "cpu" { quantity::millis } else { quantity::units };
    if let Some(set) = value(pod.spec().resources.as_ref(), limit, name, read) {
        return (set, true);
    }
    let mut all_set = true;
    let mut of = |container: &Container| {
        let set = value(container.resources.as_ref(), limit, name, read);
        all_set &= set.is_some_and(|n| n > 0);
        set.unwrap_or(0)
    };
    let mains: i64 = pod.spec().containers.iter().map(&mut of).sum();
    let (mut sidecars, mut peak) = (0_i64, 0_i64);
    for container in pod.init_containers() {
        let own = of(container);
        if super::spec::is_sidecar(container) {
            sidecars += own;
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + own);
        }
    }
    let overhead = pod.spec().overhead.as_ref().and_then(|overhead| overhead.get(name)).map_or(0, read);
    (peak.max(mains + sidecars) + overhead, all_set)
}

/// The limits of a pod's cgroup.
pub fn of_pod(pod: &Pod) -> PodLimits {
    let (cpu_request, _) = pod_total(pod, false, "cpu");
    let (cpu_limit, cpu_limited) = pod_total(pod, true, "cpu");
    let (memory_limit, memory_limited) = pod_total(pod, true, "memory");
    PodLimits {
        cpu_shares: cpu_shares(cpu_request),
        cpu_quota_us: cpu_limited.then(|| cpu_quota(cpu_limit)),
        cpu_period_us: QUOTA_PERIOD_US,
        memory_bytes: memory_limited.then_some(memory_limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_becomes_shares_and_quota_within_the_kernels_bounds() {
        assert_eq!(cpu_shares(0), 2);
        assert_eq!(cpu_shares(1), 2);
        assert_eq!(cpu_shares(250), 256);
        assert_eq!(cpu_shares(2000), 2048);
        assert_eq!(cpu_quota(500), 50_000);
        assert_eq!(cpu_quota(1), 1000);
    }

    #[test]
    fn one_unlimited_container_leaves_the_pod_unlimited() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {"containers": [
            {"name": "a", "resources": {"limits": {"memory": "64Mi", "cpu": "100m"}, "requests": {"cpu": "100m"}}},
            {"name": "b", "resources": {"limits": {"cpu": "100m"}, "requests": {"cpu": "100m"}}},
        ]}}))
        .unwrap();
        let limits = of_pod(&pod);
        assert_eq!(limits.memory_bytes, None);
        assert_eq!(limits.cpu_quota_us, Some(20_000));
        assert_eq!(limits.cpu_shares, 204);
    }
}
