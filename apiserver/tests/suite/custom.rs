//! Custom resources: served once established, shaped by their schema, gone with their definition.

use std::time::Duration;

use serde_json::{Value, json};

use crate::server::{TestServer, name, names, version};

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
    define(test, &definition(), "Established", "True").await;
}

/// Makes a definition and waits until a condition of it is as expected.
pub async fn define(test: &TestServer, definition: &Value, condition: &str, status: &str) -> Value {
    test.post(DEFINITIONS, definition).await.expect(201);
    let path = format!("{DEFINITIONS}/{}", name(definition));
    let reached = |object: &Value| {
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == condition && c["status"] == status)
    };
    until(test, &path, reached).await
}

/// Reads until what is read is as expected.
async fn until(test: &TestServer, path: &str, reached: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..500 {
        let answer = test.get(path).await;
        if reached(&answer.body) {
            return answer.body;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{path} does not become what is expected");
}

/// A second version, in which color may be selected.
fn two_versions() -> Value {
    let mut definition = definition();
    let mut second = definition["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    second["selectableFields"] = json!([{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.size"}]);
    second["additionalPrinterColumns"] =
        json!([{"name": "Color", "type": "string", "jsonPath": ".spec.color"}]);
    definition["spec"]["versions"].as_array_mut().unwrap().push(second);
    definition
}

fn widget(spec: Value) -> Value {
    json!({"kind": "Widget", "apiVersion": "example.com/v1", "metadata": {"name": "w"}, "spec": spec})
}

#[tokio::test]
async fn patches_should_not_make_objects_larger_than_the_server_keeps() {
    let test = TestServer::start().await;
    let mut free = definition();
    free["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    define(&test, &free, "Established", "True").await;
    test.post(WIDGETS, &widget(json!({"size": 1, "text": "x".repeat(1_000_000)}))).await.expect(201);
    let path = format!("{WIDGETS}/w");
    let copy = |to: &str| json!({"op": "copy", "from": "/spec/text", "path": to});
    let add = json!({"op": "add", "path": "/spec/more", "value": "x".repeat(2_800_000)});
    let patch = json!([copy("/spec/a"), copy("/spec/b"), copy("/spec/c"), add]).to_string();
    let refused = test.send("PATCH", &path, "application/json-patch+json", patch).await.expect(413);
    assert_eq!(refused["message"], "Request entity too large: limit is 6291456");
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

#[tokio::test]
async fn versions_should_be_one_object_seen_differently() {
    let test = TestServer::start().await;
    define(&test, &two_versions(), "Established", "True").await;
    let created = test.post(WIDGETS, &widget(json!({"size": 3, "color": "red"}))).await.expect(201);
    let second = WIDGETS.replace("/v1/", "/v2/");
    let path = format!("{second}/w");
    let seen = test.get(&path).await.expect(200);
    assert_eq!(seen["apiVersion"], "example.com/v2");
    assert_eq!((&seen["spec"], &seen["metadata"]["uid"]), (&created["spec"], &created["metadata"]["uid"]));
    let mut watch = test.watch(&format!("{second}?watch=1&resourceVersion={}", version(&created))).await;
    test.merge(&path, &json!({"spec": {"color": "blue"}})).await.expect(200);
    let (kind, object) = watch.next().await.unwrap();
    assert_eq!((kind.as_str(), &object["apiVersion"]), ("MODIFIED", &json!("example.com/v2")));
    assert_eq!(test.get(&format!("{WIDGETS}/w")).await.expect(200)["spec"]["color"], "blue");
    let wrong = test.post(&second, &widget(json!({"size": 3}))).await.expect(400);
    assert!(wrong["message"].as_str().unwrap().contains("does not match the expected API version"));
    for (versioned, columns) in [(WIDGETS, ["Name", "Size"]), (second.as_str(), ["Name", "Color"])] {
        let request = http::Request::builder()
            .uri(versioned)
            .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
            .body(Vec::new())
            .unwrap();
        let table: Value = test.client.request(request).await.unwrap();
        let shown: Vec<_> =
            table["columnDefinitions"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
        assert_eq!(shown, columns, "{versioned}");
    }
}

#[tokio::test]
async fn what_is_applied_in_another_version_should_be_merged_in_that_one() {
    let test = TestServer::start().await;
    define(&test, &two_versions(), "Established", "True").await;
    let path = format!("{}/w", WIDGETS.replace("/v1/", "/v2/"));
    let wanted = |spec: Value| {
        let mut wanted = widget(spec);
        wanted["apiVersion"] = "example.com/v2".into();
        wanted
    };
    let applied = test.apply(&path, "me", &wanted(json!({"size": 3, "color": "red"}))).await.expect(201);
    assert_eq!((&applied["apiVersion"], &applied["spec"]["size"]), (&json!("example.com/v2"), &json!(3)));
    let entry = &applied["metadata"]["managedFields"][0];
    assert_eq!((&entry["apiVersion"], &entry["manager"]), (&json!("example.com/v2"), &json!("me")));
    let refused = test.apply(&path, "you", &wanted(json!({"size": 4}))).await.expect(409);
    assert_eq!(refused["details"]["causes"][0]["field"], ".spec.size");
    let less = test.apply(&path, "me", &wanted(json!({"size": 3}))).await.expect(200);
    assert!(less["spec"].get("color").is_none(), "{less}");
    let stored = test.get(&format!("{WIDGETS}/w")).await.expect(200);
    assert_eq!((&stored["apiVersion"], &stored["spec"]["size"]), (&json!("example.com/v1"), &json!(3)));
}

#[tokio::test]
async fn definitions_should_say_by_which_fields_their_objects_are_selected() {
    let test = TestServer::start().await;
    define(&test, &two_versions(), "Established", "True").await;
    for (name, color, size) in [("a", "red", 1), ("b", "blue", 2), ("c", "red", 3)] {
        let mut object = widget(json!({"size": size, "color": color}));
        object["metadata"]["name"] = name.into();
        test.post(WIDGETS, &object).await.expect(201);
    }
    let second = WIDGETS.replace("/v1/", "/v2/");
    let select = async |test: &TestServer, selector: &str| {
        test.get(&format!("{second}?fieldSelector={selector}")).await.expect(200)
    };
    assert_eq!(names(&select(&test, "spec.color%3Dred").await), ["a", "c"]);
    assert_eq!(names(&select(&test, "spec.color%3Dred,spec.size!%3D1").await), ["c"]);
    assert_eq!(names(&select(&test, "spec.size%3D2").await), ["b"]);
    let refused = test.get(&format!("{WIDGETS}?fieldSelector=spec.color%3Dred")).await.expect(400);
    assert_eq!(refused["message"], "field label not supported: spec.color", "the first version offers none");
    let mut watch = test.watch(&format!("{second}?watch=1&fieldSelector=spec.color%3Dblue")).await;
    assert_eq!(watch.next_name().await, ("ADDED".to_string(), "b".to_string()));
    test.merge(&format!("{WIDGETS}/a"), &json!({"spec": {"color": "blue"}})).await.expect(200);
    assert_eq!(watch.next_name().await, ("ADDED".to_string(), "a".to_string()));
    test.merge(&format!("{WIDGETS}/b"), &json!({"spec": {"color": "red"}})).await.expect(200);
    assert_eq!(watch.next_name().await, ("DELETED".to_string(), "b".to_string()));
    // A server that finds definition and objects in its store selects alike.
    let again = test.another().await;
    let listed = |object: &Value| object["items"].is_array();
    until(&again, &second, listed).await;
    assert_eq!(names(&select(&again, "spec.color%3Dred").await), ["b", "c"]);
}

#[tokio::test]
async fn definitions_should_be_found_and_published_soon() {
    let test = TestServer::start().await;
    established(&test).await;
    // What is established is served: discovery at once, the document within moments.
    let groups = test.get("/apis/example.com").await.expect(200);
    assert_eq!(groups["preferredVersion"]["groupVersion"], "example.com/v1");
    let document = "/openapi/v3/apis/example.com/v1";
    let published = until(&test, document, |d| d["components"]["schemas"].is_object()).await;
    let schema = &published["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["minimum"], 1);
    let swagger =
        until(&test, "/openapi/v2", |d| d["definitions"]["com.example.v1.Widget"].is_object()).await;
    assert!(swagger["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"].is_object());
    test.delete(&format!("{DEFINITIONS}/widgets.example.com")).await.expect(200);
    until(&test, "/apis/example.com", |answer| answer["code"] == 404).await;
    until(&test, document, |answer| answer["code"] == 404).await;
}

#[tokio::test]
async fn names_that_are_taken_should_not_be_accepted() {
    let test = TestServer::start().await;
    established(&test).await;
    let mut other = definition();
    other["metadata"]["name"] = "gadgets.example.com".into();
    other["spec"]["names"] = json!({"kind": "Gadget", "plural": "gadgets", "shortNames": ["wd"]});
    let refused = define(&test, &other, "NamesAccepted", "False").await;
    let conditions = refused["status"]["conditions"].as_array().unwrap();
    let said = conditions.iter().find(|c| c["type"] == "NamesAccepted").unwrap();
    assert_eq!(said["message"], "\"wd\" is already in use");
    test.get("/apis/example.com/v1/gadgets").await.expect(404);
    // Names become free with their owner.
    test.delete(&format!("{DEFINITIONS}/widgets.example.com")).await.expect(200);
    until(&test, "/apis/example.com/v1/gadgets", |answer| answer["items"].is_array()).await;
}

#[tokio::test]
async fn a_definition_should_not_take_the_place_of_a_built_in_kind_nor_its_objects_along() {
    let test = TestServer::start().await;
    let mut taking = definition();
    taking["metadata"] = json!({"name": "roles.rbac.authorization.k8s.io"});
    taking["spec"]["group"] = "rbac.authorization.k8s.io".into();
    taking["spec"]["names"] = json!({"kind": "Role", "plural": "roles"});
    let refused = test.post(DEFINITIONS, &taking).await.expect(422);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("protected groups must have approval annotation"), "{message}");
    taking["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "unapproved, an attack"});
    define(&test, &taking, "NamesAccepted", "False").await;
    // Whoever may write its status cannot help it either.
    let claim = json!({"status": {"conditions": [{"type": "NamesAccepted", "status": "True", "reason": "r",
        "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let path = format!("{DEFINITIONS}/roles.rbac.authorization.k8s.io");
    test.merge(&format!("{path}/status"), &claim).await.expect(200);
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    test.post(roles, &json!({"metadata": {"name": "bad"}, "rules": "anything"})).await.expect(400);
    test.post(roles, &json!({"metadata": {"name": "good"}, "rules": []})).await.expect(201);
    test.delete(&path).await.expect(200);
    until(&test, &path, |answer| answer["code"] == 404).await;
    test.get(&format!("{roles}/good")).await.expect(200);
}

#[tokio::test]
async fn defaults_should_be_what_their_schema_admits() {
    let test = TestServer::start().await;
    for (schema, field, part) in [
        (json!({"type": "integer", "default": "x"}), "default", "must be of type integer"),
        (json!({"type": "string", "enum": ["a"], "default": "b"}), "default", "supported values"),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "default": {"b": "x"}}),
            "default",
            "must not have unknown fields",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "default": {"a": 1}}),
            "default.a",
            "must be of type string",
        ),
    ] {
        let mut definition = definition();
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            ["x"] = schema;
        let refused = test.post(DEFINITIONS, &definition).await.expect(422);
        let cause = &refused["details"]["causes"][0];
        let at = format!("spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[x].{field}");
        assert_eq!(cause["field"], at);
        assert!(cause["message"].as_str().unwrap().contains(part), "{cause}");
    }
}
