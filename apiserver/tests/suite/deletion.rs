//! Deletion: at once, gracefully, with finalizers and preconditions.

use serde_json::json;

use crate::server::{CONFIG_MAPS, TestServer, config_map, make_config_maps, names};

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn pod(test: &TestServer, name: &str) {
    test.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": name, "labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    test.post(PODS, &pod).await.expect(201);
}

#[tokio::test]
async fn finalizers_should_hold_an_object_until_they_are_gone() {
    let test = TestServer::start().await;
    let mut object = config_map("a");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    test.post(CONFIG_MAPS, &object).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let going = test.delete(&path).await.expect(200);
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 0);
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    test.merge(&path, &more).await.expect(422);
    test.merge(&path, &json!({"metadata": {"finalizers": null}})).await.expect(200);
    test.get(&path).await.expect(404);
}

#[tokio::test]
async fn preconditions_should_protect_another_object_of_the_same_name() {
    let test = TestServer::start().await;
    let created = test.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let with = |uid: &str| json!({"preconditions": {"uid": uid}}).to_string();
    let refused = test.send("DELETE", &path, "application/json", with("other")).await.expect(409);
    assert!(refused["message"].as_str().unwrap().contains("Precondition failed: UID in precondition: other"));
    let uid = created["metadata"]["uid"].as_str().unwrap();
    let done = test.send("DELETE", &path, "application/json", with(uid)).await.expect(200);
    assert_eq!((&done["status"], &done["details"]["uid"]), (&json!("Success"), &json!(uid)));
}

#[tokio::test]
async fn a_pod_on_a_node_should_be_deleted_gracefully() {
    let test = TestServer::start().await;
    pod(&test, "p").await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    test.post(&format!("{PODS}/p/binding"), &binding).await.expect(201);
    let bound = test.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(bound["metadata"]["generation"], 1, "a node is no change of what is wanted of a pod");
    test.post(&format!("{PODS}/p/binding"), &binding).await.expect(409);
    let going = test.delete(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    let sooner = test.delete(&format!("{PODS}/p?gracePeriodSeconds=5")).await.expect(200);
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 5);
    let never_later = test.delete(&format!("{PODS}/p?gracePeriodSeconds=50")).await.expect(200);
    assert_eq!(never_later["metadata"]["deletionGracePeriodSeconds"], 5);
    test.delete(&format!("{PODS}/p?gracePeriodSeconds=0")).await.expect(200);
    test.get(&format!("{PODS}/p")).await.expect(404);
}

#[tokio::test]
async fn a_pod_on_no_node_should_go_at_once() {
    let test = TestServer::start().await;
    pod(&test, "p").await;
    test.delete(&format!("{PODS}/p")).await.expect(200);
    test.get(&format!("{PODS}/p")).await.expect(404);
}

#[tokio::test]
async fn a_collection_should_be_deleted_by_selector() {
    let test = TestServer::start().await;
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"tier": tier});
        test.post(CONFIG_MAPS, &object).await.expect(201);
    }
    test.delete(&format!("{CONFIG_MAPS}?labelSelector=tier%3Dx")).await.expect(200);
    assert_eq!(names(&test.get(CONFIG_MAPS).await.expect(200)), ["b"]);
}

#[tokio::test]
async fn propagation_should_be_left_as_a_finalizer() {
    let test = TestServer::start().await;
    make_config_maps(&test, ["a", "b"]).await;
    let going = test.delete(&format!("{CONFIG_MAPS}/a?propagationPolicy=Foreground")).await.expect(200);
    assert_eq!(going["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let going = test.delete(&format!("{CONFIG_MAPS}/b?propagationPolicy=Orphan")).await.expect(200);
    assert_eq!(going["metadata"]["finalizers"], json!(["orphan"]));
    test.delete(&format!("{CONFIG_MAPS}/b?propagationPolicy=Sideways")).await.expect(422);
}

#[tokio::test]
async fn an_eviction_should_keep_within_the_budget() {
    let test = TestServer::start().await;
    pod(&test, "p").await;
    let running =
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    test.merge(&format!("{PODS}/p/status"), &running).await.expect(200);
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    test.post(budgets, &budget).await.expect(201);
    let eviction = json!({"metadata": {"name": "p"}});
    let early = test.post(&format!("{PODS}/p/eviction"), &eviction).await.expect(429);
    assert_eq!(early["details"]["causes"][0]["reason"], "DisruptionBudget");
    let allow = |count: i64| {
        json!({"status": {"observedGeneration": 1, "disruptionsAllowed": count,
        "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}})
    };
    test.merge(&format!("{budgets}/b/status"), &allow(0)).await.expect(200);
    test.post(&format!("{PODS}/p/eviction"), &eviction).await.expect(429);
    test.merge(&format!("{budgets}/b/status"), &allow(1)).await.expect(200);
    let mut watch = test.watch(&format!("{PODS}?watch=1")).await;
    assert_eq!(watch.next().await.unwrap().0, "ADDED");
    test.post(&format!("{PODS}/p/eviction"), &eviction).await.expect(201);
    let (kind, marked) = watch.next().await.unwrap();
    let conditions = marked["status"]["conditions"].as_array().unwrap();
    let why = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!((kind.as_str(), &why["reason"]), ("MODIFIED", &json!("EvictionByEvictionAPI")));
    assert_eq!(watch.next().await.unwrap().0, "DELETED");
    test.get(&format!("{PODS}/p")).await.expect(404);
    let after = test.get(&format!("{budgets}/b")).await.expect(200);
    assert_eq!(after["status"]["disruptionsAllowed"], 0);
}

#[tokio::test]
async fn an_eviction_should_only_be_of_the_pod_that_is_meant() {
    let test = TestServer::start().await;
    pod(&test, "p").await;
    let path = format!("{PODS}/p/eviction");
    let of = |preconditions: serde_json::Value| json!({"metadata": {"name": "p"}, "deleteOptions": {"preconditions": preconditions}});
    test.post(&path, &of(json!({"uid": "another"}))).await.expect(409);
    test.post(&path, &of(json!({"resourceVersion": "1"}))).await.expect(409);
    let live = test.get(&format!("{PODS}/p")).await.expect(200);
    assert!(live["status"].get("conditions").is_none(), "{live}");
    let version = &live["metadata"]["resourceVersion"];
    test.post(&path, &of(json!({"resourceVersion": version}))).await.expect(201);
    test.get(&format!("{PODS}/p")).await.expect(404);
}
