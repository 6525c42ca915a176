//! Pods meet the standards of their namespace, or are refused, noted and warned of.

use apiserver::Security;
use apiserver::admission::pod_security::{Level, PodSecurityConfig, Policy, Standard};
use serde_json::{Value, json};

use crate::cluster::Cluster;

const PODS: &str = "/api/v1/namespaces/team/pods";

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    pod
}

async fn label(cluster: &Cluster, labels: Value) -> crate::cluster::Answer {
    cluster.admin().merge("/api/v1/namespaces/team", &json!({"metadata": {"labels": labels}})).await
}

#[tokio::test]
async fn what_a_namespace_enforces_is_refused_even_to_administrators() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    let admin = cluster.admin();
    let bad = pod("p", json!({"hostNetwork": true}));
    admin.post(&format!("{PODS}?dryRun=All"), &bad).await.expect(201);
    label(&cluster, json!({"pod-security.kubernetes.io/enforce": "baseline"})).await.expect(200);
    assert_eq!(
        admin.post(PODS, &bad).await.refused(),
        "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    admin.post(PODS, &pod("good", json!({}))).await.expect(201);
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i", "securityContext": {"privileged": true}}]}});
    let refused = admin
        .send(
            "PATCH",
            &format!("{PODS}/good/ephemeralcontainers"),
            "application/strategic-merge-patch+json",
            debug.to_string(),
        )
        .await;
    assert!(refused.refused().contains("container \"e\" must not set securityContext.privileged=true"));
    let label_of_pod = json!({"metadata": {"labels": {"a": "b"}}});
    label(&cluster, json!({"pod-security.kubernetes.io/enforce": "restricted"})).await.expect(200);
    admin.merge(&format!("{PODS}/good"), &label_of_pod).await.expect(200);
    let image = json!({"spec": {"containers": [{"name": "c", "image": "other"}]}});
    let patch = "application/strategic-merge-patch+json";
    let changed = admin.send("PATCH", &format!("{PODS}/good"), patch, image.to_string()).await;
    assert!(changed.refused().contains("violates PodSecurity \"restricted:latest\""));
}

#[tokio::test]
async fn what_makes_pods_is_warned_of_and_what_is_there_is_told() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    let admin = cluster.admin();
    admin.post(PODS, &pod("old", json!({"hostPID": true}))).await.expect(201);
    let told = label(&cluster, json!({"pod-security.kubernetes.io/enforce": "baseline"})).await;
    assert_eq!(
        told.warnings,
        [
            "299 - \"existing pods in namespace \\\"team\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\"\"",
            "299 - \"old: host namespaces\""
        ]
    );
    let deployment = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"hostIPC": true, "containers": [{"name": "c", "image": "i"}]}}}});
    let made = admin.post("/apis/apps/v1/namespaces/team/deployments", &deployment).await;
    assert_eq!(made.code, 201);
    assert_eq!(
        made.warnings,
        ["299 - \"would violate PodSecurity \\\"baseline:latest\\\": host namespaces (hostIPC=true)\""]
    );
    let answer = label(&cluster, json!({"pod-security.kubernetes.io/warn": "strict"})).await.expect(422);
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \"strict\": must be one of privileged, baseline, restricted"), "{message}");
}

#[tokio::test]
async fn an_administrator_sets_defaults_and_exemptions() {
    let defaults = Policy { enforce: Standard { level: Level::Baseline, minor: None }, ..Policy::default() };
    let pod_security = PodSecurityConfig {
        defaults,
        exempt_users: vec!["installer".to_string()],
        exempt_namespaces: vec!["kube-system".to_string()],
        exempt_runtime_classes: vec!["sandboxed".to_string()],
    };
    let cluster = Cluster::start_with(Security { pod_security, ..Security::default() }).await;
    cluster.namespace("team").await;
    cluster.account("kube-system", "default").await;
    cluster.bind("", "cluster-admin", "user:installer").await;
    let bad = pod("p", json!({"hostNetwork": true}));
    let admin = cluster.admin();
    admin.post(PODS, &bad).await.refused();
    let dry = |namespace: &str| format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    admin.post(&dry("kube-system"), &bad).await.expect(201);
    cluster.user("installer", &[]).post(&dry("team"), &bad).await.expect(201);
    let class = json!({"kind": "RuntimeClass", "apiVersion": "node.k8s.io/v1", "metadata": {"name": "sandboxed"}, "handler": "h"});
    admin.post("/apis/node.k8s.io/v1/runtimeclasses", &class).await.expect(201);
    admin
        .post(&dry("team"), &pod("p", json!({"hostNetwork": true, "runtimeClassName": "sandboxed"})))
        .await
        .expect(201);
    label(&cluster, json!({"pod-security.kubernetes.io/enforce": "privileged"})).await.expect(200);
    admin.post(PODS, &bad).await.expect(201);
}
