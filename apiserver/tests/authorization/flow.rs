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
        "nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": {"type": "Queue", "queuing": queuing}}}});
    make(&admin, "PriorityLevelConfiguration", "prioritylevelconfigurations", group, level).await;
    let rules = json!([{"subjects": [{"kind": "User", "user": {"name": "noisy"}}], "resourceRules": [
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]}]);
    let schema = json!({"metadata": {"name": "narrow"}, "spec": {"matchingPrecedence": 10,
        "priorityLevelConfiguration": {"name": "narrow"}, "distinguisherMethod": {"type": "ByUser"}, "rules": rules}});
    make(&admin, "FlowSchema", "flowschemas", group, schema).await;
}

async fn metric(admin: &Caller, name: &str) -> String {
    let metrics = admin.get("/metrics").await.expect(200);
    let wanted = format!("apiserver_flowcontrol_{name}{{priority_level=\"narrow\"");
    let line = metrics.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&wanted));
    line.and_then(|line| line.rsplit(' ').next()).unwrap_or_default().to_string()
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
        while metric(&admin, "current_inqueue_requests").await != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), full).await.expect("three run and one waits");
    assert_eq!(metric(&admin, "current_executing_seats").await, "3");
    let refused = noisy.get(MAPS).await;
    for (header, plural) in [("flowschema", "flowschemas"), ("prioritylevel", "prioritylevelconfigurations")]
    {
        let object = admin.get(&format!("{FLOW}/{plural}/narrow")).await.expect(200);
        let told = refused.headers.get(format!("x-kubernetes-pf-{header}-uid")).unwrap();
        assert_eq!(told.to_str().unwrap(), object["metadata"]["uid"], "also to those who are sent away");
    }
    assert_eq!(refused.headers.get("retry-after").unwrap(), "1");
    let refused = refused.expect(429);
    assert_eq!(
        (&refused["reason"], &refused["details"]["retryAfterSeconds"]),
        (&json!("TooManyRequests"), &json!(1))
    );
    cluster.user("calm", &[]).get(MAPS).await.expect(200);
    assert_eq!(metric(&admin, "rejected_requests_total").await, "1");
    assert_eq!(metric(&admin, "nominal_limit_seats").await, "3");
    gate.add_permits(100);
    for request in held {
        assert_eq!(request.await.unwrap(), 201);
    }
    assert_eq!(metric(&admin, "dispatched_requests_total").await, "4");
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

/// Asks for an object until it is as it should come to be.
async fn eventually(admin: &Caller, path: &str, what: &str, is: impl Fn(&Value) -> bool) {
    for _ in 0..600 {
        let answer = admin.get(path).await;
        if is(&answer.body) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within half a minute: {what}");
}

#[tokio::test]
async fn schemas_say_whether_their_level_is_there() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    narrow(&cluster).await;
    let schema = format!("{FLOW}/flowschemas/narrow");
    let dangling = |wanted: &'static str| {
        move |schema: &Value| {
            let condition = &schema["status"]["conditions"][0];
            condition["type"] == "Dangling" && condition["status"] == wanted
        }
    };
    eventually(&admin, &schema, "the level is there", dangling("False")).await;
    admin.delete(&format!("{FLOW}/prioritylevelconfigurations/narrow")).await.expect(200);
    eventually(&admin, &schema, "the level is gone", dangling("True")).await;
    cluster.bind("", "cluster-admin", "user:noisy").await;
    let noisy = cluster.user("noisy", &[]);
    let answer = noisy.get(MAPS).await;
    assert_eq!(answer.code, 200, "the next schema that matches is used");
    assert!(answer.headers.contains_key("x-kubernetes-pf-flowschema-uid"));
    let forbidden = cluster.user("nobody", &[]).get(MAPS).await;
    assert_eq!(forbidden.code, 403);
    assert!(forbidden.headers.contains_key("x-kubernetes-pf-prioritylevel-uid"));
}

#[tokio::test]
async fn what_every_cluster_has_comes_back_and_stays_what_it_is() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let schema = format!("{FLOW}/flowschemas/catch-all");
    admin.delete(&schema).await.expect(200);
    eventually(&admin, &schema, "the last schema comes back", |schema| schema["kind"] == "FlowSchema").await;
    let level = format!("{FLOW}/prioritylevelconfigurations/workload-low");
    let shares = |number: i64| json!({"spec": {"limited": {"nominalConcurrencyShares": number}}});
    let is =
        |number: i64| move |level: &Value| level["spec"]["limited"]["nominalConcurrencyShares"] == number;
    admin.merge(&level, &shares(7)).await.expect(200);
    eventually(&admin, &level, "it is what it was", is(100)).await;
    let mut mine = shares(7);
    mine["metadata"] = json!({"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}});
    admin.merge(&level, &mine).await.expect(200);
    // Another change is settled after this one.
    admin.delete(&schema).await.expect(200);
    eventually(&admin, &schema, "the last schema comes back", |schema| schema["kind"] == "FlowSchema").await;
    assert!(is(7)(&admin.get(&level).await.expect(200)), "it is the user's now");
}
