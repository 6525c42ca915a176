//! A server for one test, and people who talk to it.

use std::net::SocketAddr;
use std::ops::Deref;

use apiserver::auth::MASTERS;
use apiserver::{Config, Security};
use pki::CertificateAndKey;
use serde_json::{Value, json};
pub use testbed::{Answer, Caller, ISSUER};
use testbed::{Listening, TestServer};

/// A server that listens on a port of its own.
pub struct Cluster {
    test: TestServer,
    listening: Listening,
}

impl Deref for Cluster {
    type Target = TestServer;

    fn deref(&self) -> &TestServer {
        &self.test
    }
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with(Security::default()).await
    }

    /// One that an administrator has set up.
    pub async fn start_with(security: Security) -> Self {
        Self::start_as(|config| Config { security, ..config }).await
    }

    /// One with another configuration.
    pub async fn start_as(changed: impl FnOnce(Config) -> Config) -> Self {
        let test = TestServer::start_with(|config| *config = changed(config.clone())).await;
        let listening = test.listen().await;
        Self { test, listening }
    }

    pub fn admin(&self) -> Caller {
        self.user("admin", &[MASTERS])
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listening.address
    }

    /// A node's agent.
    pub fn node(&self, name: &str) -> Caller {
        self.user(&format!("system:node:{name}"), &["system:nodes"])
    }

    /// Somebody over the network who shows nothing.
    pub fn anonymous(&self) -> Caller {
        self.remote(&self.listening, Default::default())
    }

    /// Somebody over the network with a bearer token.
    pub fn bearer(&self, token: &str) -> Caller {
        let auth = kube::config::AuthInfo { token: Some(token.to_string().into()), ..Default::default() };
        self.remote(&self.listening, auth)
    }

    /// Somebody over the network with a client certificate.
    pub fn certificate(&self, pair: &CertificateAndKey) -> Caller {
        self.test.certificate(&self.listening, pair)
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
