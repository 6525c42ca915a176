//! Settings of the node's network, checked once.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use netlink::Cidr;
use serde::{Deserialize, Serialize};

/// Bytes that VXLAN puts around a packet.
pub(crate) const VXLAN_OVERHEAD: u32 = 50;

/// How packets reach the pods of another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A route where the other node is on the same segment, VXLAN where it is not.
    #[default]
    Auto,
    /// Always a route; nodes that are not on the segment are reached by whatever routes the network itself has.
    Routes,
    /// Always VXLAN.
    Vxlan,
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "routes" => Ok(Self::Routes),
            "vxlan" => Ok(Self::Vxlan),
            other => Err(format!("network mode {other:?} is not one of auto, routes, vxlan")),
        }
    }
}

/// Settings of [`crate::NodeNetwork`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of this installation; every device, table and file that is made carries it.
    pub instance: String,
    /// Name of this node's object.
    pub node_name: String,
    /// Address of this node on the network that the nodes share.
    pub node_ip: Ipv4Addr,
    /// Directory of the instance; files go to `network/` in it.
    pub data_dir: PathBuf,
    /// Addresses of all pods of the cluster.
    pub cluster_cidr: Cidr,
    /// Addresses of the services, so that a host without a default route can reach them too.
    pub service_cidr: Option<Cidr>,
    /// This node's part of the pod addresses. `None`: what the cluster assigns to the node's object.
    pub pod_cidr: Option<Cidr>,
    /// How packets reach other nodes.
    pub mode: Mode,
    /// MTU of the pods' devices. `None`: that of the node's device, less what VXLAN takes if that may be used.
    pub mtu: Option<u32>,
    /// Whether pods talk to the world outside the cluster with the node's address.
    pub masquerade: bool,
    /// VXLAN network identifier, the same on all nodes.
    pub vxlan_id: u32,
    /// VXLAN port, the same on all nodes.
    pub vxlan_port: u16,
}

impl Config {
    /// The usual settings.
    #[must_use]
    pub fn new(
        instance: &str,
        node_name: &str,
        node_ip: Ipv4Addr,
        data_dir: PathBuf,
        cluster_cidr: Cidr,
    ) -> Self {
        Self {
            instance: instance.to_owned(),
            node_name: node_name.to_owned(),
            node_ip,
            data_dir,
            cluster_cidr,
            service_cidr: None,
            pod_cidr: None,
            mode: Mode::Auto,
            mtu: None,
            masquerade: true,
            vxlan_id: 4196,
            vxlan_port: 8472,
        }
    }

    /// Where the network keeps its files.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.data_dir.join("network")
    }
}
