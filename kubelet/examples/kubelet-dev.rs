//! The agent alone, for working on it:
//! `cargo run -p kubelet --example kubelet-dev -- KUBECONFIG PKI-DIR RUNTIME-SOCKET DATA-DIR NODE-NAME [PORT]`.
//! The node's certificates are signed with the authority in PKI-DIR, so that it speaks to the API server as a node does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use kubelet::{Config, ServingCertificate};
use pki::{Authority, Kubeconfig, Leaf, Usage, User};
use tokio_util::sync::CancellationToken;

type AnyError = Box<dyn std::error::Error>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), AnyError> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kubeconfig, pki_dir, runtime, data_dir, node, rest @ ..] = arguments.as_slice() else {
        return Err("arguments: KUBECONFIG PKI-DIR RUNTIME-SOCKET DATA-DIR NODE-NAME [PORT]".into());
    };
    let port: u16 = rest.first().map_or(Ok(10250), |port| port.parse())?;
    let data_dir = PathBuf::from(data_dir);
    std::fs::create_dir_all(&data_dir)?;
    let now = jiff::Timestamp::now();
    let pki_dir = PathBuf::from(pki_dir);
    let read = |name: &str| std::fs::read_to_string(pki_dir.join(name));
    let authority = Authority::load(&read("ca.crt")?, &read("ca.key")?)?;
    let node_ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut leaf = Leaf::client(&format!("system:node:{node}"), Some("system:nodes"));
    let identity = authority.issue(&leaf, now)?;
    leaf.usage = Usage::Server;
    leaf.dns_names = vec![node.clone()];
    leaf.addresses = vec![node_ip];
    let serving = authority.issue(&leaf, now)?;
    let server = kube::Config::from_custom_kubeconfig(
        kube::config::Kubeconfig::read_from(kubeconfig)?,
        &Default::default(),
    )
    .await?;
    let url = server.cluster_url.to_string();
    let own = Kubeconfig {
        server: url.trim_end_matches('/'),
        authority_pem: authority.certificate_pem(),
        user_name: node,
        user: User::Certificate(&identity),
    };
    own.write(&data_dir.join("kubelet.kubeconfig"))?;
    let own = kube::config::Kubeconfig::read_from(data_dir.join("kubelet.kubeconfig"))?;
    let client =
        kube::Client::try_from(kube::Config::from_custom_kubeconfig(own, &Default::default()).await?)?;

    let certificate = Arc::new(ServingCertificate::new(&serving.certificate_pem, &serving.key_pem)?);
    let root = data_dir.join("kubelet");
    let mut config = Config::new(node, node_ip, runtime, root, certificate, authority.certificate_pem());
    config.pod_log_dir = data_dir.join("pods");
    config.serving.address = SocketAddr::new(node_ip, port);
    config.cgroup_root = format!("/gantry-dev-{node}");
    let scratch = data_dir.join("scratch");
    config.image_loader = Some(Arc::new(kubelet::ContainerdLoader::new(runtime, scratch)));
    config.cluster_dns = vec!["10.96.0.10".parse()?];
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    kubelet::run(config, client, shutdown).await?;
    Ok(())
}
