//! The control plane: certificates, the store, the API server on it, and the parts that reconcile.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use apiserver::auth::UserInfo;
use apiserver::encryption::EncryptedStore;
use jiff::Timestamp;
use pki::{CertificateAndKey, ClusterPki, Kubeconfig, ServerNames, User};
use tokio_util::sync::CancellationToken;

use crate::identities;
use crate::roles::Parts;
use crate::settings::{CLUSTER_DOMAIN, Settings};
use crate::store_place;

/// Requests in flight get so long to finish when the server stops.
const DRAIN_SECONDS: u64 = 5;

/// A control plane that is built but does not serve yet.
pub struct ControlPlane {
    pub pki: ClusterPki,
    server: apiserver::Server,
    secrets: Arc<EncryptedStore>,
}

impl ControlPlane {
    /// Makes or loads everything that the control plane stands on. Fails before anything is served.
    pub async fn build(settings: &Settings) -> anyhow::Result<Self> {
        let pki = ClusterPki::ensure(&settings.pki_dir(), &server_names(settings), Timestamp::now())?;
        write_admin_kubeconfig(settings, &pki)?;
        let store = store_place::open(settings).await?;
        let secrets = Arc::new(EncryptedStore::open(store, &settings.encryption_key_file()).await?);
        let server = apiserver::Server::build(server_config(settings, &pki)?, secrets.clone())
            .await
            .context("cannot build the API server")?;
        Ok(Self { pki, server, secrets })
    }

    /// A client in this process: no socket, no TLS, the same authorization.
    pub fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        self.server.client(UserInfo::new(user, groups).authenticated())
    }

    /// Starts the scheduler and the controllers.
    pub fn start_reconcilers(&self, settings: &Settings, parts: &mut Parts) {
        parts.scheduler(self.client(identities::SCHEDULER, &[]));
        let authority = CertificateAndKey {
            certificate_pem: self.pki.authority.certificate_pem().to_string(),
            key_pem: self.pki.authority.key_pem().to_string(),
        };
        parts.controller_manager(settings, authority, self.client(identities::CONTROLLER_MANAGER, &[]));
    }

    /// Serves until told to stop, then finishes what is in flight.
    pub async fn serve(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        tokio::spawn(self.secrets.follow_key_file(shutdown.clone()));
        self.server.run(shutdown).await.context("the API server ended")
    }
}

fn server_names(settings: &Settings) -> ServerNames {
    let mut addresses = vec![
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V4(settings.kubernetes_service_address()),
        settings.node_ip,
    ];
    if !settings.bind_address.is_unspecified() && !addresses.contains(&settings.bind_address) {
        addresses.push(settings.bind_address);
    }
    ServerNames { dns_names: vec![settings.node_name.clone()], addresses }
}

fn write_admin_kubeconfig(settings: &Settings, pki: &ClusterPki) -> anyhow::Result<()> {
    Kubeconfig {
        server: &settings.local_url(),
        authority_pem: pki.authority.certificate_pem(),
        user_name: "kubernetes-admin",
        user: User::Certificate(&pki.admin),
    }
    .write(&settings.admin_kubeconfig())?;
    Ok(())
}

fn server_config(settings: &Settings, pki: &ClusterPki) -> anyhow::Result<apiserver::Config> {
    let authority = pki.authority.certificate_pem().as_bytes().to_vec();
    let identity = |pair: &CertificateAndKey| apiserver::Identity {
        certificate_pem: pair.certificate_pem.clone().into_bytes(),
        key_pem: pair.key_pem.clone().into_bytes(),
    };
    Ok(apiserver::Config {
        bind_address: SocketAddr::new(settings.bind_address, settings.secure_port),
        advertise_address: settings.node_ip,
        serving: identity(&pki.apiserver),
        client_ca_pem: authority.clone(),
        agent_client: identity(&pki.apiserver_client),
        agent_ca_pem: authority.clone(),
        root_ca_pem: authority,
        service_account: apiserver::ServiceAccountKeys {
            issuer: format!("https://kubernetes.default.svc.{CLUSTER_DOMAIN}"),
            signing_key_pem: pki.service_account_key_pem.clone().into_bytes(),
            verification_keys_pem: Vec::new(),
        },
        service_range: apiserver::ServiceRange::parse(&settings.service_cidrs())?,
        node_ports: 30000..=32767,
        cluster_domain: CLUSTER_DOMAIN.to_string(),
        drain_seconds: DRAIN_SECONDS,
        security: settings.security.load()?,
    })
}

/// The controllers' settings. Without an authority nothing is signed and no root certificate is published.
pub fn controller_config(
    settings: &Settings,
    authority: Option<CertificateAndKey>,
) -> controller_manager::Config {
    controller_manager::Config {
        cluster_cidr: Some(settings.pod_cidrs()),
        service_cidr: Some(settings.service_cidrs()),
        root_ca_pem: authority.as_ref().map(|pair| pair.certificate_pem.clone()),
        signing_authority: authority.map(|pair| controller_manager::SigningAuthority {
            certificate_pem: pair.certificate_pem,
            key_pem: pair.key_pem,
        }),
        node_monitor_grace: Duration::from_secs(settings.node_monitor_grace_seconds),
        ..controller_manager::Config::default()
    }
}
