//! A server for one test, and people who talk to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use apiserver::auth::{MASTERS, UserInfo};
use apiserver::{Config, Identity, Security, Server, ServiceAccountKeys, ServiceRange};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pki::{CertificateAndKey, ClusterPki, Leaf, ServerNames};
use serde_json::{Value, json};
use store::Store;
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

pub struct Cluster {
    pub server: Server,
    pub pki: ClusterPki,
    pub store: Arc<dyn Store>,
    url: String,
    _stop: DropGuard,
    _directory: TempDir,
}

/// Somebody who sends requests.
#[derive(Clone)]
pub struct Caller {
    client: kube::Client,
    headers: Vec<(String, String)>,
}

/// What a request answered.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub body: Value,
    /// What the server said though it did as it was told.
    pub warnings: Vec<String>,
    pub headers: http::HeaderMap,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{:#}", self.body);
        self.body
    }

    /// The message of a refusal.
    #[track_caller]
    pub fn refused(self) -> String {
        self.expect(403)["message"].as_str().unwrap().to_string()
    }
}

fn identity(pair: &CertificateAndKey) -> Identity {
    Identity {
        certificate_pem: pair.certificate_pem.clone().into_bytes(),
        key_pem: pair.key_pem.clone().into_bytes(),
    }
}

fn config(pki: &ClusterPki) -> Config {
    let ca = pki.authority.certificate_pem().to_string().into_bytes();
    Config {
        bind_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 6443)),
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
        security: Default::default(),
    }
}

pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

impl Cluster {
    /// A server that listens on a port of its own.
    pub async fn start() -> Self {
        Self::start_with(Security::default()).await
    }

    /// One that an administrator has set up.
    pub async fn start_with(security: Security) -> Self {
        Self::start_as(|config| Config { security, ..config }).await
    }

    /// One with another configuration.
    pub async fn start_as(changed: impl FnOnce(Config) -> Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let names = ServerNames { addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], ..Default::default() };
        let pki = ClusterPki::ensure(&directory.path().join("pki"), &names, jiff::Timestamp::now()).unwrap();
        let store = EmbeddedStore::open(EmbeddedOptions::new(directory.path().join("store"))).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let server = Server::build(changed(config(&pki)), store.clone()).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let (serving, stopped) = (server.clone(), stop.clone());
        tokio::spawn(async move { serving.serve(listener, stopped).await });
        Self { server, pki, store, url, _stop: stop.drop_guard(), _directory: directory }
    }

    /// Another server over the same data, as after a restart.
    pub async fn started_again(&self) -> Caller {
        let server = Server::build(config(&self.pki), self.store.clone()).await.unwrap();
        Caller { client: server.client(UserInfo::new("admin", &[MASTERS])), headers: Vec::new() }
    }

    /// Somebody in this process.
    pub fn user(&self, name: &str, groups: &[&str]) -> Caller {
        let client = self.server.client(UserInfo::new(name, groups));
        Caller { client, headers: Vec::new() }
    }

    pub fn admin(&self) -> Caller {
        self.user("admin", &[MASTERS])
    }

    /// A node's agent.
    pub fn node(&self, name: &str) -> Caller {
        self.user(&format!("system:node:{name}"), &["system:nodes"])
    }

    fn remote(&self, auth: kube::config::AuthInfo) -> Caller {
        let mut config = kube::Config::new(self.url.parse().unwrap());
        let ca = x509_parser::pem::Pem::iter_from_buffer(self.pki.authority.certificate_pem().as_bytes());
        config.root_cert = Some(ca.map(|pem| pem.unwrap().contents).collect());
        config.auth_info = auth;
        Caller { client: kube::Client::try_from(config).unwrap(), headers: Vec::new() }
    }

    /// Somebody over the network who shows nothing.
    pub fn anonymous(&self) -> Caller {
        self.remote(Default::default())
    }

    /// Somebody over the network with a bearer token.
    pub fn bearer(&self, token: &str) -> Caller {
        self.remote(kube::config::AuthInfo { token: Some(token.to_string().into()), ..Default::default() })
    }

    /// Somebody over the network with a client certificate.
    pub fn certificate(&self, pair: &CertificateAndKey) -> Caller {
        self.remote(kube::config::AuthInfo {
            client_certificate_data: Some(STANDARD.encode(&pair.certificate_pem)),
            client_key_data: Some(STANDARD.encode(&pair.key_pem).into()),
            ..Default::default()
        })
    }

    /// A certificate of the cluster's authority.
    pub fn issue(&self, user: &str, group: Option<&str>) -> CertificateAndKey {
        self.pki.authority.issue(&Leaf::client(user, group), jiff::Timestamp::now()).unwrap()
    }

    pub async fn namespace(&self, name: &str) {
        let admin = self.admin();
        admin
            .post(
                "/api/v1/namespaces",
                &json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}}),
            )
            .await
            .expect(201);
        self.account(name, "default").await;
    }

    pub async fn account(&self, namespace: &str, name: &str) -> Value {
        let account = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": name}});
        self.admin()
            .post(&format!("/api/v1/namespaces/{namespace}/serviceaccounts"), &account)
            .await
            .expect(201)
    }

    /// A pod that the scheduler has put on a node, if one is given.
    pub async fn pod(&self, namespace: &str, name: &str, node: &str, spec: Value) -> Value {
        let mut pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        for (field, value) in spec.as_object().unwrap() {
            pod["spec"][field] = value.clone();
        }
        if !node.is_empty() {
            pod["spec"]["nodeName"] = node.into();
        }
        self.admin().post(&format!("/api/v1/namespaces/{namespace}/pods"), &pod).await.expect(201)
    }

    pub async fn make_node(&self, name: &str) -> Value {
        let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}});
        self.admin().post("/api/v1/nodes", &node).await.expect(201)
    }

    /// Binds a cluster role in a namespace, or everywhere when that is empty. The subject is `user:x`, `group:x` or
    /// `account:namespace:x`.
    pub async fn bind(&self, namespace: &str, role: &str, subject: &str) -> Value {
        let (place, kind) = match namespace {
            "" => (String::new(), "ClusterRoleBinding"),
            namespace => (format!("/namespaces/{namespace}"), "RoleBinding"),
        };
        let name = format!("{role}-{}", subject.replace(':', "-"));
        let binding = json!({"kind": kind, "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [subject_of(subject)]});
        let path = format!("{RBAC}{place}/{}s", kind.to_lowercase());
        self.admin().post(&path, &binding).await.expect(201)
    }

    pub async fn cluster_role(&self, name: &str, labels: Value, rules: Value) -> Value {
        let role = json!({"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1",
            "metadata": {"name": name, "labels": labels}, "rules": rules});
        self.admin().post(&format!("{RBAC}/clusterroles"), &role).await.expect(201)
    }
}

pub const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

pub fn subject_of(subject: &str) -> Value {
    const GROUP: &str = "rbac.authorization.k8s.io";
    match subject.split_once(':').unwrap() {
        ("user", name) => json!({"kind": "User", "apiGroup": GROUP, "name": name}),
        ("group", name) => json!({"kind": "Group", "apiGroup": GROUP, "name": name}),
        ("account", account) => {
            let (namespace, name) = account.split_once(':').unwrap();
            json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
        }
        other => panic!("{other:?} is no subject"),
    }
}

impl Caller {
    /// The same caller with one more header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_string(), value.to_string()));
        self
    }

    pub async fn send(&self, method: &str, path: &str, content_type: &str, body: String) -> Answer {
        let mut request =
            http::Request::builder().method(method).uri(path).header("content-type", content_type);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = self.client.send(request.body(kube::client::Body::from(body.into_bytes())).unwrap());
        let response = response.await.unwrap();
        let code = response.status().as_u16();
        let headers = response.headers().clone();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.map(|value| value.to_str().unwrap().to_string()).collect();
        let bytes = response.into_body().collect_bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into());
        Answer { code, body, warnings, headers }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "application/json", String::new()).await
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

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, "application/json", String::new()).await
    }

    /// Whether the caller may do something, asked as kubectl asks: `get pods/log -n team` is `("get", "pods/log", "team")`,
    /// a group goes before the resource as in `apps:deployments`, a name behind it as in `pods=web`.
    pub async fn may(&self, verb: &str, what: &str, namespace: &str) -> bool {
        let (group, rest) = what.split_once(':').unwrap_or(("", what));
        let (resource, name) = rest.split_once('=').unwrap_or((rest, ""));
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let review = json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {
            "resourceAttributes": {"verb": verb, "group": group, "resource": resource, "subresource": subresource,
                "namespace": namespace, "name": name}}});
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        self.post(path, &review).await.expect(201)["status"]["allowed"] == true
    }
}
