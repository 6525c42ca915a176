//! An API server in this process, on a port of its own, and the programs that talk to it.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use apiserver::{Identity, Server, ServiceAccountKeys, ServiceRange};
use pki::{CertificateAndKey, ClusterPki, Kubeconfig, Leaf, ServerNames, User};
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// A server without controllers and nodes: what is written stays as it is.
pub struct Cluster {
    directory: tempfile::TempDir,
    shutdown: CancellationToken,
    runtime: Option<Runtime>,
}

/// What a program said.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl Cluster {
    pub fn start() -> Self {
        let _first = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::Builder::new().prefix("ctl-test").tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let shutdown = CancellationToken::new();
        runtime.block_on(serve(directory.path(), shutdown.clone()));
        let cluster = Self { directory, shutdown, runtime: Some(runtime) };
        cluster.ctl("create serviceaccount default");
        cluster
    }

    /// Runs ctl, which must succeed, and returns what it said.
    pub fn ctl(&self, words: &str) -> String {
        self.ctl_with(words, "")
    }

    /// The same, with standard input.
    pub fn ctl_with(&self, words: &str, input: &str) -> String {
        let said = self.run(Path::new(env!("CARGO_BIN_EXE_ctl")), words, input);
        assert!(said.ok, "ctl {words}: {said:?}");
        said.out
    }

    /// Runs ctl, which must fail, and returns its complaint.
    pub fn ctl_fails(&self, words: &str, input: &str) -> String {
        let said = self.run(Path::new(env!("CARGO_BIN_EXE_ctl")), words, input);
        assert!(!said.ok, "ctl {words}: {said:?}");
        said.err
    }

    /// Runs a program with words that are separated by spaces; `'…'` keeps them together.
    pub fn run(&self, program: &Path, words: &str, input: &str) -> Said {
        let mut child = Command::new(program)
            .args(split(words))
            .env_clear()
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.directory.path())
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { ok: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// A file beside the kubeconfig, where the programs run.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(std::time::Duration::from_secs(5));
        }
    }
}

fn split(words: &str) -> Vec<String> {
    let parts = words.split('\'').enumerate();
    parts
        .flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(Into::into).collect(),
            _ => vec![part.to_string()],
        })
        .collect()
}

async fn serve(directory: &Path, shutdown: CancellationToken) {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let names = ServerNames { addresses: vec![loopback], ..Default::default() };
    let now = jiff::Timestamp::now();
    let cluster = ClusterPki::ensure(&directory.join("pki"), &names, now).unwrap();
    let authority = cluster.authority.certificate_pem().to_string();
    let identity = |pair: &CertificateAndKey| Identity {
        certificate_pem: pair.certificate_pem.clone().into_bytes(),
        key_pem: pair.key_pem.clone().into_bytes(),
    };
    let listener = tokio::net::TcpListener::bind((loopback, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = apiserver::Config {
        bind_address: address,
        advertise_address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        serving: identity(&cluster.apiserver),
        client_ca_pem: authority.clone().into_bytes(),
        agent_client: identity(&cluster.apiserver_client),
        agent_ca_pem: authority.clone().into_bytes(),
        root_ca_pem: authority.clone().into_bytes(),
        service_account: ServiceAccountKeys {
            issuer: "https://kubernetes.default.svc".to_string(),
            signing_key_pem: cluster.service_account_key_pem.clone().into_bytes(),
            verification_keys_pem: Vec::new(),
        },
        service_range: ServiceRange::parse("10.96.0.0/16").unwrap(),
        node_ports: 30000..=32767,
        cluster_domain: "cluster.local".to_string(),
        drain_seconds: 1,
        security: Default::default(),
    };
    let store = EmbeddedStore::open(EmbeddedOptions::new(directory.join("store"))).unwrap();
    let server = Server::build(config, Arc::new(store)).await.unwrap();
    let admin =
        cluster.authority.issue(&Leaf::client("kubernetes-admin", Some("system:masters")), now).unwrap();
    let kubeconfig = Kubeconfig {
        server: &format!("https://{address}"),
        authority_pem: &authority,
        user_name: "kubernetes-admin",
        user: User::Certificate(&admin),
    };
    std::fs::write(directory.join("kubeconfig"), kubeconfig.to_text()).unwrap();
    tokio::spawn(async move { server.serve(listener, shutdown).await.unwrap() });
}
