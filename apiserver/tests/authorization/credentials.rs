//! Client certificates and bootstrap tokens.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pki::{Authority, CertificateAndKey, Leaf};
use serde_json::{Value, json};

use crate::cluster::{Caller, Cluster};

const ME: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

async fn whoami(caller: &Caller) -> Result<Value, u16> {
    let me = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    let answer = caller.post(ME, &me).await;
    if answer.code == 201 { Ok(answer.body["status"]["userInfo"].clone()) } else { Err(answer.code) }
}

#[tokio::test]
async fn a_certificate_of_ours_says_who_one_is() {
    let cluster = Cluster::start().await;
    let ada = cluster.certificate(&cluster.issue("ada", Some("devs")));
    let me = whoami(&ada).await.unwrap();
    assert_eq!((&me["username"], &me["groups"]), (&json!("ada"), &json!(["devs", "system:authenticated"])));
    cluster.certificate(&cluster.pki.admin).get("/api/v1/nodes").await.expect(200);
}

#[tokio::test]
async fn certificates_that_are_not_good_are_answered_with_401() {
    let cluster = Cluster::start().await;
    let ours = &cluster.pki.authority;
    let now = Timestamp::now();
    let leaf = |user: &str| Leaf::client(user, Some("system:masters"));
    let theirs = Authority::create("theirs", now).unwrap();
    // One that calls itself as ours does.
    let namesake = Authority::create("gantry-ca", now).unwrap();
    let expired = Leaf { lifetime: Duration::from_secs(60), ..leaf("ada") };
    let serving = Leaf { usage: pki::Usage::Server, dns_names: vec!["ada".into()], ..leaf("ada") };
    let bad: [(&str, CertificateAndKey); 6] = [
        ("of another authority", theirs.issue(&leaf("ada"), now).unwrap()),
        ("of a namesake", namesake.issue(&leaf("ada"), now).unwrap()),
        ("expired", ours.issue(&expired, now - SignedDuration::from_hours(1)).unwrap()),
        ("not yet valid", ours.issue(&leaf("ada"), now + SignedDuration::from_hours(1)).unwrap()),
        ("without a name", ours.issue(&leaf(""), now).unwrap()),
        ("for a server", ours.issue(&serving, now).unwrap()),
    ];
    for (what, pair) in bad {
        assert_eq!(whoami(&cluster.certificate(&pair)).await, Err(401), "{what}");
    }
}

#[tokio::test]
async fn a_certificate_that_expires_ends_on_a_connection_that_lives() {
    let cluster = Cluster::start().await;
    let short = Leaf { lifetime: Duration::from_secs(2), ..Leaf::client("ada", None) };
    let ada = cluster.certificate(&cluster.pki.authority.issue(&short, Timestamp::now()).unwrap());
    assert!(whoami(&ada).await.is_ok());
    tokio::time::sleep(Duration::from_millis(3200)).await;
    assert_eq!(whoami(&ada).await, Err(401));
}

async fn bootstrap_secret(cluster: &Cluster, id: &str, fields: Value) {
    let mut data = json!({"token-id": id, "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
        "auth-extra-groups": "system:bootstrappers:agents,system:masters"});
    for (field, value) in fields.as_object().unwrap() {
        data[field] = value.clone();
    }
    let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": format!("bootstrap-token-{id}")},
        "type": "bootstrap.kubernetes.io/token", "stringData": data});
    cluster.admin().post("/api/v1/namespaces/kube-system/secrets", &secret).await.expect(201);
}

#[tokio::test]
async fn a_bootstrap_token_counts_while_it_is_meant_to() {
    let cluster = Cluster::start().await;
    bootstrap_secret(&cluster, "aaaaaa", json!({})).await;
    bootstrap_secret(&cluster, "bbbbbb", json!({"expiration": "2020-01-01T00:00:00Z"})).await;
    bootstrap_secret(&cluster, "cccccc", json!({"usage-bootstrap-authentication": "false"})).await;
    bootstrap_secret(&cluster, "dddddd", json!({"token-id": "aaaaaa"})).await;
    bootstrap_secret(&cluster, "eeeeee", json!({"expiration": "2120-01-01T00:00:00Z"})).await;
    bootstrap_secret(&cluster, "ffffff", json!({"expiration": "soon"})).await;
    let with = async |token: &str| whoami(&cluster.bearer(token)).await;
    let me = with("aaaaaa.0123456789abcdef").await.unwrap();
    assert_eq!(me["username"], "system:bootstrap:aaaaaa");
    assert_eq!(
        me["groups"],
        json!(["system:bootstrappers", "system:bootstrappers:agents", "system:authenticated"])
    );
    assert!(with("eeeeee.0123456789abcdef").await.is_ok());
    for id in ["bbbbbb", "cccccc", "dddddd", "ffffff", "gggggg"] {
        assert_eq!(with(&format!("{id}.0123456789abcdef")).await, Err(401), "{id}");
    }
    for wrong in ["aaaaaa.0123456789abcdeg", "aaaaaa.0123456789abcde", "aaaaaa.", "aaaaaa"] {
        assert_eq!(with(wrong).await, Err(401), "{wrong}");
    }
    let node = cluster.bearer("aaaaaa.0123456789abcdef");
    node.get("/apis/certificates.k8s.io/v1/certificatesigningrequests").await.expect(200);
    node.get("/api/v1/namespaces/kube-system/secrets").await.refused();
    node.get("/api/v1/nodes").await.refused();
}
