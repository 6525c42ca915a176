//! A server for one test, and short ways to talk to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use apiserver::auth::{MASTERS, UserInfo};
use apiserver::{Config, Identity, Server, ServiceAccountKeys, ServiceRange};
use futures::TryStreamExt;
use futures::io::{AsyncBufReadExt, Lines};
use pki::{CertificateAndKey, ClusterPki, ServerNames};
use serde_json::{Value, json};
use store::Store;
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use store::etcd::{EtcdOptions, EtcdStore};
use tempfile::TempDir;

pub struct TestServer {
    pub server: Server,
    pub client: kube::Client,
    pub config: Config,
    pub store: Arc<dyn Store>,
    directory: Arc<TempDir>,
}

/// What a request answered.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub body: Value,
    pub warnings: Vec<String>,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{:#}", self.body);
        self.body
    }
}

fn identity(pair: &CertificateAndKey) -> Identity {
    Identity {
        certificate_pem: pair.certificate_pem.clone().into_bytes(),
        key_pem: pair.key_pem.clone().into_bytes(),
    }
}

fn config(directory: &std::path::Path) -> Config {
    let names = ServerNames { addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], ..Default::default() };
    let cluster = ClusterPki::ensure(&directory.join("pki"), &names, jiff::Timestamp::now()).unwrap();
    let ca = cluster.authority.certificate_pem().to_string().into_bytes();
    Config {
        bind_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 6443)),
        advertise_address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        serving: identity(&cluster.apiserver),
        client_ca_pem: ca.clone(),
        agent_client: identity(&cluster.apiserver_client),
        agent_ca_pem: ca.clone(),
        root_ca_pem: ca,
        service_account: ServiceAccountKeys {
            issuer: "https://kubernetes.default.svc.cluster.local".to_string(),
            signing_key_pem: cluster.service_account_key_pem.clone().into_bytes(),
            verification_keys_pem: Vec::new(),
        },
        service_range: ServiceRange::parse("10.96.0.0/24").unwrap(),
        node_ports: 30000..=30100,
        cluster_domain: "cluster.local".to_string(),
        drain_seconds: 1,
        security: Default::default(),
    }
}

impl TestServer {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A server that is told something else.
    pub async fn start_with(tell: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path());
        tell(&mut config);
        let store = Self::store(directory.path()).await;
        Self::over(store, config, Arc::new(directory)).await
    }

    /// The embedded store, or a part of the etcd that `GANTRY_TEST_ETCD` names (`http://127.0.0.1:2379`).
    async fn store(directory: &std::path::Path) -> Arc<dyn Store> {
        let Ok(endpoint) = std::env::var("GANTRY_TEST_ETCD") else {
            return Arc::new(EmbeddedStore::open(EmbeddedOptions::new(directory.join("store"))).unwrap());
        };
        let mut options = EtcdOptions::new(vec![endpoint]);
        options.prefix = format!("/suite{}", directory.display());
        Arc::new(EtcdStore::connect(options).await.unwrap())
    }

    /// Another server over the same store: what a restart, or a second API server, is.
    pub async fn another(&self) -> Self {
        Self::over(self.store.clone(), self.config.clone(), self.directory.clone()).await
    }

    /// A server over the same store that is told something else.
    pub async fn with(&self, config: Config) -> Self {
        Self::over(self.store.clone(), config, self.directory.clone()).await
    }

    /// A server over another store: this one's with something in between.
    pub async fn over_store(&self, store: Arc<dyn Store>) -> Self {
        Self::over(store, self.config.clone(), self.directory.clone()).await
    }

    /// Where the server's files are.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// The cluster's authority.
    pub fn authority(&self) -> pki::Authority {
        let names = ServerNames { addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], ..Default::default() };
        let directory = self.directory.path().join("pki");
        ClusterPki::ensure(&directory, &names, jiff::Timestamp::now()).unwrap().authority
    }

    async fn over(store: Arc<dyn Store>, config: Config, directory: Arc<TempDir>) -> Self {
        let server = Server::build(config.clone(), store.clone()).await.unwrap();
        let client = server.client(UserInfo::new("admin", &[MASTERS]));
        Self { server, client, config, store, directory }
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .header("user-agent", "suite/1.0")
            .body(kube::client::Body::from(body.into()))
            .unwrap();
        let response = self.client.send(request).await.unwrap();
        let code = response.status().as_u16();
        let warnings =
            response.headers().get_all("warning").iter().map(|v| v.to_str().unwrap().to_string()).collect();
        let bytes = response.into_body().collect_bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into());
        Answer { code, body, warnings }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "application/json", "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, "application/json", body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, "application/json", body.to_string()).await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> Answer {
        self.send("PATCH", path, "application/merge-patch+json", body.to_string()).await
    }

    pub async fn apply(&self, path: &str, manager: &str, body: &Value) -> Answer {
        let path = format!("{path}{}fieldManager={manager}", if path.contains('?') { '&' } else { '?' });
        self.send("PATCH", &path, "application/apply-patch+yaml", body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, "application/json", "").await
    }

    /// The status of a GET, of whose body nothing is read.
    pub async fn status(&self, path: &str) -> u16 {
        let request = http::Request::builder().uri(path).body(kube::client::Body::empty()).unwrap();
        self.client.send(request).await.unwrap().status().as_u16()
    }

    /// Starts a watch.
    pub async fn watch(&self, path: &str) -> Watch {
        let request = http::Request::builder().uri(path).body(kube::client::Body::empty()).unwrap();
        let response = self.client.send(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let stream = http_body_util::BodyDataStream::new(response.into_body()).map_err(std::io::Error::other);
        let reader: Reader = Box::pin(stream.into_async_read());
        Watch { lines: futures::io::BufReader::new(reader).lines() }
    }

    /// Makes config maps with these names.
    pub async fn make_config_maps(&self, names: impl IntoIterator<Item = &str>) {
        for name in names {
            self.post(CONFIG_MAPS, &config_map(name)).await.expect(201);
        }
    }
}

type Reader = std::pin::Pin<Box<dyn futures::io::AsyncRead + Send>>;

pub struct Watch {
    lines: Lines<futures::io::BufReader<Reader>>,
}

impl Watch {
    /// The next event as its type and object; `None` at the end.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        use futures::StreamExt;
        let line = tokio::time::timeout(std::time::Duration::from_secs(10), self.lines.next()).await;
        let line = line.expect("an event within ten seconds")?.unwrap();
        let mut event: Value = serde_json::from_str(&line).unwrap();
        Some((event["type"].as_str().unwrap().to_string(), event["object"].take()))
    }

    /// The next event as its type and the object's name.
    pub async fn next_name(&mut self) -> (String, String) {
        let (kind, object) = self.next().await.expect("an event");
        (kind, name(&object).to_string())
    }
}

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub fn config_map(name: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"key": "value"}})
}

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

pub fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

pub fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(name).collect()
}
