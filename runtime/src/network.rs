//! What the runtime asks of the pod network.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use async_trait::async_trait;

/// A pod that is to be connected. Everything needed to disconnect it again is in here too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAttachment {
    /// The sandbox; unique on the node for ever.
    pub sandbox_id: String,
    /// The pod's network namespace, as a path that stays valid until the pod has been disconnected.
    pub netns: PathBuf,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// Ports of the node that lead to the pod.
    pub port_mappings: Vec<PortMapping>,
    /// The pod's annotations: limits of bandwidth are asked for there.
    pub annotations: BTreeMap<String, String>,
}

/// A port of the node that leads to a port of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port of the node.
    pub host_port: u16,
    /// The port of the pod.
    pub container_port: u16,
    /// The address of the node, if only one is meant.
    pub host_ip: Option<IpAddr>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Why the network did not do it; the words go to the user.
pub type NetworkError = Box<dyn std::error::Error + Send + Sync>;

/// The network that pods are connected to.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Connects a pod; the loopback interface is up already. The first address is the pod's primary one.
    /// A failure leaves nothing behind that [`PodNetwork::detach`] does not remove.
    async fn attach(&self, pod: &PodAttachment) -> Result<Vec<IpAddr>, NetworkError>;

    /// Disconnects a pod. Called again after failures and restarts: what is gone already is no error, also when the
    /// namespace is gone.
    async fn detach(&self, pod: &PodAttachment) -> Result<(), NetworkError>;

    /// Whether pods can be connected; if not, why not.
    async fn ready(&self) -> Result<(), NetworkError>;
}

/// No network at all but loopback, for tests of the runtime alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopbackOnly;

#[async_trait]
impl PodNetwork for LoopbackOnly {
    async fn attach(&self, _: &PodAttachment) -> Result<Vec<IpAddr>, NetworkError> {
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    }

    async fn detach(&self, _: &PodAttachment) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn ready(&self) -> Result<(), NetworkError> {
        Ok(())
    }
}
