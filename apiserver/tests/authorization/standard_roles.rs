//! The roles that a cluster starts with do what upstream's do, and no more.

use serde_json::{Value, json};

use crate::cluster::{Caller, Cluster, RBAC, subject_of};

/// Checks a table of verbs and resources.
async fn check(caller: &Caller, namespace: &str, expected: bool, table: &[(&str, &str)]) {
    for (verb, what) in table {
        let allowed = caller.may(verb, what, namespace).await;
        assert_eq!(allowed, expected, "{verb} {what} in {namespace:?}");
    }
}

#[tokio::test]
async fn view_reads_nearly_everything_but_secrets_and_rights() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    cluster.bind("team", "view", "user:vera").await;
    let vera = cluster.user("vera", &[]);
    let yes = [
        ("get", "pods"),
        ("list", "pods"),
        ("watch", "pods"),
        ("get", "pods/log"),
        ("get", "configmaps"),
        ("list", "apps:deployments"),
        ("get", "apps:deployments/scale"),
        ("get", "batch:jobs"),
        ("get", "events"),
        ("list", "events.k8s.io:events"),
        ("get", "services"),
        ("get", "serviceaccounts"),
        ("get", "resourcequotas"),
        ("list", "discovery.k8s.io:endpointslices"),
        ("get", "metrics.k8s.io:pods"),
        ("get", "namespaces"),
    ];
    check(&vera, "team", true, &yes).await;
    let no = [
        ("get", "secrets"),
        ("list", "secrets"),
        ("create", "pods"),
        ("delete", "pods"),
        ("get", "pods/exec"),
        ("create", "pods/exec"),
        ("create", "pods/portforward"),
        ("patch", "apps:deployments"),
        ("get", "rbac.authorization.k8s.io:roles"),
        ("create", "serviceaccounts/token"),
        ("impersonate", "serviceaccounts"),
    ];
    check(&vera, "team", false, &no).await;
    check(&vera, "default", false, &[("get", "pods"), ("list", "configmaps")]).await;
    check(&vera, "", false, &[("list", "pods"), ("get", "nodes"), ("list", "namespaces")]).await;

    vera.get("/api/v1/namespaces/team/pods").await.expect(200);
    let message = vera.get("/api/v1/namespaces/team/secrets").await.refused();
    let expected = "secrets is forbidden: User \"vera\" cannot list resource \"secrets\" in API group \"\" in the namespace \"team\"";
    assert_eq!(message, expected);
    let message = vera.get("/apis/apps/v1/deployments").await.refused();
    let expected = "deployments.apps is forbidden: User \"vera\" cannot list resource \"deployments\" in API group \"apps\" at the cluster scope";
    assert_eq!(message, expected);
}

#[tokio::test]
async fn edit_changes_workloads_and_secrets_but_neither_rights_nor_quotas() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    cluster.bind("team", "edit", "user:eva").await;
    let eva = cluster.user("eva", &[]);
    let yes = [
        ("get", "pods"),
        ("create", "pods"),
        ("delete", "pods"),
        ("create", "pods/exec"),
        ("get", "secrets"),
        ("patch", "secrets"),
        ("update", "apps:deployments"),
        ("patch", "apps:deployments/scale"),
        ("create", "serviceaccounts/token"),
        ("impersonate", "serviceaccounts"),
        ("create", "pods/eviction"),
        ("deletecollection", "configmaps"),
        ("create", "coordination.k8s.io:leases"),
        ("create", "events"),
        ("create", "networking.k8s.io:networkpolicies"),
        ("update", "policy:poddisruptionbudgets"),
    ];
    check(&eva, "team", true, &yes).await;
    let no = [
        ("get", "rbac.authorization.k8s.io:roles"),
        ("create", "rbac.authorization.k8s.io:rolebindings"),
        ("create", "resourcequotas"),
        ("create", "limitranges"),
        ("update", "pods/status"),
        ("delete", "namespaces"),
        ("create", "authorization.k8s.io:localsubjectaccessreviews"),
        ("create", "endpoints"),
    ];
    check(&eva, "team", false, &no).await;
    check(&eva, "default", false, &yes).await;
}

#[tokio::test]
async fn admin_rules_a_namespace_and_nothing_outside() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    cluster.bind("team", "admin", "group:owners").await;
    let olga = cluster.user("olga", &["owners"]);
    let yes = [
        ("get", "secrets"),
        ("create", "pods"),
        ("create", "rbac.authorization.k8s.io:roles"),
        ("delete", "rbac.authorization.k8s.io:rolebindings"),
        ("create", "authorization.k8s.io:localsubjectaccessreviews"),
        ("get", "pods/log"),
        ("create", "pods/exec"),
    ];
    check(&olga, "team", true, &yes).await;
    check(
        &olga,
        "team",
        false,
        &[("create", "resourcequotas"), ("update", "namespaces"), ("delete", "namespaces")],
    )
    .await;
    check(&olga, "default", false, &yes).await;
    let no = [
        ("get", "nodes"),
        ("list", "secrets"),
        ("create", "rbac.authorization.k8s.io:clusterroles"),
        ("create", "namespaces"),
    ];
    check(&olga, "", false, &no).await;
}

#[tokio::test]
async fn masters_and_cluster_admins_do_everything() {
    let cluster = Cluster::start().await;
    cluster.bind("", "cluster-admin", "user:root").await;
    let everything = [
        ("*", "*:*"),
        ("frobnicate", "example.com:widgets"),
        ("delete", "nodes"),
        ("escalate", "rbac.authorization.k8s.io:clusterroles"),
    ];
    check(&cluster.admin(), "", true, &everything).await;
    check(&cluster.user("root", &[]), "", true, &everything).await;
    cluster.user("root", &[]).get("/metrics").await.expect(200);
}

#[tokio::test]
async fn everybody_who_is_known_discovers_and_asks_about_themselves() {
    let cluster = Cluster::start().await;
    let nobody = cluster.user("nobody", &[]);
    for path in [
        "/api",
        "/apis",
        "/api/v1",
        "/apis/apps/v1",
        "/openapi/v2",
        "/openapi/v3",
        "/version",
        "/healthz",
        "/livez",
        "/readyz",
    ] {
        assert_eq!(nobody.get(path).await.code, 200, "{path}");
    }
    for path in ["/metrics", "/openid/v1/jwks", "/", "/nonsense"] {
        let message = nobody.get(path).await.refused();
        assert_eq!(message, format!("forbidden: User \"nobody\" cannot get path \"{path}\""));
    }
    let me = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    let me = nobody.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &me).await.expect(201);
    assert_eq!(me["status"]["userInfo"], json!({"username": "nobody", "groups": ["system:authenticated"]}));
    check(
        &nobody,
        "default",
        false,
        &[("get", "pods"), ("create", "authorization.k8s.io:subjectaccessreviews")],
    )
    .await;
}

#[tokio::test]
async fn the_unknown_see_only_whether_the_server_lives() {
    let cluster = Cluster::start().await;
    let unknown = cluster.anonymous();
    for path in ["/healthz", "/livez", "/readyz", "/version", "/version/"] {
        assert_eq!(unknown.get(path).await.code, 200, "{path}");
    }
    for path in
        ["/", "/api", "/apis", "/api/v1", "/openapi/v2", "/metrics", "/openid/v1/jwks", "/livez/../metrics"]
    {
        let message = unknown.get(path).await.refused();
        assert!(message.starts_with("forbidden: User \"system:anonymous\" cannot get path"), "{message}");
    }
    unknown.get("/api/v1/namespaces/default/pods").await.refused();
    unknown.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &json!({})).await.refused();
}

#[tokio::test]
async fn pods_find_the_keys_of_their_issuer() {
    let cluster = Cluster::start().await;
    let pod = cluster.user("system:serviceaccount:default:x", &["system:serviceaccounts"]);
    let configuration = pod.get("/.well-known/openid-configuration").await.expect(200);
    assert_eq!(configuration["issuer"], crate::cluster::ISSUER);
    assert_eq!(configuration["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let keys = pod.get("/openid/v1/jwks").await.expect(200);
    assert_eq!(keys["keys"][0]["crv"], "P-256");
}

#[tokio::test]
async fn an_older_cluster_gets_what_its_roles_lack_and_keeps_what_was_added() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let role = |name: &str| format!("{RBAC}/clusterroles/{name}");
    let mine = json!({"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["widgets"]});
    admin.merge(&role("system:kube-controller-manager"), &json!({"rules": [mine]})).await.expect(200);
    let keep = json!({"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}, "rules": []});
    admin.merge(&role("system:node-problem-detector"), &keep).await.expect(200);
    let binding = format!("{RBAC}/clusterrolebindings/system:kube-scheduler");
    admin.merge(&binding, &json!({"subjects": [subject_of("user:me")]})).await.expect(200);
    admin.delete(&role("system:kube-dns")).await.expect(200);
    let before = admin.get(&role("view")).await.expect(200);
    let manager = cluster.user("system:kube-controller-manager", &[]);
    let apply = json!({"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "edit"},
        "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]});
    assert_eq!(
        manager.put(&role("edit"), &apply).await.code,
        403,
        "without its rules the aggregation is refused"
    );

    let admin = cluster.another().await;
    let rules = admin.get(&role("system:kube-controller-manager")).await.expect(200)["rules"].clone();
    assert_eq!(rules[0], mine);
    let escalates =
        |rule: &Value| rule["verbs"] == json!(["escalate"]) && rule["resources"] == json!(["clusterroles"]);
    assert!(rules.as_array().unwrap().iter().any(escalates), "{rules:#}");
    let kept = admin.get(&role("system:node-problem-detector")).await.expect(200);
    assert_eq!(kept["rules"], json!([]));
    let subjects = admin.get(&binding).await.expect(200)["subjects"].clone();
    assert_eq!(subjects, json!([subject_of("user:me"), subject_of("user:system:kube-scheduler")]));
    admin.get(&role("system:kube-dns")).await.expect(200);
    let after = admin.get(&role("view")).await.expect(200);
    assert_eq!(
        after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"],
        "nothing is written without need"
    );
}
