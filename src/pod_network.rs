//! Lets the embedded runtime connect its pods to the node's network; the two crates do not know each other.

use std::net::IpAddr;

use async_trait::async_trait;
use network::{AttachRequest, NodeNetwork};
use runtime::{NetworkError, PodAttachment, PodNetwork};

/// The node's network as the runtime wants it.
pub struct RoutedPods(pub NodeNetwork);

#[async_trait]
impl PodNetwork for RoutedPods {
    async fn attach(&self, pod: &PodAttachment) -> Result<Vec<IpAddr>, NetworkError> {
        let mut request = AttachRequest::new(&pod.sandbox_id, &pod.netns, &pod.namespace, &pod.name);
        request.pod_uid = pod.uid.clone();
        request.port_mappings = pod.port_mappings.iter().map(port_mapping).collect();
        Ok(self.0.attach(request).await?.ips)
    }

    async fn detach(&self, pod: &PodAttachment) -> Result<(), NetworkError> {
        Ok(self.0.detach(&pod.sandbox_id).await?)
    }

    async fn ready(&self) -> Result<(), NetworkError> {
        if self.0.ready() { Ok(()) } else { Err("the node has no pod addresses yet".into()) }
    }
}

fn port_mapping(mapping: &runtime::PortMapping) -> network::PortMapping {
    network::PortMapping {
        host_port: mapping.host_port,
        container_port: mapping.container_port,
        protocol: match mapping.protocol {
            runtime::Protocol::Tcp => network::Protocol::Tcp,
            runtime::Protocol::Udp => network::Protocol::Udp,
            runtime::Protocol::Sctp => network::Protocol::Sctp,
        },
        host_ip: match mapping.host_ip {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        },
    }
}
