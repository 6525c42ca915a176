//! The API server alone, over the embedded store, for working on the parts that talk to it:
//! `cargo run -p apiserver --example dev -- [DATA-DIR [PORT [SERVICE-RANGES]]]`. Prints the path of an admin kubeconfig.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use apiserver::{Config, Server, ServiceRange};
use pki::{ClusterPki, Kubeconfig, ServerNames, User};
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).init();
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap_or_else(|| "/tmp/gantry-dev".to_string()));
    let port: u16 = arguments.next().unwrap_or_else(|| "16443".to_string()).parse().context("the port")?;
    std::fs::create_dir_all(&directory)?;
    let service_range = ServiceRange::parse(&arguments.next().unwrap_or_else(|| "10.96.0.0/16".to_string()))?;
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let names = ServerNames { addresses: vec![loopback, service_range.address(1)], ..Default::default() };
    let cluster = ClusterPki::ensure(&directory.join("pki"), &names, jiff::Timestamp::now())?;
    let server_url = format!("https://127.0.0.1:{port}");
    let kubeconfig = directory.join("admin.kubeconfig");
    let user = User::Certificate(&cluster.admin);
    Kubeconfig {
        server: &server_url,
        authority_pem: cluster.authority.certificate_pem(),
        user_name: "kubernetes-admin",
        user,
    }
    .write(&kubeconfig)?;
    let config = Config {
        bind_address: SocketAddr::new(loopback, port),
        advertise_address: loopback,
        service_range,
        node_ports: 30000..=32767,
        ..testbed::server_config(&cluster)
    };
    let store = EmbeddedStore::open(EmbeddedOptions::new(directory.join("store")))?;
    let server = Server::build(config, Arc::new(store)).await?;
    let listener = server.bind().await?;
    println!("export KUBECONFIG={}", kubeconfig.display());
    let shutdown = CancellationToken::new();
    let on_signal = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_signal.cancel();
        }
    });
    server.serve(listener, shutdown).await?;
    Ok(())
}
