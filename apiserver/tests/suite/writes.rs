//! Create, update, patch and apply: the one way to the store.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::server::{CONFIG_MAPS, TestServer, config_map, make_config_maps, name, version};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment() -> Value {
    json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[tokio::test]
async fn the_server_should_own_its_fields() {
    let test = TestServer::start().await;
    let mut object = deployment();
    object["metadata"]["uid"] = "mine".into();
    object["metadata"]["generation"] = 9.into();
    object["status"] = json!({"replicas": 7});
    let created = test.post(DEPLOYMENTS, &object).await.expect(201);
    assert_ne!(created["metadata"]["uid"], "mine");
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(created["status"], json!({}));
    assert_eq!(created["spec"]["replicas"], 1, "defaults are filled in");
    let scaled =
        test.merge(&format!("{DEPLOYMENTS}/web"), &json!({"spec": {"replicas": 2}})).await.expect(200);
    assert_eq!(scaled["metadata"]["generation"], 2);
    let labelled = test
        .merge(&format!("{DEPLOYMENTS}/web"), &json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .expect(200);
    assert_eq!(labelled["metadata"]["generation"], 2);
}

#[tokio::test]
async fn status_and_spec_should_not_touch_each_other() {
    let test = TestServer::start().await;
    test.post(DEPLOYMENTS, &deployment()).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web");
    let both = json!({"spec": {"replicas": 5}, "status": {"replicas": 3, "observedGeneration": 1}});
    let reported = test.merge(&format!("{path}/status"), &both).await.expect(200);
    assert_eq!((&reported["spec"]["replicas"], &reported["status"]["replicas"]), (&json!(1), &json!(3)));
    assert_eq!(reported["metadata"]["generation"], 1);
    let changed = test.merge(&path, &json!({"spec": {"replicas": 5}, "status": null})).await.expect(200);
    assert_eq!((&changed["spec"]["replicas"], &changed["status"]["replicas"]), (&json!(5), &json!(3)));
}

#[tokio::test]
async fn an_update_of_an_old_state_should_conflict() {
    let test = TestServer::start().await;
    let first = test.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let mut second = first.clone();
    second["data"]["key"] = "2".into();
    test.put(&path, &second).await.expect(200);
    let mut late = first.clone();
    late["data"]["key"] = "3".into();
    let refused = test.put(&path, &late).await.expect(409);
    assert_eq!(refused["reason"], "Conflict");
    assert_eq!(
        refused["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    late["metadata"]["resourceVersion"] = Value::Null;
    test.put(&path, &late).await.expect(200);
    test.post(CONFIG_MAPS, &config_map("a")).await.expect(409);
    test.put(&format!("{CONFIG_MAPS}/b"), &config_map("b")).await.expect(404);
}

#[tokio::test]
async fn concurrent_patches_should_all_count() {
    let test = Arc::new(TestServer::start().await);
    make_config_maps(&test, ["a"]).await;
    let patches: Vec<_> = (0..10)
        .map(|index| {
            let test = test.clone();
            tokio::spawn(async move {
                let patch = json!({"data": {format!("k{index}"): "v"}});
                test.merge(&format!("{CONFIG_MAPS}/a"), &patch).await.expect(200);
            })
        })
        .collect();
    for patch in patches {
        patch.await.unwrap();
    }
    let object = test.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    assert_eq!(object["data"].as_object().unwrap().len(), 11);
}

#[tokio::test]
async fn a_write_that_changes_nothing_should_make_no_revision() {
    let test = TestServer::start().await;
    let created = test.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let same = test.merge(&format!("{CONFIG_MAPS}/a"), &json!({"data": {"key": "value"}})).await.expect(200);
    assert_eq!(version(&same), version(&created));
    let put = test.put(&format!("{CONFIG_MAPS}/a"), &created).await.expect(200);
    assert_eq!(put, created);
}

#[tokio::test]
async fn a_dry_run_should_leave_no_trace() {
    let test = TestServer::start().await;
    let tried = test.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a")).await.expect(201);
    assert!(tried["metadata"]["uid"].is_string());
    test.get(&format!("{CONFIG_MAPS}/a")).await.expect(404);
    make_config_maps(&test, ["a"]).await;
    test.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a")).await.expect(409);
    let path = format!("{CONFIG_MAPS}/a?dryRun=All");
    assert_eq!(test.merge(&path, &json!({"data": {"x": "y"}})).await.expect(200)["data"]["x"], "y");
    test.delete(&path).await.expect(200);
    let object = test.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    assert_eq!(object["data"], json!({"key": "value"}));
    test.post(&format!("{CONFIG_MAPS}?dryRun=Some"), &config_map("b")).await.expect(422);
}

#[tokio::test]
async fn names_should_be_generated() {
    let test = TestServer::start().await;
    let object = json!({"metadata": {"generateName": "gen-"}});
    let one = test.post(CONFIG_MAPS, &object).await.expect(201);
    let two = test.post(CONFIG_MAPS, &object).await.expect(201);
    assert!(name(&one).starts_with("gen-") && name(&one).len() == 9 && name(&one) != name(&two));
    let unnamed = test.post(CONFIG_MAPS, &json!({"data": {}})).await.expect(422);
    assert_eq!(unnamed["details"]["causes"][0]["field"], "metadata.name");
}

#[tokio::test]
async fn unknown_fields_should_be_ignored_told_or_refused() {
    let test = TestServer::start().await;
    let mut object = config_map("a");
    object["foo"] = 1.into();
    let path = |validation: &str| format!("{CONFIG_MAPS}?dryRun=All&fieldValidation={validation}");
    let told = test.post(&path("Warn"), &object).await;
    assert_eq!(told.warnings, ["299 - \"unknown field \\\"foo\\\"\""]);
    assert_eq!(told.expect(201).get("foo"), None);
    assert!(test.post(&path("Ignore"), &object).await.warnings.is_empty());
    let text = r#"{"metadata": {"name": "a"}, "foo": 1, "data": {"x": "1", "x": "2"}}"#;
    let refused = test.send("POST", &path("Strict"), "application/json", text).await.expect(400);
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.ends_with("strict decoding error: unknown field \"foo\", duplicate field \"data.x\""),
        "{message}"
    );
}

#[tokio::test]
async fn strict_patches_should_be_refused_with_what_they_lead_to() {
    let test = TestServer::start().await;
    make_config_maps(&test, ["a"]).await;
    let path = |validation: &str| format!("{CONFIG_MAPS}/a?fieldValidation={validation}");
    let faults = r#"strict decoding error: unknown field "foo""#;
    for (media_type, patch, shown) in [
        ("merge-patch+json", r#"{"foo": 1}"#, r#""foo":1"#),
        ("json-patch+json", r#"[{"op": "add", "path": "/foo", "value": 1}]"#, r#""foo":1"#),
    ] {
        let media_type = format!("application/{media_type}");
        let refused = test.send("PATCH", &path("Strict"), &media_type, patch).await.expect(422);
        let message = refused["message"].as_str().unwrap();
        assert!(message.starts_with(" \"\" is invalid: patch: Invalid value: \"{"), "{message}");
        assert!(message.contains(&shown.replace('"', "\\\"")) && message.ends_with(faults), "{message}");
        assert_eq!(refused["details"]["causes"][0]["field"], "patch");
        let told = test.send("PATCH", &path("Warn"), &media_type, patch).await;
        assert_eq!(told.warnings, ["299 - \"unknown field \\\"foo\\\"\""]);
        assert_eq!(told.expect(200).get("foo"), None);
    }
    let strategic = "application/strategic-merge-patch+json";
    let refused = test.send("PATCH", &path("Strict"), strategic, r#"{"foo": {"b": [1, "x"]}}"#).await;
    let refused = refused.expect(422);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("\"map[foo:map[b:[1 x]]]\": strict decoding error"), "{message}");
    let twice = r#"{"data": {"x": "1", "x": "2"}}"#;
    let refused = test.send("PATCH", &path("Strict"), "application/merge-patch+json", twice).await;
    let message = refused.expect(422)["message"].to_string();
    assert!(message.contains("duplicate field \\\"data.x\\\""), "{message}");
    let strange = r#"[{"op": "add", "path": "/data/y", "value": "1", "if": true}]"#;
    let told = test.send("PATCH", &path("Warn"), "application/json-patch+json", strange).await;
    assert_eq!(told.warnings, ["299 - \"json patch unknown field \\\"[0].if\\\"\""]);
}

#[tokio::test]
async fn appliers_should_hear_of_what_nobody_could_own() {
    let test = TestServer::start().await;
    let path = format!("{CONFIG_MAPS}/a?fieldManager=one&fieldValidation=");
    let media_type = "application/apply-patch+yaml";
    let head = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n";
    for validation in ["Ignore", "Strict"] {
        let body = format!("{head}  color: red\n");
        let refused = test.send("PATCH", &format!("{path}{validation}"), media_type, body).await.expect(400);
        let message = refused["message"].as_str().unwrap();
        assert!(message.ends_with(".metadata.color: field not declared in schema"), "{message}");
    }
    let body = format!("{head}data:\n  x: '1'\n  x: '2'\n");
    let refused = test.send("PATCH", &format!("{path}Strict"), media_type, body.clone()).await.expect(400);
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.starts_with("error strict decoding YAML: ")
            && message.ends_with("line 7: key \"x\" already set in map"),
        "{message}"
    );
    let told = test.send("PATCH", &format!("{path}Warn"), media_type, body).await;
    assert_eq!(told.warnings.len(), 1);
    assert_eq!(told.expect(201)["data"]["x"], "2");
}

#[tokio::test]
async fn appliers_should_own_fields_and_conflict() {
    let test = TestServer::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let object = |value: &str| json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"x": value}});
    test.apply(&path, "one", &object("1")).await.expect(201);
    test.apply(&path, "one", &object("2")).await.expect(200);
    let refused = test.apply(&path, "two", &object("3")).await.expect(409);
    assert_eq!(refused["details"]["causes"][0]["reason"], "FieldManagerConflict");
    assert_eq!(refused["details"]["causes"][0]["field"], ".data.x");
    let taken = test.apply(&format!("{path}?force=true"), "two", &object("3")).await.expect(200);
    assert_eq!(taken["data"]["x"], "3");
    let empty = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}});
    let given_up = test.apply(&path, "two", &empty).await.expect(200);
    assert_eq!(given_up.get("data"), None, "nobody owns the field any more");
    let unnamed = test.send("PATCH", &path, "application/apply-patch+yaml", empty.to_string()).await;
    assert_eq!(unnamed.expect(422)["details"]["causes"][0]["field"], "fieldManager");
}

#[tokio::test]
async fn scale_should_be_a_view_of_the_object() {
    let test = TestServer::start().await;
    test.post(DEPLOYMENTS, &deployment()).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web/scale");
    let scale = test.get(&path).await.expect(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    assert_eq!(scale["status"]["selector"], "app=web");
    assert_eq!(test.merge(&path, &json!({"spec": {"replicas": 4}})).await.expect(200)["spec"]["replicas"], 4);
    let object = test.get(&format!("{DEPLOYMENTS}/web")).await.expect(200);
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(4), &json!(2)));
    test.put(&path, &scale).await.expect(409);
    test.merge(&path, &json!({"spec": {"replicas": -1}})).await.expect(422);
}

#[tokio::test]
async fn objects_should_be_created_only_in_living_namespaces() {
    let test = TestServer::start().await;
    let missing = test.post("/api/v1/namespaces/nowhere/configmaps", &config_map("a")).await.expect(404);
    assert_eq!(missing["message"], "namespaces \"nowhere\" not found");
    test.post("/api/v1/namespaces", &json!({"metadata": {"name": "brief"}})).await.expect(201);
    test.post("/api/v1/namespaces/brief/configmaps", &config_map("a")).await.expect(201);
    let going = test.delete("/api/v1/namespaces/brief").await.expect(200);
    assert_eq!(going["status"]["phase"], "Terminating");
    let refused = test.post("/api/v1/namespaces/brief/configmaps", &config_map("b")).await.expect(403);
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    test.delete("/api/v1/namespaces/default").await.expect(403);
    let mut finalized = test.get("/api/v1/namespaces/brief").await.expect(200);
    finalized["spec"] = json!({});
    test.put("/api/v1/namespaces/brief/finalize", &finalized).await.expect(200);
    test.get("/api/v1/namespaces/brief").await.expect(404);
}

/// Whatever comes, the answer is the object or a refusal that names what is wrong: never a fault of the server.
#[tokio::test]
async fn every_row_should_answer_an_almost_empty_object() {
    let test = TestServer::start().await;
    for row in api::ResourceTable::built_in().rows().iter().filter(|row| row.can(api::Verb::Create)) {
        let place = if row.is_namespaced() { "namespaces/default/" } else { "" };
        for served in &row.served {
            let root = if served.group.is_empty() { "api" } else { "apis" };
            let path = format!("/{root}/{}/{place}{}", served.api_version(), row.plural);
            for body in [
                json!({"metadata": {"name": "a.b"}}),
                json!({"metadata": {"name": "a"}, "spec": {}}),
                json!({"metadata": {"name": "a"}, "spec": {"junk": [1, {"x": null}]}, "data": 5, "status": []}),
                json!({"metadata": []}),
                json!({"metadata": {"name": "a", "labels": {"a": 1}}}),
            ] {
                let answer = test.post(&format!("{path}?dryRun=All"), &body).await;
                let fine = matches!(answer.code, 200 | 201 | 400 | 403 | 422);
                assert!(fine, "{path} {body}: {} {:#}", answer.code, answer.body);
                assert!(answer.code < 300 || !answer.body["message"].as_str().unwrap().is_empty());
            }
        }
    }
}

#[tokio::test]
async fn a_pod_should_take_new_debugging_containers_and_resources_by_their_own_doors() {
    let test = TestServer::start().await;
    test.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}]}});
    test.post(pods, &pod).await.expect(201);
    let container = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]}});
    let strategic = "application/strategic-merge-patch+json";
    test.send("PATCH", &format!("{pods}/p"), strategic, container.to_string()).await.expect(422);
    let path = format!("{pods}/p/ephemeralcontainers");
    let debugged = test.send("PATCH", &path, strategic, container.to_string()).await.expect(200);
    assert_eq!(debugged["spec"]["ephemeralContainers"][0]["name"], "debug");
    let smaller =
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}});
    let resized =
        test.send("PATCH", &format!("{pods}/p/resize"), strategic, smaller.to_string()).await.expect(200);
    assert_eq!(resized["spec"]["containers"][0]["resources"]["requests"]["cpu"], "500m");
    assert_eq!(resized["spec"]["containers"][0]["image"], "i");
}

#[tokio::test]
async fn a_resize_should_change_cpu_and_memory_of_containers_and_nothing_else() {
    let test = TestServer::start().await;
    test.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let container = |name: &str| {
        json!({"name": name, "image": "i", "resources": {
            "requests": {"cpu": "1", "ephemeral-storage": "1"}, "limits": {"cpu": "2"}}})
    };
    let mut init = container("init");
    init["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    let spec = json!({"containers": [container("a"), container("b")], "initContainers": [init]});
    let pod = json!({"metadata": {"name": "p"}, "spec": spec});
    let stored = test.post(pods, &pod).await.expect(201);
    let path = format!("{pods}/p/resize");
    let at = "/spec/containers/0/resources";
    let cases = [
        (
            json!([{"op": "remove", "path": format!("{at}/limits")}]),
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ),
        (
            json!([{"op": "remove", "path": format!("{at}/requests/ephemeral-storage")}]),
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
        ),
        (
            json!([{"op": "replace", "path": format!("{at}/requests/ephemeral-storage"), "value": "2"}]),
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
        (
            json!([{"op": "remove", "path": "/spec/containers/1"}]),
            "spec.containers: Forbidden: containers may not be added or removed on resize",
        ),
        (
            json!([{"op": "move", "from": "/spec/containers/1", "path": "/spec/containers/0"}]),
            "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize",
        ),
        (
            json!([{"op": "replace", "path": "/spec/initContainers/0/resources/requests/cpu", "value": "2"}]),
            "spec.initContainers[0]: Forbidden: non-sidecar init containers with a resize policy of RestartContainer cannot be resized",
        ),
    ];
    for (patch, expected) in cases {
        let refused =
            test.send("PATCH", &path, "application/json-patch+json", patch.to_string()).await.expect(422);
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
    }
    // What else is sent along is not taken over, and changes nothing.
    let mut sent = stored.clone();
    sent["spec"]["containers"][0]["image"] = json!("other");
    sent["metadata"]["labels"] = json!({"new": "label"});
    sent["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("1500m");
    let resized = test.send("PUT", &path, "application/json", sent.to_string()).await.expect(200);
    assert_eq!(resized["spec"]["containers"][0]["image"], "i");
    assert_eq!(resized["metadata"]["labels"], Value::Null);
    assert_eq!(resized["spec"]["containers"][0]["resources"]["requests"]["cpu"], "1500m");
    assert_eq!(test.get(&path).await.expect(200), test.get(&format!("{pods}/p")).await.expect(200));
}

#[tokio::test]
async fn strategic_patches_should_merge_lists_by_key() {
    let test = TestServer::start().await;
    test.post(DEPLOYMENTS, &deployment()).await.expect(201);
    let patch = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "c", "image": "new"}, {"name": "sidecar", "image": "s"}]}}}});
    let path = format!("{DEPLOYMENTS}/web");
    let patched = test
        .send("PATCH", &path, "application/strategic-merge-patch+json", patch.to_string())
        .await
        .expect(200);
    let containers = patched["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    let images: Vec<_> = containers.iter().map(|c| c["image"].as_str().unwrap()).collect();
    assert!(images.contains(&"new") && images.contains(&"s") && images.len() == 2, "{images:?}");
    let json_patch = json!([{"op": "test", "path": "/spec/replicas", "value": 7}]);
    let refused = test.send("PATCH", &path, "application/json-patch+json", json_patch.to_string()).await;
    assert_eq!(refused.expect(422)["reason"], "Invalid");
}

#[tokio::test]
async fn events_and_autoscalers_should_be_one_object_in_two_versions() {
    let test = TestServer::start().await;
    let old = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Started", "message": "hello", "type": "Normal"});
    test.post("/api/v1/namespaces/default/events", &old).await.expect(201);
    let new = test.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.expect(200);
    assert_eq!((&new["note"], &new["regarding"]["name"]), (&json!("hello"), &json!("p")));
    // Each version has its own names for the fields by which they are selected.
    let (core, group) = ("/api/v1/events?fieldSelector=", "/apis/events.k8s.io/v1/events?fieldSelector=");
    for (selector, found) in [
        (format!("{core}involvedObject.name=p,reportingComponent="), Some(1)),
        (format!("{group}regarding.name=p,reportingController="), Some(1)),
        (format!("{group}regarding.name!=p"), Some(0)),
        (format!("{group}involvedObject.name=p"), None),
        (format!("{core}regarding.name=p"), None),
    ] {
        let answer = test.get(&selector).await;
        let count = answer.body["items"].as_array().map(Vec::len);
        assert_eq!(count, found, "{selector}: {}", answer.body);
    }
    let v1 = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
        "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}}});
    test.post("/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers", &v1).await.expect(201);
    let v2 = test.get("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/h").await.expect(200);
    assert_eq!(v2["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    let v1 = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 4, "targetCPUUtilizationPercentage": 60,
            "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}}});
    let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers/h?force=true";
    test.apply(path, "old-client", &v1).await.expect(200);
    let v2 = test.get("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/h").await.expect(200);
    assert_eq!(v2["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
    assert_eq!(v2["spec"]["maxReplicas"], 4);
}

#[tokio::test]
async fn a_status_should_bring_what_clients_may_write_of_the_metadata() {
    let test = TestServer::start().await;
    let marked = |name: &str| json!({"metadata": {"annotations": {"a": name}, "labels": {"l": name}, "finalizers": ["example.com/f"]}});
    let pods =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (collection, object, brought) in [
        ("/api/v1/namespaces/default/services", json!({"ports": [{"port": 80}]}), ["a", "l", "f"].as_slice()),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({"selector": {"matchLabels": {"a": "b"}}, "template": pods}),
            &["a", "f"],
        ),
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
            json!({"priorityLevelConfiguration": {"name": "catch-all"}}),
            &[],
        ),
    ] {
        test.post(collection, &json!({"metadata": {"name": "x"}, "spec": object})).await.expect(201);
        let written = test.merge(&format!("{collection}/x/status"), &marked("new")).await.expect(200);
        let metadata = &written["metadata"];
        let has = [
            ("a", metadata["annotations"]["a"] == "new"),
            ("l", metadata["labels"]["l"] == "new"),
            ("f", metadata["finalizers"][0] == "example.com/f"),
        ];
        let found: Vec<_> = has.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
        assert_eq!(found, brought, "{collection}");
    }
    let service = "/api/v1/namespaces/default/services/x";
    test.delete(service).await.expect(200);
    test.get(service).await.expect(200);
    test.merge(&format!("{service}/status"), &json!({"metadata": {"finalizers": null}})).await.expect(200);
    test.get(service).await.expect(404);
}

#[tokio::test]
async fn the_parts_of_a_cluster_should_own_what_they_write_under_their_names() {
    use k8s_openapi::api::core::v1::ConfigMap;
    let test = TestServer::start().await;
    for (user, name) in [
        ("system:kube-scheduler", "kube-scheduler"),
        ("system:kube-controller-manager", "kube-controller-manager"),
        ("system:node:n1", "kubelet"),
    ] {
        let user = apiserver::auth::UserInfo::new(user, &["system:masters"]);
        let maps = kube::Api::<ConfigMap>::namespaced(test.server.client(user), "default");
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_string());
        map.data = Some([("a".to_string(), "b".to_string())].into());
        let made = maps.create(&kube::api::PostParams::default(), &map).await.unwrap();
        assert_eq!(made.metadata.managed_fields.unwrap()[0].manager.as_deref(), Some(name));
    }
}
