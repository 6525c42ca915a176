//! An API server in this process: its keys, its store, its callers, and its listener where it needs one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use apiserver::auth::{MASTERS, UserInfo};
use apiserver::{Config, Identity, Security, Server, ServerError, ServiceAccountKeys, ServiceRange};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::config::AuthInfo;
use pki::{CertificateAndKey, ClusterPki, Kubeconfig, Leaf, ServerNames, User};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use store::Store;
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use store::etcd::EtcdOptions;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Caller, Etcd};

/// Who signs service accounts' tokens.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Where a server keeps its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// In its own store, in the test's directory.
    Embedded,
    /// In a real etcd that is started for it.
    OwnEtcd,
    /// In a part of the etcd that `GANTRY_TEST_ETCD` names.
    SharedEtcd,
}

/// A server, asked as its administrator unless said otherwise.
pub struct TestServer {
    /// The server.
    pub server: Server,
    /// What it was told.
    pub config: Config,
    /// Where its objects are.
    pub store: Arc<dyn Store>,
    /// Its keys.
    pub pki: Arc<ClusterPki>,
    admin: Caller,
    ground: Arc<Ground>,
}

/// What servers over the same data stand on.
struct Ground {
    _etcd: Option<Etcd>,
    directory: TempDir,
}

/// A server that listens until this is dropped.
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    stop: DropGuard,
    task: JoinHandle<Result<(), ServerError>>,
}

impl Deref for TestServer {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.admin
    }
}

impl TestServer {
    /// Over the embedded store, or over the etcd that `GANTRY_TEST_ETCD` names (`http://127.0.0.1:2379`).
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same, told something else.
    pub async fn start_with(tell: impl FnOnce(&mut Config)) -> Self {
        let backend = if shared_etcd().is_some() { Backend::SharedEtcd } else { Backend::Embedded };
        Self::begin(backend, tell).await
    }

    /// The same, with a store whose revisions nobody else counts up.
    pub async fn start_alone() -> Self {
        let backend = if shared_etcd().is_some() { Backend::OwnEtcd } else { Backend::Embedded };
        Self::start_over(backend).await
    }

    /// Over a store of this kind.
    pub async fn start_over(backend: Backend) -> Self {
        Self::begin(backend, |_| {}).await
    }

    async fn begin(backend: Backend, tell: impl FnOnce(&mut Config)) -> Self {
        // Whoever came first was as right.
        let _first = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::Builder::new().prefix("gantry-test").tempdir().unwrap();
        let names = ServerNames { addresses: vec![LOOPBACK], ..Default::default() };
        let pki = ClusterPki::ensure(&directory.path().join("pki"), &names, jiff::Timestamp::now()).unwrap();
        let (store, etcd) = open(backend, directory.path()).await;
        let mut config = server_config(&pki);
        tell(&mut config);
        let ground = Arc::new(Ground { _etcd: etcd, directory });
        Self::over(store, config, Arc::new(pki), ground).await
    }

    /// Another server over the same store: what a restart, or a second API server, is.
    pub async fn another(&self) -> Self {
        self.with(self.config.clone()).await
    }

    /// Has it stop listening, and another over the same data listen in its place.
    pub async fn restarted(&self, listening: Listening) -> (Self, Listening) {
        let address = listening.address;
        listening.stop().await.unwrap().unwrap();
        let next = self.another().await;
        let listening = next.listen_at(address).await;
        (next, listening)
    }

    /// A server over the same store that is told something else.
    pub async fn with(&self, config: Config) -> Self {
        Self::over(self.store.clone(), config, self.pki.clone(), self.ground.clone()).await
    }

    /// A server over another store: this one's with something in between.
    pub async fn over_store(&self, store: Arc<dyn Store>) -> Self {
        Self::over(store, self.config.clone(), self.pki.clone(), self.ground.clone()).await
    }

    async fn over(store: Arc<dyn Store>, config: Config, pki: Arc<ClusterPki>, ground: Arc<Ground>) -> Self {
        let server = Server::build(config.clone(), store.clone()).await.unwrap();
        let admin =
            Caller::new(server.client(UserInfo::new("admin", &[MASTERS]))).header("user-agent", "suite/1.0");
        Self { server, config, store, pki, admin, ground }
    }

    /// Where the files are.
    pub fn directory(&self) -> &Path {
        self.ground.directory.path()
    }

    /// Somebody in this process.
    pub fn user(&self, name: &str, groups: &[&str]) -> Caller {
        Caller::new(self.server.client(UserInfo::new(name, groups)))
    }

    /// Makes the account that pods in `default` need, where no controller does.
    pub async fn make_default_account(&self) {
        let account = json!({"metadata": {"name": "default"}});
        self.post("/api/v1/namespaces/default/serviceaccounts", &account).await.expect(201);
    }

    /// Listens on a port of its own.
    pub async fn listen(&self) -> Listening {
        self.listen_at(SocketAddr::new(LOOPBACK, 0)).await
    }

    /// Listens there.
    pub async fn listen_at(&self, address: SocketAddr) -> Listening {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (server, stopped) = (self.server.clone(), stop.clone());
        let task = tokio::spawn(async move { server.serve(listener, stopped).await });
        Listening { address, stop: stop.drop_guard(), task }
    }

    /// A certificate of the cluster's authority.
    pub fn issue(&self, user: &str, group: Option<&str>) -> CertificateAndKey {
        self.pki.authority.issue(&Leaf::client(user, group), jiff::Timestamp::now()).unwrap()
    }

    /// The text of a kubeconfig.
    pub fn kubeconfig(&self, at: &Listening, user_name: &str, user: User<'_>) -> String {
        let authority_pem = self.pki.authority.certificate_pem();
        Kubeconfig { server: &at.url(), authority_pem, user_name, user }.to_text()
    }

    /// Somebody over the network who shows what `auth` has.
    pub fn remote(&self, at: &Listening, auth: AuthInfo) -> Caller {
        let mut config = kube::Config::new(at.url().parse().unwrap());
        let ca = x509_parser::pem::Pem::iter_from_buffer(self.pki.authority.certificate_pem().as_bytes());
        config.root_cert = Some(ca.map(|pem| pem.unwrap().contents).collect());
        config.auth_info = auth;
        Caller::new(kube::Client::try_from(config).unwrap())
    }

    /// What opens TLS connections that show a client certificate, whatever is spoken over them.
    pub fn connector(&self, pair: &CertificateAndKey) -> TlsConnector {
        let chain = CertificateDer::pem_slice_iter(pair.certificate_pem.as_bytes()).map(Result::unwrap);
        let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        let authority = self.pki.authority.certificate_pem();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        TlsConnector::from(Arc::new(config.with_client_auth_cert(chain.collect(), key).unwrap()))
    }

    /// Somebody over the network with a client certificate.
    pub fn certificate(&self, at: &Listening, pair: &CertificateAndKey) -> Caller {
        let auth = AuthInfo {
            client_certificate_data: Some(STANDARD.encode(&pair.certificate_pem)),
            client_key_data: Some(STANDARD.encode(&pair.key_pem).into()),
            ..Default::default()
        };
        self.remote(at, auth)
    }
}

impl Listening {
    /// How it is reached.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Tells the server to stop, without waiting.
    pub fn stop(self) -> JoinHandle<Result<(), ServerError>> {
        drop(self.stop);
        self.task
    }
}

/// What a server is told that has these keys and is only asked in this process.
pub fn server_config(pki: &ClusterPki) -> Config {
    let ca = pki.authority.certificate_pem().as_bytes().to_vec();
    Config {
        bind_address: SocketAddr::new(LOOPBACK, 6443),
        advertise_address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        serving: identity(&pki.apiserver),
        client_ca_pem: ca.clone(),
        agent_client: identity(&pki.apiserver_client),
        agent_ca_pem: ca.clone(),
        root_ca_pem: ca,
        service_account: ServiceAccountKeys {
            issuer: ISSUER.to_string(),
            signing_key_pem: pki.service_account_key_pem.clone().into_bytes(),
            verification_keys_pem: Vec::new(),
        },
        service_range: ServiceRange::parse("10.96.0.0/24").unwrap(),
        node_ports: 30000..=30100,
        cluster_domain: "cluster.local".to_string(),
        drain_seconds: 1,
        security: Security::default(),
    }
}

/// A certificate in the server's terms.
pub fn identity(pair: &CertificateAndKey) -> Identity {
    Identity {
        certificate_pem: pair.certificate_pem.clone().into_bytes(),
        key_pem: pair.key_pem.clone().into_bytes(),
    }
}

async fn open(backend: Backend, directory: &Path) -> (Arc<dyn Store>, Option<Etcd>) {
    match backend {
        Backend::Embedded => {
            let store = EmbeddedStore::open(EmbeddedOptions::new(directory.join("store"))).unwrap();
            (Arc::new(store), None)
        }
        Backend::OwnEtcd => {
            let etcd = Etcd::start(1);
            (Arc::new(etcd.connect().await), Some(etcd))
        }
        Backend::SharedEtcd => {
            let endpoint = shared_etcd().expect("GANTRY_TEST_ETCD is set");
            let prefix = format!("/test{}", directory.display());
            let options = EtcdOptions { prefix, ..EtcdOptions::new(vec![endpoint]) };
            (Arc::new(Etcd::connect_with(options).await), None)
        }
    }
}

fn shared_etcd() -> Option<String> {
    std::env::var("GANTRY_TEST_ETCD").ok()
}
