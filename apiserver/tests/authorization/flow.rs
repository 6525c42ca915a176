//! Who sends much waits for itself, and is sent away with advice when too many wait.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::cluster::{Caller, Cluster};
use crate::https::HttpsServer;

const FLOW: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn make(admin: &Caller, kind: &str, plural: &str, group: &str, body: Value) {
    let mut object = json!({"kind": kind, "apiVersion": group});
    for (field, value) in body.as_object().unwrap() {
        object[field] = value.clone();
    }
    admin.post(&format!("/apis/{group}/{plural}"), &object).await.expect(201);
}

/// A level with three seats and one place to wait, for the user `noisy`.
async fn narrow(cluster: &Cluster) {
    let admin = cluster.admin();
    let group = "flowcontrol.apiserver.k8s.io/v1";
    let queuing = json!({"queues": 1, "handSize": 1, "queueLengthLimit": 1});
    let level = json!({"metadata": {"name": "narrow"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 1, "limitResponse": {"type": "Queue", "queuing": queuing}}}});
    make(&admin, "PriorityLevelConfiguration", "prioritylevelconfigurations", group, level).await;
    let rules = json!([{"subjects": [{"kind": "User", "user": {"name": "noisy"}}], "resourceRules": [
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]}]);
    let schema = json!({"metadata": {"name": "narrow"}, "spec": {"matchingPrecedence": 10,
        "priorityLevelConfiguration": {"name": "narrow"}, "distinguisherMethod": {"type": "ByUser"}, "rules": rules}});
    make(&admin, "FlowSchema", "flowschemas", group, schema).await;
}

async fn metric(admin: &Caller, name: &str) -> String {
    let metrics = admin.get("/metrics").await.expect(200);
    let wanted = format!("{name}{{priority_level=\"narrow\"}} ");
    let line = metrics.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&wanted));
    line.unwrap_or_default().to_string()
}

#[tokio::test]
async fn a_noisy_user_fills_its_own_level_and_nobody_elses() {
    let cluster = Cluster::start().await;
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let hook = HttpsServer::start(&cluster.pki.authority, "hook", move |_, review| {
        let gate = opened.clone();
        Box::pin(async move {
            let _passed = gate.acquire().await.unwrap();
            let response = json!({"uid": review["request"]["uid"], "allowed": true});
            (
                200,
                json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
                    .to_string(),
            )
        })
    })
    .await;
    narrow(&cluster).await;
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]);
    let client = json!({"url": format!("https://{}/", hook.address), "caBundle": STANDARD.encode(cluster.pki.authority.certificate_pem())});
    let hooks = json!([{"name": "gate.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 30, "clientConfig": client, "rules": rules}]);
    let admin = cluster.admin();
    make(
        &admin,
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        "admissionregistration.k8s.io/v1",
        json!({"metadata": {"name": "gate"}, "webhooks": hooks}),
    )
    .await;
    cluster.bind("", "cluster-admin", "user:noisy").await;
    cluster.bind("", "cluster-admin", "user:calm").await;
    let noisy = cluster.user("noisy", &[]);
    let held: Vec<_> = (0..4)
        .map(|number| {
            let noisy = noisy.clone();
            let map =
                json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": format!("m{number}")}});
            tokio::spawn(async move { noisy.post(MAPS, &map).await.code })
        })
        .collect();
    let full = async {
        while metric(&admin, "apiserver_flowcontrol_current_inqueue_requests").await != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), full).await.expect("three run and one waits");
    assert_eq!(metric(&admin, "apiserver_flowcontrol_current_executing_seats").await, "3");
    let refused = noisy.get(MAPS).await.expect(429);
    assert_eq!(
        (&refused["reason"], &refused["details"]["retryAfterSeconds"]),
        (&json!("TooManyRequests"), &json!(1))
    );
    cluster.user("calm", &[]).get(MAPS).await.expect(200);
    gate.add_permits(100);
    for request in held {
        assert_eq!(request.await.unwrap(), 201);
    }
    noisy.get(MAPS).await.expect(200);
}

#[tokio::test]
async fn a_new_cluster_has_the_levels_and_schemas_that_users_know() {
    let cluster = Cluster::start().await;
    let names = |list: Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_string()).collect()
    };
    let admin = cluster.admin();
    let levels = names(admin.get(&format!("{FLOW}/prioritylevelconfigurations")).await.expect(200));
    assert_eq!(
        levels,
        [
            "catch-all",
            "exempt",
            "global-default",
            "leader-election",
            "node-high",
            "system",
            "workload-high",
            "workload-low"
        ]
    );
    let schemas = names(admin.get(&format!("{FLOW}/flowschemas")).await.expect(200));
    assert_eq!(schemas.len(), 11);
}
