//! Who the parts are, and how they reach the API server from another process.

use std::path::Path;

use anyhow::Context;
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

pub const SCHEDULER: &str = "system:kube-scheduler";
pub const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
pub const NODES_GROUP: &str = "system:nodes";

/// The name under which a node's agent writes.
pub const KUBELET: &str = "kubelet";

/// The identity of a node's agent.
pub fn node_user(node_name: &str) -> String {
    format!("system:node:{node_name}")
}

/// A client that acts as a kubeconfig says. What it writes is managed by `agent`.
pub async fn client_of_kubeconfig(path: &Path, agent: &'static str) -> anyhow::Result<Client> {
    client_and_authority(path, agent).await.map(|(client, _)| client)
}

/// A client that acts as a kubeconfig says, and the authority that it trusts, PEM.
pub async fn client_and_authority(path: &Path, agent: &'static str) -> anyhow::Result<(Client, String)> {
    let wrong = || format!("cannot use the kubeconfig {}", path.display());
    let kubeconfig = Kubeconfig::read_from(path).with_context(wrong)?;
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.with_context(wrong)?;
    config.default_retry = false;
    config.headers.push((USER_AGENT, HeaderValue::from_static(agent)));
    let authority: String =
        config.root_cert.iter().flatten().map(|der| pki::certificate_to_pem(der)).collect();
    Ok((Client::try_from(config).with_context(wrong)?, authority))
}

/// A node's client of a remote API server, with a certificate of its own.
pub fn client_of_certificate(
    server: &str,
    authority_pem: &str,
    pair: &pki::CertificateAndKey,
) -> anyhow::Result<Client> {
    let mut config = remote_config(server, authority_pem)?;
    config.auth_info.client_certificate_data = Some(encode(&pair.certificate_pem));
    config.auth_info.client_key_data = Some(encode(&pair.key_pem).into());
    Client::try_from(config).context("cannot make a client of the API server")
}

/// A node's client of a remote API server, with a bearer token.
pub fn client_of_token(server: &str, authority_pem: &str, token: &str) -> anyhow::Result<Client> {
    let mut config = remote_config(server, authority_pem)?;
    config.auth_info.token = Some(token.to_string().into());
    Client::try_from(config).context("cannot make a client of the API server")
}

fn remote_config(server: &str, authority_pem: &str) -> anyhow::Result<kube::Config> {
    let url = server
        .parse()
        .with_context(|| format!("--server {server} is not a URL such as https://host:6443"))?;
    let mut config = kube::Config::new(url);
    // A 504 leaves open whether a write was done: whoever made it has to look before it tries again.
    config.default_retry = false;
    config.headers.push((USER_AGENT, HeaderValue::from_static(KUBELET)));
    let certificates: Result<Vec<_>, _> = x509_parser::pem::Pem::iter_from_buffer(authority_pem.as_bytes())
        .map(|pem| pem.map(|pem| pem.contents))
        .collect();
    config.root_cert = Some(certificates.context("the cluster's authority is not a PEM certificate")?);
    Ok(config)
}

fn encode(pem: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(pem)
}
