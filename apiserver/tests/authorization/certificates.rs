//! Requests for certificates: who asks as whom, and whose approval counts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pki::Leaf;
use serde_json::{Value, json};

use crate::cluster::{Caller, Cluster};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";

fn request(name: &str, user: &str, group: Option<&str>, signer: &str) -> Value {
    let pem =
        pki::certificate_request(&Leaf::client(user, group), jiff::Timestamp::now()).unwrap().certificate_pem;
    json!({"kind": "CertificateSigningRequest", "apiVersion": "certificates.k8s.io/v1", "metadata": {"name": name},
        "spec": {"request": STANDARD.encode(pem), "signerName": signer, "usages": ["digital signature", "client auth"]}})
}

async fn approve(caller: &Caller, name: &str) -> u16 {
    let condition = json!({"type": "Approved", "status": "True", "reason": "Test", "message": "yes"});
    let patch = json!({"status": {"conditions": [condition]}});
    caller.merge(&format!("{REQUESTS}/{name}/approval"), &patch).await.code
}

#[tokio::test]
async fn a_request_carries_who_made_it_whatever_it_says() {
    let cluster = Cluster::start().await;
    let mut forged = request("a", "system:node:n1", Some("system:nodes"), KUBELET);
    forged["spec"]["username"] = "system:node:n1".into();
    forged["spec"]["groups"] = json!(["system:nodes", "system:masters"]);
    let joining = cluster.user("system:bootstrap:aaaaaa", &["system:bootstrappers"]);
    let made = joining.post(REQUESTS, &forged).await.expect(201);
    assert_eq!(made["spec"]["username"], "system:bootstrap:aaaaaa");
    assert_eq!(made["spec"]["groups"], json!(["system:bootstrappers", "system:authenticated"]));
    assert_ne!(approve(&joining, "a").await, 200);
}

#[tokio::test]
async fn nobody_asks_to_be_a_master_and_no_node_to_be_another() {
    let cluster = Cluster::start().await;
    let message =
        cluster.admin().post(REQUESTS, &request("a", "eve", Some("system:masters"), CLIENT)).await.refused();
    assert!(
        message.contains(
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
        ),
        "{message}"
    );
    cluster.admin().post(REQUESTS, &request("b", "eve", Some("devs"), CLIENT)).await.expect(201);
    let node = cluster.node("n1");
    node.post(REQUESTS, &request("c", "system:node:n1", Some("system:nodes"), KUBELET)).await.expect(201);
    let message =
        node.post(REQUESTS, &request("d", "system:node:n2", Some("system:nodes"), KUBELET)).await.refused();
    assert!(message.contains("can only create a node CSR with CN=system:node:n1"), "{message}");
}

#[tokio::test]
async fn an_approval_needs_the_right_to_approve_that_signer() {
    let cluster = Cluster::start().await;
    let csr = json!({"verbs": ["get", "update", "patch"], "apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval", "certificatesigningrequests/status"]});
    let right = |verb: &str, name: &str| json!({"verbs": [verb], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": [name]});
    cluster.cluster_role("writer", json!({}), json!([csr])).await;
    cluster.cluster_role("approver", json!({}), json!([csr, right("approve", CLIENT)])).await;
    cluster.cluster_role("any-approver", json!({}), json!([csr, right("approve", "kubernetes.io/*")])).await;
    for role in ["writer", "approver", "any-approver"] {
        cluster.bind("", role, &format!("user:{role}")).await;
    }
    let admin = cluster.admin();
    for (name, signer) in [("client", CLIENT), ("kubelet", KUBELET)] {
        let asked = request(name, "system:node:n1", Some("system:nodes"), signer);
        admin.post(REQUESTS, &asked).await.expect(201);
    }
    let by = |role: &str| cluster.user(role, &[]);
    assert_eq!(approve(&by("writer"), "client").await, 403);
    assert_eq!(approve(&by("approver"), "kubelet").await, 403);
    assert_eq!(approve(&by("approver"), "client").await, 200);
    assert_eq!(approve(&by("any-approver"), "kubelet").await, 200);
    let certificate =
        json!({"status": {"certificate": STANDARD.encode(cluster.pki.authority.certificate_pem())}});
    let status = format!("{REQUESTS}/client/status");
    let message = by("any-approver").merge(&status, &certificate).await.refused();
    assert!(message.contains("user not permitted to sign requests with signerName"), "{message}");
    cluster.user("system:kube-controller-manager", &[]).merge(&status, &certificate).await.expect(200);
}
