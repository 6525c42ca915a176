//! Acting as somebody else: only who may, and only as far as he may.

use serde_json::{Value, json};

use crate::cluster::{Caller, Cluster};

async fn whoami(caller: &Caller) -> Value {
    let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    caller.post(path, &review).await.expect(201)["status"]["userInfo"].clone()
}

#[tokio::test]
async fn the_admin_becomes_anybody_with_all_that_belongs_to_them() {
    let cluster = Cluster::start().await;
    let ada = cluster.admin().header("Impersonate-User", "ada").header("Impersonate-Group", "devs");
    let ada = ada.header("Impersonate-Uid", "7").header("Impersonate-Extra-Example.com%2fTeam", "red");
    assert_eq!(
        whoami(&ada).await,
        json!({"username": "ada", "uid": "7", "groups": ["devs", "system:authenticated"], "extra": {"example.com/team": ["red"]}})
    );
    ada.get("/api/v1/pods").await.refused();
    let robot = cluster.admin().header("Impersonate-User", "system:serviceaccount:team:robot");
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:team", "system:authenticated"]);
    assert_eq!(whoami(&robot).await["groups"], groups);
    let unknown = cluster.admin().header("Impersonate-User", "system:anonymous");
    let message = unknown.get("/api").await.refused();
    assert_eq!(message, "forbidden: User \"system:anonymous\" cannot get path \"/api\"");
    unknown.get("/version").await.expect(200);
}

#[tokio::test]
async fn every_part_needs_its_own_right() {
    let cluster = Cluster::start().await;
    let auth = "authentication.k8s.io";
    let rules = json!([
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["ada"]},
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["devs"]},
        {"verbs": ["impersonate"], "apiGroups": [auth], "resources": ["uids"], "resourceNames": ["7"]},
        {"verbs": ["impersonate"], "apiGroups": [auth], "resources": ["userextras/scopes"], "resourceNames": ["view"]},
    ]);
    cluster.cluster_role("as-ada", json!({}), rules).await;
    cluster.bind("", "as-ada", "user:eve").await;
    let eve = || cluster.user("eve", &[]);
    let ada = || eve().header("Impersonate-User", "ada");
    assert_eq!(whoami(&ada()).await["username"], "ada");
    let all = ada()
        .header("Impersonate-Group", "devs")
        .header("Impersonate-Uid", "7")
        .header("Impersonate-Extra-scopes", "view");
    assert_eq!(whoami(&all).await["extra"], json!({"scopes": ["view"]}));
    let message = eve().header("Impersonate-User", "admin").get("/api").await.refused();
    assert_eq!(
        message,
        "users \"admin\" is forbidden: User \"eve\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
    );
    let refused = [
        ada().header("Impersonate-Group", "devs").header("Impersonate-Group", "system:masters"),
        ada().header("Impersonate-Uid", "8"),
        ada().header("Impersonate-Extra-scopes", "edit"),
        ada().header("Impersonate-Extra-other", "view"),
        eve().header("Impersonate-User", "system:serviceaccount:kube-system:admin"),
    ];
    for caller in refused {
        caller.get("/api").await.refused();
    }
    eve().header("Impersonate-Group", "devs").get("/api").await.expect(400);
    eve().header("Impersonate-Extra-scopes", "view").get("/api").await.expect(400);
}

#[tokio::test]
async fn edit_acts_as_the_accounts_of_its_namespace() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    cluster.bind("team", "edit", "user:eva").await;
    let act = |account: &str| cluster.user("eva", &[]).header("Impersonate-User", account);
    assert_eq!(
        whoami(&act("system:serviceaccount:team:robot")).await["username"],
        "system:serviceaccount:team:robot"
    );
    act("system:serviceaccount:default:robot").get("/api").await.refused();
    act("eva2").get("/api").await.refused();
}
