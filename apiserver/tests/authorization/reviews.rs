//! Questions about rights: reviews, raw and as `kubectl auth can-i` asks them.

use serde_json::{Value, json};

use crate::cluster::Cluster;

const REVIEWS: &str = "/apis/authorization.k8s.io/v1";

fn review(kind: &str, spec: Value) -> Value {
    json!({"kind": kind, "apiVersion": "authorization.k8s.io/v1", "spec": spec})
}

#[tokio::test]
async fn others_are_asked_about_by_those_who_may() {
    let cluster = Cluster::start().await;
    cluster.bind("default", "view", "user:vera").await;
    cluster.bind("", "system:auth-delegator", "user:agent").await;
    let agent = cluster.user("agent", &[]);
    let path = format!("{REVIEWS}/subjectaccessreviews");
    let ask = |user: &str, verb: &str| {
        review(
            "SubjectAccessReview",
            json!({"user": user, "resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}),
        )
    };
    let answer = agent.post(&path, &ask("vera", "get")).await.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
    assert_eq!(
        answer["status"]["reason"],
        "RBAC: allowed by RoleBinding \"view-user-vera/default\" of ClusterRole \"view\" to User \"vera\""
    );
    let answer = agent.post(&path, &ask("vera", "delete")).await.expect(201);
    assert_eq!(answer["status"], json!({"allowed": false}));
    let masters = review(
        "SubjectAccessReview",
        json!({"groups": ["system:masters"], "nonResourceAttributes": {"verb": "get", "path": "/x"}}),
    );
    assert_eq!(agent.post(&path, &masters).await.expect(201)["status"]["allowed"], true);
    cluster.user("vera", &[]).post(&path, &ask("vera", "get")).await.refused();
}

#[tokio::test]
async fn questions_that_make_no_sense_are_refused() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let resource = json!({"verb": "get", "resource": "pods", "namespace": "default"});
    let path = json!({"verb": "get", "path": "/"});
    let table = [
        (
            "SubjectAccessReview",
            json!({"resourceAttributes": resource}),
            "at least one of user or group must be specified",
        ),
        (
            "SubjectAccessReview",
            json!({"user": "a"}),
            "exactly one of nonResourceAttributes or resourceAttributes",
        ),
        (
            "SelfSubjectAccessReview",
            json!({"resourceAttributes": resource, "nonResourceAttributes": path}),
            "cannot be specified in combination",
        ),
    ];
    for (kind, spec, why) in table {
        let answer =
            admin.post(&format!("{REVIEWS}/{}s", kind.to_lowercase()), &review(kind, spec)).await.expect(422);
        assert!(answer["message"].as_str().unwrap().contains(why), "{answer:#}");
    }
    let local = review("LocalSubjectAccessReview", json!({"user": "a", "resourceAttributes": resource}));
    let place = |namespace: &str| format!("{REVIEWS}/namespaces/{namespace}/localsubjectaccessreviews");
    admin.post(&place("default"), &local).await.expect(201);
    admin.post(&place("other"), &local).await.expect(422);
}

#[tokio::test]
async fn what_one_may_is_listed() {
    let cluster = Cluster::start().await;
    cluster.bind("default", "view", "user:vera").await;
    let path = format!("{REVIEWS}/selfsubjectrulesreviews");
    let ask = |namespace: &str| review("SelfSubjectRulesReview", json!({"namespace": namespace}));
    let vera = cluster.user("vera", &[]);
    let status = vera.post(&path, &ask("default")).await.expect(201)["status"].clone();
    assert_eq!(
        (&status["incomplete"], status.get("evaluationError")),
        (&json!(false), None),
        "kubectl would warn"
    );
    let rules = status["resourceRules"].as_array().unwrap();
    let grants = |verb: &str, resource: &str| {
        rules
            .iter()
            .any(|r| r["verbs"].to_string().contains(verb) && r["resources"].to_string().contains(resource))
    };
    assert!(
        grants("get", "\"pods\"")
            && grants("create", "selfsubjectaccessreviews")
            && !grants("get", "secrets")
    );
    assert!(status["nonResourceRules"].to_string().contains("/healthz"));
    let elsewhere = vera.post(&path, &ask("other")).await.expect(201)["status"].clone();
    assert!(!elsewhere["resourceRules"].to_string().contains("\"pods\""));
    vera.post(&path, &ask("")).await.expect(400);
    let node = cluster.node("n1").post(&path, &ask("default")).await.expect(201);
    assert_eq!(node["status"]["incomplete"], true);
    assert_eq!(node["status"]["evaluationError"], "node authorizer does not support user rule resolution");
}

#[tokio::test]
async fn verbs_of_ones_own_can_be_granted_and_asked_about() {
    let cluster = Cluster::start().await;
    let rules = json!([{"verbs": ["frobnicate"], "apiGroups": ["example.com"], "resources": ["widgets"]}]);
    cluster.cluster_role("frobnicator", json!({}), rules).await;
    cluster.bind("", "frobnicator", "user:ada").await;
    let ada = cluster.user("ada", &[]);
    assert!(ada.may("frobnicate", "example.com:widgets", "default").await);
    assert!(!ada.may("twiddle", "example.com:widgets", "default").await);
    assert!(!ada.may("other", "example.com:widgets", "default").await);
}
