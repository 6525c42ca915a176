//! The network parts of a node alone, against a running API server: pod network, service proxy, DNS. For development.
//!
//!     cargo run -p kube-proxy --example node_network -- KUBECONFIG NODE-NAME NODE-IP DATA-DIR
//!
//! Ends with ctrl-c and takes everything off the host again.

use std::net::Ipv4Addr;

use client::Informers;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kubeconfig, name, ip, directory] = arguments.as_slice() else {
        return Err("usage: node_network KUBECONFIG NODE-NAME NODE-IP DATA-DIR".into());
    };
    let ip: Ipv4Addr = ip.parse()?;
    let config = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    let stop = CancellationToken::new();
    let informers = Informers::new(kube::Client::try_from(config)?, stop.clone());
    let (pods, services) = ("10.244.0.0/16".parse()?, "10.96.0.0/16".parse()?);
    let mut config = network::Config::new("gtdev", name, ip, directory.into(), pods);
    config.service_cidr = Some(services);
    let network = network::NodeNetwork::start_with(config, &informers, stop.clone()).await?;
    let mut config = kube_proxy::Config::new("gtdev", name, ip);
    config.cluster_cidr = Some(pods);
    config.service_cidr = Some(services);
    let dns = network::dns::Config::new("gtdev", "cluster.local", [10, 96, 0, 10].into());
    let result = tokio::select! {
        result = kube_proxy::run_with(config, &informers, stop.clone()) => result.map_err(Into::into),
        result = network::dns::run_with(dns, &informers, stop.clone()) => result.map_err(Into::into),
        () = async { network.wait_ready().await; println!("ready: {:?}", network.state()); std::future::pending().await } => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    stop.cancel();
    network::cleanup("gtdev")?;
    kube_proxy::cleanup("gtdev")?;
    result
}
