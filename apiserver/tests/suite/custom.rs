//! Custom resources: served once established, shaped by their schema, gone with their definition.

use std::time::Duration;

use serde_json::{Value, json};

use crate::server::{TestServer, names};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn definition() -> Value {
    json!({"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"kind": "Widget", "plural": "widgets", "shortNames": ["wd"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["size"], "properties": {
                        "size": {"type": "integer", "minimum": 1},
                        "replicas": {"type": "integer", "default": 1},
                        "color": {"type": "string", "enum": ["red", "blue"]}}},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}}}]}})
}

async fn established(test: &TestServer) {
    test.post(DEFINITIONS, &definition()).await.expect(201);
    for _ in 0..100 {
        let current = test.get(&format!("{DEFINITIONS}/widgets.example.com")).await.expect(200);
        let conditions = current["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the definition is not established");
}

fn widget(spec: Value) -> Value {
    json!({"kind": "Widget", "apiVersion": "example.com/v1", "metadata": {"name": "w"}, "spec": spec})
}

#[tokio::test]
async fn a_definition_should_add_a_resource_that_is_no_special_case() {
    let test = TestServer::start().await;
    established(&test).await;
    let created = test.post(WIDGETS, &widget(json!({"size": 3, "junk": 1}))).await.expect(201);
    assert_eq!(created["spec"], json!({"size": 3, "replicas": 1}), "pruned and defaulted");
    assert_eq!(created["metadata"]["generation"], 1);
    let refused = test.post(WIDGETS, &widget(json!({"size": 0, "color": "green"}))).await.expect(422);
    assert_eq!(refused["details"]["causes"].as_array().unwrap().len(), 2, "{refused}");
    let path = format!("{WIDGETS}/w");
    let reported =
        test.merge(&format!("{path}/status"), &json!({"status": {"replicas": 1}})).await.expect(200);
    assert_eq!(
        (&reported["status"]["replicas"], &reported["metadata"]["generation"]),
        (&json!(1), &json!(1))
    );
    let scaled = test.merge(&format!("{path}/scale"), &json!({"spec": {"replicas": 5}})).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 5);
    let object = json!({"kind": "Widget", "apiVersion": "example.com/v1", "metadata": {"name": "w"}, "spec": {"size": 4}});
    let applied = test.apply(&format!("{path}?force=true"), "me", &object).await.expect(200);
    assert_eq!((&applied["spec"]["size"], &applied["metadata"]["generation"]), (&json!(4), &json!(3)));
    test.send("PATCH", &path, "application/strategic-merge-patch+json", "{}").await.expect(415);
    assert_eq!(names(&test.get(WIDGETS).await.expect(200)), ["w"]);
    let resources = test.get("/apis/example.com/v1").await.expect(200);
    assert_eq!(resources["resources"][0]["shortNames"], json!(["wd"]));
}

#[tokio::test]
async fn a_definition_should_take_its_objects_along() {
    let test = TestServer::start().await;
    established(&test).await;
    test.post(WIDGETS, &widget(json!({"size": 1}))).await.expect(201);
    test.delete(&format!("{DEFINITIONS}/widgets.example.com")).await.expect(200);
    for _ in 0..100 {
        if test.get(&format!("{DEFINITIONS}/widgets.example.com")).await.code == 404 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    test.get(&format!("{DEFINITIONS}/widgets.example.com")).await.expect(404);
    established(&test).await;
    assert!(names(&test.get(WIDGETS).await.expect(200)).is_empty());
}
