//! How a node joins: it meets the authority that its token names, and asks for its own certificates.
//!
//! The first contact is verified: a server whose chain does not hold the authority with the token's hash is refused.
//! Later starts need no token, the certificates are on disk; those that are due are renewed with the old ones.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::{StreamExt, pin_mut};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use pki::{CertificateAndKey, JoinToken, Leaf, NodePki, PinnedAuthority, Usage};
use tokio::net::TcpStream;
use tracing::{info, warn};

use crate::identities;
use crate::node::NodeAccess;
use crate::settings::Settings;

const CONTACT_ATTEMPTS: u32 = 60;
const CONTACT_PAUSE: Duration = Duration::from_secs(1);
const SIGNING_TIME_MAX: Duration = Duration::from_secs(60);
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";

/// What a joined node works with.
pub struct Membership {
    pub authority_pem: String,
    pub client_pair: CertificateAndKey,
    pub serving_pair: CertificateAndKey,
}

/// Brings the node's certificates up to date, joining first where it has to.
pub async fn ensure_membership(
    settings: &Settings,
    server: &str,
    token: Option<&str>,
) -> anyhow::Result<Membership> {
    let store = NodePki::new(settings.pki_dir());
    let now = Timestamp::now();
    let token = token.map(str::parse::<JoinToken>).transpose()?;
    let authority_pem = match (store.authority_pem()?, &token) {
        (Some(known), Some(token)) if pki::fingerprint_of_pem(&known)? != token.authority_hash => bail!(
            "this machine has joined another cluster before; run `gantry uninstall --data-dir {}` to forget it",
            settings.data_dir.display()
        ),
        (Some(known), _) => known,
        (None, Some(token)) => {
            let met = meet_authority(server, token).await?;
            store.store_authority(&met)?;
            met
        }
        (None, None) => {
            bail!("the first start needs --token; make one with `gantry token create` on the server")
        }
    };
    let client_leaf =
        Leaf::client(&identities::node_user(&settings.node_name), Some(identities::NODES_GROUP));
    let client_pair = match store.load("kubelet-client", &client_leaf, now)? {
        Some(pair) => pair,
        None => {
            let client = requester(&store, server, &authority_pem, token.as_ref())?;
            let pair = request_certificate(&client, &client_leaf, CLIENT_SIGNER).await?;
            store.store("kubelet-client", &pair)?;
            pair
        }
    };
    let client = identities::client_of_certificate(server, &authority_pem, &client_pair)?;
    let serving_pair = ensure_serving_pair(settings, &client).await?;
    Ok(Membership { authority_pem, client_pair, serving_pair })
}

/// What an agent needs that runs alone, as the user of a kubeconfig.
pub async fn access_of_kubeconfig(settings: &Settings, path: &Path) -> anyhow::Result<NodeAccess> {
    let (client, authority_pem) = identities::client_and_authority(path, identities::KUBELET).await?;
    let serving_pair = ensure_serving_pair(settings, &client).await?;
    Ok(NodeAccess { client, authority_pem, serving_pair })
}

/// The certificate that the agent API shows: the stored one, or a new one that the cluster signs.
async fn ensure_serving_pair(settings: &Settings, client: &Client) -> anyhow::Result<CertificateAndKey> {
    let store = NodePki::new(settings.pki_dir());
    let leaf = serving_leaf(settings);
    if let Some(pair) = store.load("kubelet-serving", &leaf, Timestamp::now())? {
        return Ok(pair);
    }
    let pair = request_certificate(client, &leaf, SERVING_SIGNER).await?;
    store.store("kubelet-serving", &pair)?;
    Ok(pair)
}

/// What the certificate of a node's agent API says.
pub fn serving_leaf(settings: &Settings) -> Leaf {
    let mut leaf = Leaf::client(&identities::node_user(&settings.node_name), Some(identities::NODES_GROUP));
    leaf.usage = Usage::Server;
    leaf.dns_names = vec![settings.node_name.clone()];
    leaf.addresses = vec![settings.node_ip];
    leaf
}

/// Who asks for the client certificate: the node itself while its old certificate lives, else the token.
fn requester(
    store: &NodePki,
    server: &str,
    authority_pem: &str,
    token: Option<&JoinToken>,
) -> anyhow::Result<Client> {
    match token {
        Some(token) => identities::client_of_token(server, authority_pem, &token.bootstrap.to_string()),
        None => {
            let (certificate, key) = store.paths("kubelet-client");
            let read = |path: &Path| {
                std::fs::read_to_string(path)
                    .with_context(|| format!("{} is needed to renew, or a new --token", path.display()))
            };
            let old = CertificateAndKey { certificate_pem: read(&certificate)?, key_pem: read(&key)? };
            identities::client_of_certificate(server, authority_pem, &old)
        }
    }
}

/// Shakes hands with the server until it shows the authority that the token names.
async fn meet_authority(server: &str, token: &JoinToken) -> anyhow::Result<String> {
    let url: http::Uri = server
        .parse()
        .with_context(|| format!("--server {server} is not a URL such as https://host:6443"))?;
    let host = url.host().with_context(|| format!("--server {server} names no host"))?;
    let port = url.port_u16().unwrap_or(6443);
    let name = rustls::pki_types::ServerName::try_from(host.trim_matches(['[', ']']).to_string())
        .with_context(|| format!("--server {server}: {host} is not a host name"))?;
    let pinned = PinnedAuthority::new(&token.authority_hash);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(pinned.client_config()?));
    let mut attempt = 0;
    loop {
        attempt += 1;
        match TcpStream::connect((host.trim_matches(['[', ']']), port)).await {
            Ok(stream) => {
                connector.connect(name.clone(), stream).await.with_context(|| {
                    format!("{server} is not the cluster that the token was made for; nothing was sent to it")
                })?;
                return pinned.authority_pem().context("the server showed no authority");
            }
            Err(error) if attempt < CONTACT_ATTEMPTS => {
                warn!(%error, server, "the server does not answer yet");
                tokio::time::sleep(CONTACT_PAUSE).await;
            }
            Err(error) => return Err(error).with_context(|| format!("{server} does not answer")),
        }
    }
}

/// Asks for a certificate and waits until it is signed.
async fn request_certificate(
    client: &Client,
    leaf: &Leaf,
    signer: &str,
) -> anyhow::Result<CertificateAndKey> {
    let request = pki::certificate_request(leaf, Timestamp::now())?;
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let usage = match leaf.usage {
        Usage::Client => "client auth",
        Usage::Server => "server auth",
    };
    let object = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("csr-".into()), ..Default::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.certificate_pem.into_bytes()),
            signer_name: signer.to_string(),
            usages: Some(vec!["digital signature".into(), usage.into()]),
            ..Default::default()
        },
        status: None,
    };
    let made = requests
        .create(&PostParams::default(), &object)
        .await
        .with_context(|| format!("the server refused the request for a certificate ({signer})"))?;
    let name = made.metadata.name.context("the certificate request has no name")?;
    info!(request = %name, signer, "asked for a certificate");
    let signed =
        tokio::time::timeout(SIGNING_TIME_MAX, wait_until_signed(requests, &name)).await.with_context(
            || format!("certificate request {name} was not signed in time; is the controller manager up?"),
        )??;
    Ok(CertificateAndKey { certificate_pem: signed, key_pem: request.key_pem })
}

async fn wait_until_signed(requests: Api<CertificateSigningRequest>, name: &str) -> anyhow::Result<String> {
    let only_this = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = watcher(requests, only_this).default_backoff().applied_objects();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        let request = match event {
            Ok(request) => request,
            Err(error) => {
                warn!(%error, request = name, "cannot watch the certificate request");
                continue;
            }
        };
        let status = request.status.unwrap_or_default();
        if let Some(certificate) = status.certificate {
            return String::from_utf8(certificate.0).context("the signed certificate is not PEM");
        }
        let denied = status
            .conditions
            .unwrap_or_default()
            .into_iter()
            .find(|condition| condition.type_ == "Denied" || condition.type_ == "Failed");
        if let Some(denied) = denied {
            bail!("certificate request {name} was refused: {}", denied.message.unwrap_or_default());
        }
    }
    bail!("the watch of certificate request {name} ended")
}
