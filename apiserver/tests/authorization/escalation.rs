//! Nobody gives rights that they do not have.

use serde_json::{Value, json};

use crate::cluster::{Cluster, RBAC, subject_of};

const GROUP: &str = "rbac.authorization.k8s.io";

fn role(kind: &str, name: &str, verbs: &[&str], resources: &[&str]) -> Value {
    json!({"kind": kind, "apiVersion": format!("{GROUP}/v1"), "metadata": {"name": name},
        "rules": [{"verbs": verbs, "apiGroups": [""], "resources": resources}]})
}

fn binding(kind: &str, role_kind: &str, role: &str, subject: &str) -> Value {
    json!({"kind": kind, "apiVersion": format!("{GROUP}/v1"), "metadata": {"name": "b"},
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role}, "subjects": [subject_of(subject)]})
}

#[tokio::test]
async fn a_namespaces_admin_makes_roles_only_of_what_he_has() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    cluster.bind("team", "admin", "user:olga").await;
    let olga = cluster.user("olga", &[]);
    let roles = format!("{RBAC}/namespaces/team/roles");
    olga.post(&roles, &role("Role", "reader", &["get", "list"], &["pods", "secrets"])).await.expect(201);
    let refused = olga.post(&roles, &role("Role", "more", &["update", "get"], &["nodes", "pods"])).await;
    assert_eq!(
        refused.refused(),
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"olga\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"update\" \"get\"]}"
    );
    // Neither by a change of any kind.
    let path = format!("{roles}/reader");
    let more = json!({"rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]});
    olga.merge(&path, &more).await.refused();
    let pointer = json!([{"op": "add", "path": "/rules/0/resources/-", "value": "nodes"}]).to_string();
    olga.send("PATCH", &path, "application/json-patch+json", pointer).await.refused();
    olga.put(&path, &role("Role", "reader", &["get"], &["nodes"])).await.refused();
    let applied = role("Role", "reader", &["get"], &["nodes"]).to_string();
    let apply = format!("{path}?fieldManager=x&force=true");
    olga.send("PATCH", &apply, "application/apply-patch+yaml", applied.clone()).await.refused();
    let apply = format!("{roles}/fresh?fieldManager=x");
    olga.send("PATCH", &apply, "application/apply-patch+yaml", applied.replace("reader", "fresh"))
        .await
        .refused();
    olga.merge(&path, &json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}))
        .await
        .expect(200);
}

#[tokio::test]
async fn what_somebody_has_in_one_namespace_he_gives_in_no_other() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    cluster.namespace("other").await;
    cluster.bind("team", "admin", "user:olga").await;
    let rules = json!([{"verbs": ["create", "update"], "apiGroups": [GROUP], "resources": ["roles", "rolebindings", "clusterroles", "clusterrolebindings"]}]);
    cluster.cluster_role("role-maker", json!({}), rules).await;
    cluster.bind("", "role-maker", "user:olga").await;
    let olga = cluster.user("olga", &[]);
    let reader = |kind| role(kind, "reader", &["get"], &["pods"]);
    olga.post(&format!("{RBAC}/namespaces/team/roles"), &reader("Role")).await.expect(201);
    olga.post(&format!("{RBAC}/namespaces/other/roles"), &reader("Role")).await.refused();
    olga.post(&format!("{RBAC}/clusterroles"), &reader("ClusterRole")).await.refused();
    let view = |kind| binding(kind, "ClusterRole", "view", "user:eve");
    olga.post(&format!("{RBAC}/namespaces/team/rolebindings"), &view("RoleBinding")).await.expect(201);
    olga.post(&format!("{RBAC}/namespaces/other/rolebindings"), &view("RoleBinding")).await.refused();
    olga.post(&format!("{RBAC}/clusterrolebindings"), &view("ClusterRoleBinding")).await.refused();
    let message = olga
        .post(
            &format!("{RBAC}/clusterrolebindings"),
            &binding("ClusterRoleBinding", "ClusterRole", "cluster-admin", "user:olga"),
        )
        .await
        .refused();
    assert!(
        message.ends_with(
            "{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}\n{NonResourceURLs:[\"*\"], Verbs:[\"*\"]}"
        ),
        "{message}"
    );
    let missing = binding("RoleBinding", "Role", "nowhere", "user:eve");
    let answer = olga.post(&format!("{RBAC}/namespaces/team/rolebindings"), &missing).await.expect(404);
    assert_eq!(answer["message"], "roles.rbac.authorization.k8s.io \"nowhere\" not found");
}

#[tokio::test]
async fn who_may_bind_a_role_binds_that_one_without_having_it() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    let rules = json!([
        {"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": ["edit"]},
        {"verbs": ["create"], "apiGroups": [GROUP], "resources": ["rolebindings", "clusterrolebindings"]},
    ]);
    cluster.cluster_role("binder", json!({}), rules).await;
    cluster.bind("team", "binder", "user:ben").await;
    let ben = cluster.user("ben", &[]);
    let bindings = format!("{RBAC}/namespaces/team/rolebindings");
    ben.post(&bindings, &binding("RoleBinding", "ClusterRole", "admin", "user:eve")).await.refused();
    ben.post(&bindings, &binding("RoleBinding", "ClusterRole", "edit", "user:eve")).await.expect(201);
    ben.post(
        &format!("{RBAC}/clusterrolebindings"),
        &binding("ClusterRoleBinding", "ClusterRole", "edit", "user:eve"),
    )
    .await
    .refused();
    assert!(cluster.user("eve", &[]).may("create", "pods", "team").await);
}

#[tokio::test]
async fn who_may_escalate_writes_any_rules_but_binds_none() {
    let cluster = Cluster::start().await;
    let rules = json!([{"verbs": ["create", "update", "patch", "get", "escalate"], "apiGroups": [GROUP], "resources": ["clusterroles"]},
        {"verbs": ["create"], "apiGroups": [GROUP], "resources": ["clusterrolebindings"]}]);
    cluster.cluster_role("escalator", json!({}), rules).await;
    cluster.bind("", "escalator", "user:eric").await;
    let eric = cluster.user("eric", &[]);
    eric.post(&format!("{RBAC}/clusterroles"), &role("ClusterRole", "all", &["*"], &["*"])).await.expect(201);
    eric.post(
        &format!("{RBAC}/clusterrolebindings"),
        &binding("ClusterRoleBinding", "ClusterRole", "all", "user:eric"),
    )
    .await
    .refused();
}

#[tokio::test]
async fn only_cluster_admins_aggregate() {
    let cluster = Cluster::start().await;
    let rules = json!([{"verbs": ["create", "update", "patch"], "apiGroups": [GROUP], "resources": ["clusterroles"]}]);
    cluster.cluster_role("role-maker", json!({}), rules).await;
    cluster.bind("", "role-maker", "user:olga").await;
    let olga = cluster.user("olga", &[]);
    let gather = json!({"kind": "ClusterRole", "apiVersion": format!("{GROUP}/v1"), "metadata": {"name": "all"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}, "rules": []});
    let message = olga.post(&format!("{RBAC}/clusterroles"), &gather).await.refused();
    assert!(message.ends_with("must have cluster-admin privileges to use the aggregationRule"), "{message}");
    olga.merge(&format!("{RBAC}/clusterroles/view"), &json!({"aggregationRule": null})).await.refused();
    olga.merge(&format!("{RBAC}/clusterroles/view"), &json!({"metadata": {"labels": {"x": "y"}}}))
        .await
        .refused();
    cluster.admin().post(&format!("{RBAC}/clusterroles"), &gather).await.expect(201);
}

#[tokio::test]
async fn the_garbage_collector_takes_finalizers_off_roles_that_it_could_not_write() {
    let cluster = Cluster::start().await;
    let mut strong = role("ClusterRole", "strong", &["*"], &["*"]);
    strong["metadata"]["finalizers"] = json!(["example.com/x"]);
    cluster.admin().post(&format!("{RBAC}/clusterroles"), &strong).await.expect(201);
    let rules = json!([{"verbs": ["patch"], "apiGroups": [GROUP], "resources": ["clusterroles"]}]);
    cluster.cluster_role("patcher", json!({}), rules).await;
    cluster.bind("", "patcher", "user:gc").await;
    let gc = cluster.user("gc", &[]);
    let path = format!("{RBAC}/clusterroles/strong");
    gc.merge(&path, &json!({"metadata": {"labels": {"a": "b"}}})).await.refused();
    gc.merge(&path, &json!({"metadata": {"finalizers": null}})).await.expect(200);
}
