//! The parts of a node: pod network, container runtime, agent, service proxy and cluster DNS.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use client::Informers;
use network::{Cidr, NodeNetwork};
use pki::CertificateAndKey;

use crate::embedded_runtime::{self, Archives};
use crate::roles::Parts;
use crate::settings::{CLUSTER_DOMAIN, KUBERNETES_VERSION, Settings};

/// The name by which this binary is the network's plugin for other runtimes.
const CNI_PLUGIN: &str = "gantry-cni";

/// How a node's parts reach the API server, all as the node, and whom they believe.
pub struct NodeAccess {
    /// Acts as the node.
    pub client: kube::Client,
    /// Signs the clients that the agent API believes.
    pub authority_pem: String,
    /// What the agent API shows.
    pub serving_pair: CertificateAndKey,
}

/// Starts everything that a node runs.
pub async fn start(settings: &Settings, access: NodeAccess, parts: &mut Parts) -> anyhow::Result<()> {
    let informers = start_kubelet(settings, &access, parts).await?;
    start_proxy(settings, informers.clone(), parts)?;
    let mut dns = network::dns::Config::new(&settings.instance, CLUSTER_DOMAIN, settings.dns_address());
    dns.cluster_networks = vec![cidr(&settings.pod_cidr)?, cidr(&settings.service_cidr)?];
    let shutdown = parts.shutdown();
    parts.start("cluster DNS", async move { network::dns::run_with(dns, &informers, shutdown).await });
    Ok(())
}

/// Starts the agent with the pod network and, unless another is named, the container runtime below it. What it watches,
/// other parts of the node can share.
pub async fn start_kubelet(
    settings: &Settings,
    access: &NodeAccess,
    parts: &mut Parts,
) -> anyhow::Result<Informers> {
    let informers = Informers::new(access.client.clone(), parts.shutdown());
    let ip = node_ipv4(settings)?;
    let pods = cidr(&settings.pod_cidr)?;
    let services = cidr(&settings.service_cidr)?;
    let mut config =
        network::Config::new(&settings.instance, &settings.node_name, ip, settings.data_dir.clone(), pods);
    config.service_cidr = Some(services);
    let network = NodeNetwork::start_with(config, &informers, parts.shutdown())
        .await
        .context("cannot set up the pod network")?;
    let endpoint = match &settings.runtime_endpoint {
        Some(endpoint) => {
            install_cni_plugin(settings)?;
            endpoint.clone()
        }
        None => embedded_runtime::endpoint(settings)?,
    };
    let mut kubelet = kubelet_config(settings, access, endpoint)?;
    if settings.runtime_endpoint.is_none() {
        let runtime = Arc::new(embedded_runtime::start(settings, network, parts.shutdown()).await?);
        kubelet.image_loader = Some(Arc::new(Archives(runtime)));
    } else {
        let scratch = settings.data_dir.join("scratch");
        kubelet.image_loader =
            Some(Arc::new(kubelet::ContainerdLoader::new(&kubelet.runtime_endpoint, scratch)));
    }
    let (shared, shutdown) = (informers.clone(), parts.shutdown());
    parts.start("kubelet", async move { kubelet::run_with(kubelet, &shared, shutdown).await });
    Ok(informers)
}

/// Starts the service proxy.
pub fn start_proxy(settings: &Settings, informers: Informers, parts: &mut Parts) -> anyhow::Result<()> {
    let mut proxy = kube_proxy::Config::new(&settings.instance, &settings.node_name, node_ipv4(settings)?);
    proxy.cluster_cidr = Some(cidr(&settings.pod_cidr)?);
    proxy.service_cidr = Some(cidr(&settings.service_cidr)?);
    let shutdown = parts.shutdown();
    parts.start("kube-proxy", async move { kube_proxy::run_with(proxy, &informers, shutdown).await });
    Ok(())
}

fn kubelet_config(
    settings: &Settings,
    access: &NodeAccess,
    endpoint: String,
) -> anyhow::Result<kubelet::Config> {
    let pair = &access.serving_pair;
    let certificate = kubelet::ServingCertificate::new(&pair.certificate_pem, &pair.key_pem)
        .context("cannot use the agent's serving certificate")?;
    let mut config = kubelet::Config::new(
        &settings.node_name,
        settings.node_ip,
        endpoint,
        kubelet_dir(settings),
        Arc::new(certificate),
        &access.authority_pem,
    );
    config.pod_log_dir = pod_log_dir(settings);
    config.cluster_dns = vec![IpAddr::V4(settings.dns_address())];
    config.cluster_domain = CLUSTER_DOMAIN.to_string();
    config.cgroup_root = cgroup_root(settings);
    config.serving.address = settings.agent_address;
    if let Some(thresholds) = settings.eviction_hard {
        config.eviction.thresholds = thresholds;
    }
    config.version = KUBERNETES_VERSION.to_string();
    Ok(config)
}

/// Lets a runtime of another make connect its pods to our network: this binary, under the name of the plugin that it
/// then is, and the configuration that names it.
fn install_cni_plugin(settings: &Settings) -> anyhow::Result<()> {
    let directory = &settings.cni_bin_dir;
    std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    install_plugin(&directory.join(CNI_PLUGIN))?;
    // containerd asks for this one too; where the distribution's is installed, it stays.
    let loopback = directory.join(network::LOOPBACK);
    if !loopback.exists() {
        install_plugin(&loopback)?;
    }
    network::write_conflist(&settings.cni_conf_dir, &settings.instance, &settings.data_dir, CNI_PLUGIN)
        .context("cannot write the network configuration of the runtime")?;
    Ok(())
}

fn install_plugin(path: &Path) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot tell where the gantry binary is")?;
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    std::os::unix::fs::symlink(program, &temporary)
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("cannot install the network plugin {}", path.display()))
}

/// Where container logs are.
pub fn pod_log_dir(settings: &Settings) -> PathBuf {
    settings.data_dir.join("log/pods")
}

/// Ends every pod of this instance and takes away what it had: processes, mounts, namespaces, control groups.
pub fn destroy_pods(settings: &Settings) -> anyhow::Result<()> {
    if settings.runtime_endpoint.is_none() {
        let workers = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        workers.block_on(embedded_runtime::destroy_pods(settings))?;
    }
    kubelet::destroy(&kubelet_dir(settings), &cgroup_root(settings))?;
    // The pods are gone, and so is their claim to addresses.
    match std::fs::remove_dir_all(settings.data_dir.join("network/leases")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("cannot remove the address leases")
        }
        _ => Ok(()),
    }
}

fn kubelet_dir(settings: &Settings) -> PathBuf {
    settings.data_dir.join("kubelet")
}

fn cgroup_root(settings: &Settings) -> String {
    format!("/{}", settings.instance)
}

fn node_ipv4(settings: &Settings) -> anyhow::Result<Ipv4Addr> {
    match settings.node_ip {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => {
            bail!("--node-ip {address}: IPv6 nodes are not supported yet; give an IPv4 address")
        }
    }
}

fn cidr(range: &crate::settings::Ipv4Range) -> anyhow::Result<Cidr> {
    range.to_string().parse().map_err(|error| anyhow::anyhow!("{range}: {error}"))
}
