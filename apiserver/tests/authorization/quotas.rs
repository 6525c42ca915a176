//! Quotas: what is there is counted with every write, and never more than is allowed. The count is begun here by hand, as
//! the controller would.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Answer, Caller, Cluster};

const QUOTAS: &str = "/api/v1/namespaces/team/resourcequotas";
const PODS: &str = "/api/v1/namespaces/team/pods";

struct Team {
    _cluster: Cluster,
    admin: Caller,
}

impl Team {
    /// A namespace with one quota that counts from nothing.
    async fn with(spec: Value) -> Self {
        let cluster = Cluster::start().await;
        cluster.namespace("team").await;
        let admin = cluster.admin();
        let team = Self { _cluster: cluster, admin };
        team.quota("q", spec).await;
        team
    }

    async fn quota(&self, name: &str, spec: Value) {
        let quota =
            json!({"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": name}, "spec": spec});
        self.admin.post(QUOTAS, &quota).await.expect(201);
        let nothing: serde_json::Map<String, Value> =
            spec["hard"].as_object().unwrap().keys().map(|key| (key.clone(), json!("0"))).collect();
        let status = json!({"status": {"hard": spec["hard"], "used": nothing}});
        self.admin.merge(&format!("{QUOTAS}/{name}/status"), &status).await.expect(200);
    }

    async fn used(&self, name: &str) -> Value {
        self.admin.get(&format!("{QUOTAS}/{name}")).await.expect(200)["status"]["used"].clone()
    }

    async fn pod(&self, name: &str, spec: Value) -> Answer {
        let mut pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]}});
        for (field, value) in spec.as_object().unwrap() {
            pod["spec"][field] = value.clone();
        }
        self.admin.post(PODS, &pod).await
    }
}

fn asks(requests: Value, limits: Value) -> Value {
    json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": requests, "limits": limits}}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_created_at_once_never_exceeds_the_quota() {
    let team = Team::with(json!({"hard": {"pods": "10", "count/configmaps": "3"}})).await;
    let pods = (0..40).map(|number| {
        let team = &team;
        async move { team.pod(&format!("p{number}"), json!({})).await.code }
    });
    let codes = futures::future::join_all(pods).await;
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 10, "{codes:?}");
    assert!(codes.iter().all(|code| [201, 403].contains(code)), "{codes:?}");
    assert_eq!(team.used("q").await, json!({"pods": "10", "count/configmaps": "0"}));
    let there = team.admin.get(PODS).await.expect(200)["items"].as_array().unwrap().len();
    assert_eq!(there, 10);
    let refused = team.pod("more", json!({})).await.refused();
    assert_eq!(
        refused,
        "pods \"more\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=10, limited: pods=10"
    );
}

#[tokio::test]
async fn what_goes_or_ends_is_given_back_at_once() {
    let team = Team::with(json!({"hard": {"pods": "2", "count/pods": "3", "requests.cpu": "1"}})).await;
    let cpu = |cpu: &str| asks(json!({"cpu": cpu}), json!({}));
    team.pod("a", cpu("400m")).await.expect(201);
    team.pod("b", cpu("500m")).await.expect(201);
    assert_eq!(team.used("q").await, json!({"pods": "2", "count/pods": "2", "requests.cpu": "900m"}));
    let done = json!({"status": {"phase": "Succeeded"}});
    team.admin.merge(&format!("{PODS}/a/status"), &done).await.expect(200);
    assert_eq!(team.used("q").await, json!({"pods": "1", "count/pods": "2", "requests.cpu": "500m"}));
    team.admin.delete(&format!("{PODS}/b")).await.expect(200);
    team.admin.delete(&format!("{PODS}/a")).await.expect(200);
    assert_eq!(team.used("q").await, json!({"pods": "0", "count/pods": "0", "requests.cpu": "0"}));
    team.pod("c", cpu("1100m")).await.refused();
    team.admin
        .post(
            &format!("{PODS}?dryRun=All"),
            &json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "d"}, "spec": cpu("1")}),
        )
        .await
        .expect(201);
    assert_eq!(team.used("q").await["requests.cpu"], "0", "a dry run is checked and not charged");
}

#[tokio::test]
async fn an_object_that_waits_for_its_finalizers_counts_until_it_is_gone() {
    let team = Team::with(json!({"hard": {"configmaps": "1"}})).await;
    let path = "/api/v1/namespaces/team/configmaps";
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "m", "finalizers": ["example.com/f"]}});
    team.admin.post(path, &map).await.expect(201);
    team.admin.delete(&format!("{path}/m")).await.expect(200);
    assert_eq!(team.used("q").await, json!({"configmaps": "1"}));
    team.admin.merge(&format!("{path}/m"), &json!({"metadata": {"finalizers": null}})).await.expect(200);
    assert_eq!(team.used("q").await, json!({"configmaps": "0"}));
    team.admin.get(&format!("{path}/m")).await.expect(404);
}

#[tokio::test]
async fn containers_say_what_is_limited_unless_a_range_says_it_for_them() {
    let team = Team::with(json!({"hard": {"limits.memory": "1Gi", "requests.cpu": "1"}})).await;
    assert_eq!(
        team.pod("p", json!({})).await.refused(),
        "pods \"p\" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c"
    );
    let range = json!({"kind": "LimitRange", "apiVersion": "v1", "metadata": {"name": "r"}, "spec": {"limits": [
        {"type": "Container", "default": {"memory": "100Mi"}, "defaultRequest": {"cpu": "10m"}}]}});
    team.admin.post("/api/v1/namespaces/team/limitranges", &range).await.expect(201);
    team.pod("p", json!({})).await.expect(201);
    assert_eq!(team.used("q").await, json!({"limits.memory": "100Mi", "requests.cpu": "10m"}));
}

#[tokio::test]
async fn scopes_choose_what_a_quota_counts() {
    let team = Team::with(json!({"scopes": ["BestEffort"], "hard": {"pods": "1"}})).await;
    let high =
        json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]});
    team.quota("high", json!({"scopeSelector": high, "hard": {"pods": "1"}})).await;
    let class = json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": "high"}, "value": 5});
    team.admin.post("/apis/scheduling.k8s.io/v1/priorityclasses", &class).await.expect(201);
    team.pod("a", json!({})).await.expect(201);
    assert!(team.pod("b", json!({})).await.refused().contains("exceeded quota: q, requested: pods=1"));
    let mut burstable = asks(json!({"cpu": "1m"}), json!({}));
    team.pod("c", burstable.clone()).await.expect(201);
    burstable["priorityClassName"] = "high".into();
    team.pod("d", burstable.clone()).await.expect(201);
    assert!(team.pod("e", burstable).await.refused().contains("exceeded quota: high"));
    assert_eq!((team.used("q").await, team.used("high").await), (json!({"pods": "1"}), json!({"pods": "1"})));
}

#[tokio::test]
async fn services_and_claims_count_by_what_they_ask_for() {
    let team = Team::with(json!({"hard": {
        "services": "2", "services.nodeports": "2", "services.loadbalancers": "0", "count/services": "5",
        "requests.storage": "3Gi", "fast.storageclass.storage.k8s.io/requests.storage": "1Gi"}}))
    .await;
    let services = "/api/v1/namespaces/team/services";
    let service = |name: &str, kind: &str| {
        json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name}, "spec": {
        "type": kind, "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}})
    };
    team.admin.post(services, &service("n", "NodePort")).await.expect(201);
    assert!(
        team.admin
            .post(services, &service("l", "LoadBalancer"))
            .await
            .refused()
            .contains("requested: services.loadbalancers=1,services.nodeports=2")
    );
    let plain =
        json!({"spec": {"type": "ClusterIP", "ports": [{"name": "a", "port": 80, "nodePort": null}]}});
    team.admin.merge(&format!("{services}/n"), &plain).await.expect(200);
    let used = team.used("q").await;
    assert_eq!((&used["services"], &used["services.nodeports"]), (&json!("1"), &json!("0")));
    let claim = |name: &str, class: &str, size: &str| {
        json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": {"name": name},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}})
    };
    let claims = "/api/v1/namespaces/team/persistentvolumeclaims";
    team.admin.post(claims, &claim("a", "slow", "2Gi")).await.expect(201);
    assert!(team.admin.post(claims, &claim("b", "fast", "2Gi")).await.refused().contains("exceeded quota"));
    team.admin.post(claims, &claim("b", "fast", "1Gi")).await.expect(201);
    assert_eq!(team.used("q").await["requests.storage"], "3Gi");
}

#[tokio::test]
async fn a_write_that_an_uncounted_quota_lets_through_makes_the_count_start_over() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    let admin = cluster.admin();
    let quota = json!({"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "1"}}});
    let seen = admin.post(QUOTAS, &quota).await.expect(201);
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "m"}});
    admin.post("/api/v1/namespaces/team/configmaps", &map).await.expect(201);
    let mut counted = seen;
    counted["status"] = json!({"hard": {"configmaps": "1"}, "used": {"configmaps": "0"}});
    let path = format!("{QUOTAS}/q/status");
    admin.put(&path, &counted).await.expect(409);
    // What goes away needs no count.
    let limits_only = json!({"status": {"hard": {"configmaps": "1"}}});
    admin.merge(&path, &limits_only).await.expect(200);
    let refused = admin
        .post(
            "/api/v1/namespaces/team/configmaps",
            &json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "n"}}),
        )
        .await;
    assert!(refused.refused().contains("status unknown for quota: q, resources: configmaps"));
    admin.delete("/api/v1/namespaces/team/configmaps/m").await.expect(200);
    tokio::time::timeout(Duration::from_secs(30), admin.delete(&format!("{QUOTAS}/q")))
        .await
        .unwrap()
        .expect(200);
}
