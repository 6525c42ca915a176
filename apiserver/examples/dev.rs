//! The API server alone, over the embedded store, for working on the parts that talk to it:
//! `cargo run -p apiserver --example dev -- [DATA-DIR [PORT [SERVICE-RANGES]]]`. Prints the path of an admin kubeconfig.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use apiserver::{Config, Identity, Server, ServiceAccountKeys, ServiceRange};
use pki::{CertificateAndKey, ClusterPki, Kubeconfig, ServerNames, User};
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use tokio_util::sync::CancellationToken;

fn identity(pair: &CertificateAndKey) -> Identity {
    Identity {
        certificate_pem: pair.certificate_pem.clone().into_bytes(),
        key_pem: pair.key_pem.clone().into_bytes(),
    }
}

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
    let ca = cluster.authority.certificate_pem().to_string();
    let server_url = format!("https://127.0.0.1:{port}");
    let kubeconfig = directory.join("admin.kubeconfig");
    let user = User::Certificate(&cluster.admin);
    Kubeconfig { server: &server_url, authority_pem: &ca, user_name: "kubernetes-admin", user }
        .write(&kubeconfig)?;
    let config = Config {
        bind_address: SocketAddr::new(loopback, port),
        advertise_address: loopback,
        serving: identity(&cluster.apiserver),
        client_ca_pem: ca.clone().into_bytes(),
        agent_client: identity(&cluster.apiserver_client),
        agent_ca_pem: ca.clone().into_bytes(),
        root_ca_pem: ca.into_bytes(),
        service_account: ServiceAccountKeys {
            issuer: "https://kubernetes.default.svc.cluster.local".to_string(),
            signing_key_pem: cluster.service_account_key_pem.clone().into_bytes(),
            verification_keys_pem: Vec::new(),
        },
        service_range,
        node_ports: 30000..=32767,
        cluster_domain: "cluster.local".to_string(),
        drain_seconds: 5,
        security: Default::default(),
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
