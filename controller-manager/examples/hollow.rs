//! The controllers alone, against the server of `$KUBECONFIG`, for development.
//!
//!     cargo run -p controller-manager --example hollow -- [HOLLOW-NODES]
//!
//! With a number it also plays that many nodes, in one process. With `NODES_ONLY` set no controllers run, and with
//! `NO_BINDING` set no pods are bound: the server has its own. `CA_DIR` holds `ca.crt` and `ca.key` to sign with.

use controller_manager::{Config, SigningAuthority};
use kube::Client;
use testbed::Hollow;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let nodes: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(0);
    let shutdown = CancellationToken::new();
    let ca = std::env::var("CA_DIR").ok().and_then(|dir| {
        let read = |name: &str| std::fs::read_to_string(format!("{dir}/{name}")).ok();
        Some(SigningAuthority { certificate_pem: read("ca.crt")?, key_pem: read("ca.key")? })
    });
    let config = Config {
        root_ca_pem: ca.as_ref().map(|ca| ca.certificate_pem.clone()),
        signing_authority: ca,
        leader_elect: is_set("LEADER_ELECT"),
        ..Config::default()
    };
    let stop = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    if nodes > 0 {
        let hollow =
            Hollow { binds: !is_set("NO_BINDING"), ..Hollow::new(Client::try_default().await?, nodes) };
        tokio::spawn(hollow.run(shutdown.clone()));
    }
    if is_set("NODES_ONLY") {
        shutdown.cancelled().await;
        return Ok(());
    }
    // The controllers must get by with the rights of their own identity.
    let mut identity = kube::Config::infer().await?;
    identity.auth_info.impersonate = Some("system:kube-controller-manager".into());
    Ok(controller_manager::run(config, Client::try_from(identity)?, shutdown).await?)
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some()
}
