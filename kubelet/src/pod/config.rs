//! What the runtime is told to make: sandboxes and containers, labelled as upstream labels them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, Mount, MountPropagation, PodSandboxConfig,
    PodSandboxMetadata, PortMapping, Protocol,
};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::env::expand;
use super::names::{self, ResolvConf};
use super::spec::{PodExt, container_hash};
use super::{resources, security};
use crate::config::Config;
use crate::cri::labels;
use crate::quantity;

/// The directory of a pod's logs.
pub fn log_dir(config: &Config, pod: &Pod) -> PathBuf {
    config.pod_log_dir.join(format!("{}_{}_{}", pod.namespace(), pod.name(), pod.uid()))
}

/// Where seccomp profiles lie on the node.
pub fn seccomp_root(config: &Config) -> String {
    config.root_dir.join("seccomp").display().to_string()
}

/// A pod's sandbox.
pub fn sandbox(
    config: &Config,
    pod: &Pod,
    attempt: u32,
    cgroup_parent: String,
    node_resolv: &ResolvConf,
) -> PodSandboxConfig {
    let host_network = pod.host_network();
    let hostname = if host_network { String::new() } else { names::hostname(pod, &config.cluster_domain).0 };
    let mut pod_labels: HashMap<String, String> =
        pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    pod_labels.extend(own_labels(pod));
    let sysctls = pod.spec().security_context.as_ref().and_then(|context| context.sysctls.clone());
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.name().to_string(),
            uid: pod.uid().to_string(),
            namespace: pod.namespace().to_string(),
            attempt,
        }),
        hostname,
        log_directory: log_dir(config, pod).display().to_string(),
        dns_config: Some(names::dns(pod, &config.cluster_dns, &config.cluster_domain, node_resolv)),
        port_mappings: if host_network { Vec::new() } else { port_mappings(pod) },
        labels: pod_labels,
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent,
            security_context: Some(security::of_sandbox(pod, &seccomp_root(config))),
            sysctls: sysctls.unwrap_or_default().into_iter().map(|s| (s.name, s.value)).collect(),
            overhead: pod.spec().overhead.as_ref().map(overhead),
            resources: Some(pod_resources(pod)),
        }),
        windows: None,
    }
}

fn own_labels(pod: &Pod) -> [(String, String); 3] {
    [
        (labels::POD_NAME.to_string(), pod.name().to_string()),
        (labels::POD_NAMESPACE.to_string(), pod.namespace().to_string()),
        (labels::POD_UID.to_string(), pod.uid().to_string()),
    ]
}

fn overhead(
    amounts: &std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
) -> LinuxContainerResources {
    let read = |name: &str, read: fn(&_) -> i64| amounts.get(name).map_or(0, read);
    LinuxContainerResources {
        cpu_shares: resources::cpu_shares(read("cpu", quantity::millis)),
        memory_limit_in_bytes: read("memory", quantity::units),
        ..LinuxContainerResources::default()
    }
}

fn pod_resources(pod: &Pod) -> LinuxContainerResources {
    let limits = resources::of_pod(pod);
    LinuxContainerResources {
        cpu_shares: limits.cpu_shares,
        cpu_period: limits.cpu_period_us,
        cpu_quota: limits.cpu_quota_us.unwrap_or(0),
        memory_limit_in_bytes: limits.memory_bytes.unwrap_or(0),
        ..LinuxContainerResources::default()
    }
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let ports = pod.all_containers().flat_map(|container| container.ports.iter().flatten());
    ports
        .filter(|port| port.host_port.is_some_and(|port| port > 0))
        .map(|port| PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            } as i32,
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

/// What a container is made from, beside its spec.
pub struct Parts {
    /// How often it was started before.
    pub restart_count: u32,
    /// The image on the node.
    pub image_id: String,
    /// Its environment.
    pub env: Vec<KeyValue>,
    /// Its mounts, without the agent's own.
    pub mounts: Vec<Mount>,
    /// Its limits.
    pub resources: LinuxContainerResources,
    /// Its security context.
    pub security: LinuxContainerSecurityContext,
    /// The pod's hosts file; None when a mount of the pod's is in its place.
    pub hosts_file: Option<PathBuf>,
    /// The file for its last words.
    pub message_file: PathBuf,
}

/// A container.
pub fn container(pod: &Pod, container: &Container, parts: Parts) -> ContainerConfig {
    let value = |name: &str| parts.env.iter().find(|kv| kv.key == name).map(|kv| kv.value.clone());
    let words = |list: &Option<Vec<String>>| {
        list.iter().flatten().map(|word| expand(word, value)).collect::<Vec<String>>()
    };
    let message_path = message_path(container);
    let mut mounts = parts.mounts;
    mounts.extend(parts.hosts_file.as_deref().map(|file| own_mount("/etc/hosts", file)));
    mounts.push(own_mount(&message_path, &parts.message_file));
    let mut all_labels: HashMap<String, String> = own_labels(pod).into();
    all_labels.insert(labels::CONTAINER_NAME.to_string(), container.name.clone());
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: parts.restart_count }),
        image: Some(ImageSpec {
            image: parts.image_id,
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..ImageSpec::default()
        }),
        command: words(&container.command),
        args: words(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        labels: all_labels,
        annotations: annotations(pod, container, parts.restart_count, &message_path),
        log_path: format!("{}/{}.log", container.name, parts.restart_count),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(LinuxContainerConfig {
            resources: Some(parts.resources),
            security_context: Some(parts.security),
        }),
        envs: parts.env,
        mounts,
        ..ContainerConfig::default()
    }
}

/// Where a container leaves its last words.
pub fn message_path(container: &Container) -> String {
    let path = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
    path.unwrap_or("/dev/termination-log").to_string()
}

fn own_mount(container_path: &str, host_path: &Path) -> Mount {
    Mount {
        container_path: container_path.to_string(),
        host_path: host_path.display().to_string(),
        propagation: MountPropagation::PropagationPrivate as i32,
        ..Mount::default()
    }
}

fn annotations(
    pod: &Pod,
    container: &Container,
    restart_count: u32,
    message_path: &str,
) -> HashMap<String, String> {
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let grace = pod.spec().termination_grace_period_seconds.unwrap_or(30);
    let mut all: HashMap<String, String> = [
        (labels::HASH, container_hash(container)),
        (labels::RESTART_COUNT, restart_count.to_string()),
        (labels::TERMINATION_MESSAGE_PATH, message_path.to_string()),
        (labels::TERMINATION_MESSAGE_POLICY, policy.to_string()),
        (labels::TERMINATION_GRACE_PERIOD, grace.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_string(), value))
    .collect();
    // A pod whose object is gone still has its hook run by an agent that finds its containers.
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let Some(hook) = hook.and_then(|hook| serde_json::to_string(hook).ok()) {
        all.insert(labels::PRE_STOP.to_string(), hook);
    }
    all
}
