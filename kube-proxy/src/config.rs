//! Settings of the service proxy, checked once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use netlink::Cidr;

/// Where load balancers and people ask about the proxy's health, as upstream.
const HEALTHZ_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10256);

/// Settings of [`crate::run`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of this installation; the table carries it.
    pub instance: String,
    /// Name of this node's object: endpoints on it are local.
    pub node_name: String,
    /// Address of this node.
    pub node_ip: Ipv4Addr,
    /// Addresses of all pods. Who else asks for a cluster address is answered by way of this node. `None`: nobody is.
    pub cluster_cidr: Option<Cidr>,
    /// Addresses of the services. What is asked for there and is not a service is refused. `None`: such packets are left alone.
    pub service_cidr: Option<Cidr>,
    /// Where node ports answer. Empty: on all addresses of this machine, 127.0.0.1 included.
    pub node_port_addresses: Vec<Cidr>,
    /// Where `/healthz` and `/livez` answer. `None`: nowhere.
    pub healthz_address: Option<SocketAddr>,
    /// Changes that come within this time are carried out together.
    pub coalesce: Duration,
}

impl Config {
    /// The usual settings.
    #[must_use]
    pub fn new(instance: &str, node_name: &str, node_ip: Ipv4Addr) -> Self {
        Self {
            instance: instance.to_owned(),
            node_name: node_name.to_owned(),
            node_ip,
            cluster_cidr: None,
            service_cidr: None,
            node_port_addresses: Vec::new(),
            healthz_address: Some(HEALTHZ_ADDRESS),
            coalesce: Duration::from_millis(10),
        }
    }

    /// Name of the table of an instance.
    #[must_use]
    pub fn table_name(instance: &str) -> String {
        format!("{instance}-proxy")
    }
}
