//! What the runtime asks for and what it gets.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The number in the IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// A port of the host that leads to a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The port of the host.
    pub host_port: u16,
    /// The port of the pod.
    pub container_port: u16,
    /// The protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// Only on this address of the host. `None`: on all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<Ipv4Addr>,
}

/// A sandbox to connect.
#[derive(Debug, Clone)]
pub struct AttachRequest {
    /// The sandbox's id; asking again with the same one gives the same addresses.
    pub id: String,
    /// Its network namespace: a bind mount or `/proc/<pid>/ns/net`.
    pub namespace_path: PathBuf,
    /// Namespace of the pod.
    pub pod_namespace: String,
    /// Name of the pod.
    pub pod_name: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Ports of the host that lead to it.
    pub port_mappings: Vec<PortMapping>,
    /// Name of the device in the sandbox, usually `eth0`.
    pub interface: String,
}

impl AttachRequest {
    /// A request for a pod without host ports.
    #[must_use]
    pub fn new(id: &str, namespace_path: impl Into<PathBuf>, pod_namespace: &str, pod_name: &str) -> Self {
        Self {
            id: id.to_owned(),
            namespace_path: namespace_path.into(),
            pod_namespace: pod_namespace.to_owned(),
            pod_name: pod_name.to_owned(),
            pod_uid: String::new(),
            port_mappings: Vec::new(),
            interface: "eth0".to_owned(),
        }
    }
}

/// What a connected sandbox has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Its addresses, the primary one first. One per address family; today only IPv4.
    pub ips: Vec<IpAddr>,
    /// Hardware address of its device.
    pub mac: [u8; 6],
    /// The host's end of the device.
    pub host_device: String,
    /// MTU of the device.
    pub mtu: u32,
}
