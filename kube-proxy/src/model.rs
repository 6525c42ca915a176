//! What the proxy knows about services, in the terms that it works with.

use std::net::Ipv4Addr;

use netlink::Cidr;

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
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

    /// From the API's word for it; nothing means TCP.
    #[must_use]
    pub fn parse(word: Option<&str>) -> Option<Self> {
        match word {
            None | Some("TCP" | "") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// Where packets are sent in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The address,
    pub address: Ipv4Addr,
    /// and the port.
    pub port: u16,
}

/// An endpoint of a service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub target: Target,
    /// It wants new connections.
    pub ready: bool,
    /// It answers, though perhaps it is about to end.
    pub serving: bool,
    /// It is about to end.
    pub terminating: bool,
    /// It is on this node.
    pub local: bool,
    /// Zones that it should be used from; empty: no hint.
    pub zones: Vec<String>,
    /// Nodes that it should be used from; empty: no hint.
    pub nodes: Vec<String>,
}

/// One port of a service with everything that leads to it and everything it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Namespace, name and port, for people.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The port on the cluster address and the external ones.
    pub port: u16,
    /// Addresses inside the cluster.
    pub cluster_ips: Vec<Ipv4Addr>,
    /// Addresses that somebody routes to the nodes.
    pub external_ips: Vec<Ipv4Addr>,
    /// Addresses of load balancers that pass packets on as they are.
    pub balancer_ips: Vec<Ipv4Addr>,
    /// Who may ask at the load balancers' addresses; empty: everybody.
    pub source_ranges: Vec<Cidr>,
    /// The port on every node.
    pub node_port: Option<u16>,
    /// For so many seconds a client stays with its endpoint.
    pub affinity_seconds: Option<u32>,
    /// Connections from outside go to endpoints on this node only, and are seen with their own source address.
    pub external_local: bool,
    /// Connections from inside go to endpoints on this node only.
    pub internal_local: bool,
    /// All endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// Where this node is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Location {
    /// Its name.
    pub node: String,
    /// Its zone, when it has one.
    pub zone: Option<String>,
}
