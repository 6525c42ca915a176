//! Bindings by user, group and account; what names, subresources and paths in a rule mean; roles that aggregate others.

use serde_json::json;

use crate::cluster::{Cluster, RBAC};

#[tokio::test]
async fn a_binding_counts_from_the_moment_it_is_made_to_the_moment_it_is_gone() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    let ada = cluster.user("ada", &[]);
    for round in 0..20 {
        ada.get("/api/v1/namespaces/team/pods").await.refused();
        let binding = cluster.bind("team", "view", "user:ada").await;
        assert_eq!(ada.get("/api/v1/namespaces/team/pods").await.code, 200, "round {round}");
        let name = binding["metadata"]["name"].as_str().unwrap();
        cluster.admin().delete(&format!("{RBAC}/namespaces/team/rolebindings/{name}")).await.expect(200);
        // The cache of the server that has answered the deletion may be a moment behind.
        cluster.server.objects().catch_up().await;
    }
}

#[tokio::test]
async fn accounts_are_bound_by_name_and_by_their_groups() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    cluster.bind("", "view", "account:team:robot").await;
    cluster.bind("team", "edit", "group:system:serviceaccounts:team").await;
    let groups = ["system:serviceaccounts", "system:serviceaccounts:team"];
    let robot = cluster.user("system:serviceaccount:team:robot", &groups);
    let other = cluster.user("system:serviceaccount:team:other", &groups);
    assert!(robot.may("list", "pods", "").await);
    assert!(!other.may("list", "pods", "").await);
    assert!(other.may("create", "pods", "team").await);
    // A person who calls himself so is not the account's group.
    assert!(!cluster.user("robot", &[]).may("list", "pods", "").await);
}

#[tokio::test]
async fn a_name_in_a_rule_limits_it_also_for_lists_and_watches() {
    let cluster = Cluster::start().await;
    let rules = json!([{"verbs": ["get", "list", "watch", "create", "deletecollection"], "apiGroups": [""],
        "resources": ["configmaps"], "resourceNames": ["mine"]}]);
    cluster.cluster_role("one-map", json!({}), rules).await;
    cluster.bind("default", "one-map", "user:ada").await;
    let ada = cluster.user("ada", &[]);
    let maps = "/api/v1/namespaces/default/configmaps";
    for name in ["mine", "other"] {
        let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}});
        cluster.admin().post(maps, &map).await.expect(201);
    }
    ada.get(&format!("{maps}/mine")).await.expect(200);
    ada.get(&format!("{maps}/other")).await.refused();
    ada.get(maps).await.refused();
    let listed = ada.get(&format!("{maps}?fieldSelector=metadata.name%3Dmine")).await.expect(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let watch = format!("{maps}?watch=true&timeoutSeconds=1&fieldSelector=metadata.name");
    assert_eq!(ada.get(&format!("{watch}%3Dmine")).await.code, 200);
    ada.get(&format!("{watch}%3Dother")).await.refused();
    for trick in
        ["metadata.name!%3Dmine", "metadata.name%3Dmine%5C%2C", "metadata.name", "metadata.namespace%3Dmine"]
    {
        assert_eq!(ada.get(&format!("{maps}?fieldSelector={trick}")).await.code, 403, "{trick}");
    }
    let twice = format!("{maps}?fieldSelector=metadata.name%3Dmine&fieldSelector=metadata.name%3Dother");
    let listed = ada.get(&twice).await;
    assert!(listed.code != 200 || !listed.body.to_string().contains("\"other\""), "{:#}", listed.body);
    ada.get(&format!("{maps}/other?watch=true")).await.refused();
    // Names are not known when something is created, and collections are not deleted by name.
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "mine"}});
    ada.post(maps, &map).await.refused();
    ada.delete(&format!("{maps}?fieldSelector=metadata.name%3Dmine")).await.refused();
}

#[tokio::test]
async fn subresources_and_paths_are_granted_apart() {
    let cluster = Cluster::start().await;
    let rules = json!([
        {"verbs": ["patch"], "apiGroups": ["apps"], "resources": ["deployments/scale"]},
        {"verbs": ["get"], "apiGroups": ["*"], "resources": ["*/status"]},
        {"verbs": ["get"], "nonResourceURLs": ["/metrics", "/debug/*"]},
    ]);
    cluster.cluster_role("parts", json!({}), rules).await;
    cluster.bind("", "parts", "user:ada").await;
    let ada = cluster.user("ada", &[]);
    assert!(ada.may("patch", "apps:deployments/scale", "default").await);
    assert!(!ada.may("patch", "apps:deployments", "default").await);
    assert!(!ada.may("patch", "apps:deployments/status", "default").await);
    assert!(ada.may("get", "batch:jobs/status", "default").await);
    assert!(!ada.may("get", "batch:jobs", "default").await);
    ada.get("/metrics").await.expect(200);
    ada.get("/debug/pprof").await.expect(404);
    ada.get("/metricsx").await.refused();
}

#[tokio::test]
async fn paths_in_a_namespaced_binding_grant_nothing() {
    let cluster = Cluster::start().await;
    let rules = json!([{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]);
    cluster.cluster_role("metrics", json!({}), rules).await;
    cluster.bind("default", "metrics", "user:ada").await;
    cluster.user("ada", &[]).get("/metrics").await.refused();
}

#[tokio::test]
async fn a_role_that_says_edit_should_include_it_is_included_at_once() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    cluster.bind("team", "admin", "user:olga").await;
    cluster.bind("team", "view", "user:vera").await;
    let (olga, vera) = (cluster.user("olga", &[]), cluster.user("vera", &[]));
    assert!(!olga.may("create", "example.com:widgets", "team").await);
    let rules = json!([{"verbs": ["create"], "apiGroups": ["example.com"], "resources": ["widgets"]}]);
    let label = |which: &str| json!({format!("rbac.authorization.k8s.io/aggregate-to-{which}"): "true"});
    cluster.cluster_role("widget-edit", label("edit"), rules.clone()).await;
    assert!(olga.may("create", "example.com:widgets", "team").await, "admin includes edit");
    assert!(!vera.may("create", "example.com:widgets", "team").await);
    let rules = json!([{"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["widgets"]}]);
    cluster.cluster_role("widget-view", label("view"), rules).await;
    assert!(vera.may("get", "example.com:widgets", "team").await);
    assert!(olga.may("get", "example.com:widgets", "team").await, "admin includes edit, which includes view");
    // And no longer than it is there, whatever is stored with the aggregating roles.
    cluster.admin().delete(&format!("{RBAC}/clusterroles/widget-edit")).await.expect(200);
    cluster.server.objects().catch_up().await;
    assert!(!olga.may("create", "example.com:widgets", "team").await);
}
