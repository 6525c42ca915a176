//! The node's own check of a pod that was bound to it: whether it fits. A pod that does not fails at once, with upstream's
//! reason.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::room::Room;
use super::spec::PodExt;
use super::status::Verdict;
use crate::agent_state::Agent;

/// Kernel settings that are the pod's own and harm nobody.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

fn rejected(reason: &str, message: String) -> Verdict {
    let message = format!("Pod was rejected: {message}");
    Verdict { reason: reason.to_string(), message, disruption: false, rejected: true }
}

/// Lets a pod in, or says why not.
pub fn admit(agent: &Agent, pod: &Pod) -> Result<(), Verdict> {
    let sysctls = pod.spec().security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    for sysctl in sysctls {
        if !SAFE_SYSCTLS.contains(&sysctl.name.as_str()) {
            let message = format!("forbidden sysctl: \"{}\" not allowlisted", sysctl.name);
            return Err(rejected("SysctlForbidden", message));
        }
    }
    // Not while a pod that runs is granted more.
    let _turn = agent.granting.lock();
    let others: Vec<Arc<Pod>> = agent
        .mailboxes()
        .into_iter()
        .map(|mailbox| mailbox.latest())
        .filter(|other| other.uid() != pod.uid() && !other.is_over() && came_before(other, pod))
        .collect();
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    let capacity = i64::from(agent.config.max_pods);
    check("pods", 1, count, capacity)?;
    let (requested, used) = (Room::asked_by(pod), others.iter().map(|other| Room::asked_by(other)).sum());
    if let Some((name, [requested, used, capacity])) = Room::of_node(agent).lacks(requested, used) {
        check(name, requested, used, capacity)?;
    }
    let taken: Vec<_> = others.iter().flat_map(|other| host_ports(other)).collect();
    if host_ports(pod).iter().any(|port| taken.iter().any(|other| conflict(port, other))) {
        let message =
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Err(rejected("NodePorts", message.to_string()));
    }
    Ok(())
}

/// Of two pods that do not fit together the one that is on the node already stays.
fn came_before(other: &Pod, pod: &Pod) -> bool {
    let running = other.status.as_ref().is_some_and(|status| status.start_time.is_some());
    running || other.metadata.creation_timestamp < pod.metadata.creation_timestamp
}

fn check(name: &str, requested: i64, used: i64, capacity: i64) -> Result<(), Verdict> {
    if used.saturating_add(requested) <= capacity {
        return Ok(());
    }
    Err(rejected(&format!("OutOf{name}"), lack(name, requested, used, capacity)))
}

/// Upstream's words.
pub fn lack(name: &str, requested: i64, used: i64, capacity: i64) -> String {
    format!(
        "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
    )
}

type HostPort = (String, String, i32);

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let ports = pod.all_containers().flat_map(|c| c.ports.iter().flatten());
    let wanted = ports.filter(|port| port.host_port.is_some_and(|port| port > 0));
    let wanted = wanted.map(|port| {
        let ip =
            port.host_ip.clone().filter(|ip| !ip.is_empty() && ip != "::").unwrap_or("0.0.0.0".to_string());
        (ip, port.protocol.clone().unwrap_or("TCP".to_string()), port.host_port.unwrap_or(0))
    });
    wanted.collect()
}

fn conflict(one: &HostPort, other: &HostPort) -> bool {
    let any = "0.0.0.0";
    one.1 == other.1 && one.2 == other.2 && (one.0 == other.0 || one.0 == any || other.0 == any)
}
