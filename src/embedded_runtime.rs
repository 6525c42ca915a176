//! The embedded runtime between the pod network and the agent; the three crates do not know each other.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use kubelet::{Archive, ImageLoader, LoadError};
use network::{AttachRequest, NodeNetwork};
use runtime::network::{self as pods, LoopbackOnly, NetworkError, PodAttachment, PodNetwork};
use runtime::{Registry, Runtime};
use tokio_util::io::SyncIoBridge;
use tokio_util::sync::CancellationToken;

use crate::settings::Settings;

/// Starts the runtime on a network.
pub async fn start(
    settings: &Settings,
    network: NodeNetwork,
    shutdown: CancellationToken,
) -> anyhow::Result<Runtime> {
    let config = config(settings)?;
    Runtime::start(config, Arc::new(RoutedPods(network)), shutdown)
        .await
        .context("cannot start the container runtime")
}

/// Ends every pod of this instance. What the network made is taken away by the network's own clean-up.
pub async fn destroy_pods(settings: &Settings) -> anyhow::Result<()> {
    Ok(Runtime::destroy(config(settings)?, Arc::new(LoopbackOnly)).await?)
}

/// The runtime's socket, as the agent is told it.
pub fn endpoint(settings: &Settings) -> anyhow::Result<String> {
    Ok(format!("unix://{}", config(settings)?.socket.display()))
}

fn config(settings: &Settings) -> anyhow::Result<runtime::Config> {
    let mut config = runtime::Config::new(&settings.data_dir, &settings.instance)
        .context("cannot tell where the gantry binary is")?;
    for host in &settings.insecure_registries {
        config.registries.hosts.insert(host.clone(), Registry { plain_http: true, ..Registry::default() });
    }
    Ok(config)
}

/// Gives the agent's archives to the runtime.
pub struct Archives(pub Arc<Runtime>);

#[async_trait]
impl ImageLoader for Archives {
    async fn load(&self, archive: Archive) -> Result<Vec<String>, LoadError> {
        self.0.load(SyncIoBridge::new(archive)).await.map_err(|error| match error {
            runtime::Error::Image(malformed) => LoadError::Malformed(malformed.to_string()),
            other => LoadError::Store(other.to_string()),
        })
    }
}

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

fn port_mapping(mapping: &pods::PortMapping) -> network::PortMapping {
    network::PortMapping {
        host_port: mapping.host_port,
        container_port: mapping.container_port,
        protocol: match mapping.protocol {
            pods::Protocol::Tcp => network::Protocol::Tcp,
            pods::Protocol::Udp => network::Protocol::Udp,
            pods::Protocol::Sctp => network::Protocol::Sctp,
        },
        host_ip: match mapping.host_ip {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        },
    }
}
