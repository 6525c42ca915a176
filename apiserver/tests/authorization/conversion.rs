//! Custom resources in several versions, turned into each other by a program of their author's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::https::HttpsServer;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/routes.example.com";
const V1: &str = "/apis/example.com/v1/namespaces/default/routes";
const V2: &str = "/apis/example.com/v2/namespaces/default/routes";

/// Version 1 says `target: host:port`, version 2 has a field for each.
fn converted(mut object: Value, api_version: &str) -> Value {
    let spec = object["spec"].take();
    object["spec"] = match spec["target"].as_str().and_then(|target| target.split_once(':')) {
        Some((host, port)) => json!({"host": host, "port": port}),
        None => {
            json!({"target": format!("{}:{}", spec["host"].as_str().unwrap(), spec["port"].as_str().unwrap())})
        }
    };
    object["apiVersion"] = api_version.into();
    // Not its business, and undone.
    object["metadata"]["generation"] = 77.into();
    object["metadata"]["labels"]["converted-to"] = api_version.rsplit('/').next().into();
    object
}

fn answer(review: &Value) -> Value {
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap();
    let objects: Vec<Value> =
        request["objects"].as_array().unwrap().iter().map(|o| converted(o.clone(), wanted)).collect();
    let refused = objects.iter().any(|object| object["metadata"]["name"] == "cursed");
    let result = if refused {
        json!({"status": "Failed", "message": "a curse"})
    } else {
        json!({"status": "Success"})
    };
    json!({"kind": "ConversionReview", "apiVersion": review["apiVersion"],
        "response": {"uid": request["uid"], "result": result, "convertedObjects": objects}})
}

struct World {
    cluster: Cluster,
    server: HttpsServer,
}

impl World {
    async fn new() -> Self {
        let cluster = Cluster::start().await;
        let server = HttpsServer::start(&cluster.pki.authority, "hook.default.svc", |_, review| {
            Box::pin(async move { (200, answer(&review).to_string()) })
        })
        .await;
        let world = Self { cluster, server };
        world.cluster.admin().post(DEFINITIONS, &world.definition()).await.expect(201);
        world.until(DEFINITION, |d| d["status"]["conditions"].to_string().contains("\"Established\"")).await;
        world
    }

    fn definition(&self) -> Value {
        let version = |name: &str, storage: bool, fields: Value| {
            let selectable: Vec<Value> = fields
                .as_object()
                .unwrap()
                .keys()
                .map(|field| json!({"jsonPath": format!(".spec.{field}")}))
                .collect();
            json!({"name": name, "served": true, "storage": storage, "selectableFields": selectable,
                "schema": {"openAPIV3Schema": {"type": "object",
                    "properties": {"spec": {"type": "object", "properties": fields}}}}})
        };
        let text = json!({"type": "string"});
        let authority = STANDARD.encode(self.cluster.pki.authority.certificate_pem());
        json!({"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
            "metadata": {"name": "routes.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {"kind": "Route", "plural": "routes"},
                "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v9", "v1"],
                    "clientConfig": {"url": format!("https://{}/convert", self.server.address), "caBundle": authority}}},
                "versions": [version("v1", true, json!({"target": text})),
                    version("v2", false, json!({"host": text, "port": text}))]}})
    }

    async fn until(&self, path: &str, reached: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..1000 {
            let answer = self.cluster.admin().get(path).await;
            if answer.code == 200 && reached(&answer.body) {
                return answer.body;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{path} does not become what is expected");
    }

    async fn make(&self, path: &str, name: &str, spec: Value) -> Value {
        let version = if path == V1 { "v1" } else { "v2" };
        let object = json!({"kind": "Route", "apiVersion": format!("example.com/{version}"), "metadata": {"name": name}, "spec": spec});
        self.cluster.admin().post(path, &object).await.expect(201)
    }

    async fn specs(&self, path: &str) -> Vec<Value> {
        let list = self.cluster.admin().get(path).await.expect(200);
        list["items"].as_array().unwrap().iter().map(|item| item["spec"].clone()).collect()
    }
}

#[tokio::test]
async fn objects_are_written_and_read_in_every_version_whichever_is_stored() {
    let world = World::new().await;
    let admin = world.cluster.admin();
    let made = world.make(V1, "a", json!({"target": "a:1"})).await;
    assert_eq!((&made["spec"], &made["metadata"]["generation"]), (&json!({"target": "a:1"}), &json!(1)));
    assert_eq!(world.server.count("/convert"), 0, "nobody asked for another version");
    let made = world.make(V2, "b", json!({"host": "b", "port": "2"})).await;
    assert_eq!(
        (&made["apiVersion"], &made["spec"]),
        (&json!("example.com/v2"), &json!({"host": "b", "port": "2"}))
    );

    let seen = admin.get(&format!("{V2}/a")).await.expect(200);
    assert_eq!(seen["spec"], json!({"host": "a", "port": "1"}));
    assert_eq!(seen["metadata"]["labels"], json!({"converted-to": "v2"}));
    assert_eq!(
        (&seen["metadata"]["uid"], &seen["metadata"]["generation"]),
        (&seen["metadata"]["uid"], &json!(1))
    );
    let (ones, twos) = (
        json!([{"target": "a:1"}, {"target": "b:2"}]),
        json!([{"host": "a", "port": "1"}, {"host": "b", "port": "2"}]),
    );
    assert_eq!((json!(world.specs(V1).await), json!(world.specs(V2).await)), (ones, twos.clone()));

    // Fields select objects as the version asked for shows them.
    for (path, count) in [
        (format!("{V2}?fieldSelector=spec.host%3Da"), 1),
        (format!("{V2}?fieldSelector=spec.host!%3Da,spec.port%3D2"), 1),
        (format!("{V2}?fieldSelector=spec.host!%3Da&limit=1"), 1),
        (format!("{V2}?fieldSelector=spec.port%3Dnone"), 0),
        (format!("{V1}?fieldSelector=spec.target%3Da:1"), 1),
    ] {
        assert_eq!(world.specs(&path).await.len(), count, "{path}");
    }
    let watched = admin.get(&format!("{V2}?watch=1&timeoutSeconds=1&fieldSelector=spec.host%3Db")).await;
    assert_eq!(watched.body["object"]["spec"]["host"], "b", "one event: {}", watched.body);
    admin.get(&format!("{V1}?fieldSelector=spec.host%3Da")).await.expect(400);

    let patched = admin.merge(&format!("{V2}/a"), &json!({"spec": {"port": "9"}})).await.expect(200);
    assert_eq!(patched["spec"], json!({"host": "a", "port": "9"}));
    assert_eq!(admin.get(&format!("{V1}/a")).await.expect(200)["spec"], json!({"target": "a:9"}));

    // From now on the second version is stored; what is there stays in the first.
    let mut definition = admin.get(DEFINITION).await.expect(200);
    for (index, stored) in [(0, false), (1, true)] {
        definition["spec"]["versions"][index]["storage"] = stored.into();
    }
    admin.put(DEFINITION, &definition).await.expect(200);
    world.make(V1, "c", json!({"target": "c:3"})).await;
    let twos = json!([{"host": "a", "port": "9"}, {"host": "b", "port": "2"}, {"host": "c", "port": "3"}]);
    world
        .until(V2, |list| {
            let specs: Vec<Value> =
                list["items"].as_array().unwrap().iter().map(|item| item["spec"].clone()).collect();
            json!(specs) == twos
        })
        .await;
    let ones = json!([{"target": "a:9"}, {"target": "b:2"}, {"target": "c:3"}]);
    assert_eq!(json!(world.specs(V1).await), ones);
    let watched = admin.get(&format!("{V1}?watch=1&timeoutSeconds=1")).await;
    let events: Vec<Value> =
        watched.body.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let specs: Vec<Value> = events.iter().map(|event| event["object"]["spec"].clone()).collect();
    assert_eq!(json!(specs), ones);
}

#[tokio::test]
async fn what_cannot_be_converted_is_an_error_and_stays_readable_as_it_is_stored() {
    let world = World::new().await;
    let admin = world.cluster.admin();
    world.make(V1, "cursed", json!({"target": "a:1"})).await;
    let refused = admin.get(&format!("{V2}/cursed")).await.expect(500);
    assert!(refused["message"].as_str().unwrap().contains("Kind=Route failed: a curse"), "{refused}");
    assert_eq!(admin.get(&format!("{V1}/cursed")).await.expect(200)["spec"], json!({"target": "a:1"}));
    admin.get(V2).await.expect(500);
    admin.delete(&format!("{V1}/cursed")).await.expect(200);
    admin.get(V2).await.expect(200);
}

#[tokio::test]
async fn what_was_stored_under_an_older_definition_is_shown_by_the_new_one() {
    let world = World::new().await;
    let admin = world.cluster.admin();
    world.make(V1, "a", json!({"target": "a:1"})).await;
    let mut definition = admin.get(DEFINITION).await.expect(200);
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let fields = json!({"color": {"type": "string", "default": "red"}});
    *definition.pointer_mut(schema).unwrap() = fields;
    definition["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.color"}]);
    admin.put(DEFINITION, &definition).await.expect(200);
    let path = format!("{V1}/a");
    world.until(&path, |route| route["spec"] == json!({"color": "red"})).await;
    assert_eq!(world.specs(V1).await, [json!({"color": "red"})]);
    assert_eq!(world.specs(&format!("{V1}?fieldSelector=spec.color%3Dred")).await.len(), 1);
    // It stays so for those who write.
    let patched = admin.merge(&path, &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    assert_eq!(patched["spec"], json!({"color": "red"}));
}

#[tokio::test]
async fn policies_and_webhooks_see_the_version_that_they_speak_of() {
    let world = World::new().await;
    let admin = world.cluster.admin();
    let admission = "/apis/admissionregistration.k8s.io/v1";
    let rule = json!({"apiGroups": ["example.com"], "apiVersions": ["v2"], "operations": ["CREATE", "UPDATE"],
        "resources": ["routes"]});
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": [
        {"expression": "object.spec.port != '0'"}, {"expression": "oldObject == null || oldObject.spec.host == object.spec.host"}]}});
    admin.post(&format!("{admission}/validatingadmissionpolicies"), &policy).await.expect(201);
    let binding =
        json!({"metadata": {"name": "p"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    admin.post(&format!("{admission}/validatingadmissionpolicybindings"), &binding).await.expect(201);
    let route = |target: &str| json!({"metadata": {"name": "a"}, "spec": {"target": target}});
    admin.post(V1, &route("a:0")).await.expect(422);
    admin.post(V1, &route("a:1")).await.expect(201);
    let moved = json!({"spec": {"target": "b:1"}});
    admin.merge(&format!("{V1}/a"), &moved).await.expect(422);

    // What a webhook changes of its version is stored in the other.
    let hook = HttpsServer::start(&world.cluster.pki.authority, "hook.default.svc", |_, review: Value| {
        Box::pin(async move {
            let seen = &review["request"]["object"];
            assert_eq!((&seen["apiVersion"], &seen["spec"]["host"]), (&json!("example.com/v2"), &json!("a")));
            let patch = json!([{"op": "replace", "path": "/spec/port", "value": "7"}]).to_string();
            let response = json!({"uid": review["request"]["uid"], "allowed": true, "patchType": "JSONPatch",
                "patch": STANDARD.encode(patch)});
            let answer =
                json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
            (200, answer.to_string())
        })
    })
    .await;
    let authority = STANDARD.encode(world.cluster.pki.authority.certificate_pem());
    let client = json!({"url": format!("https://{}/mutate", hook.address), "caBundle": authority});
    let configuration = json!({"metadata": {"name": "h"}, "webhooks": [{"name": "h.example.com", "clientConfig": client,
        "rules": [rule], "admissionReviewVersions": ["v1"], "sideEffects": "None"}]});
    admin.post(&format!("{admission}/mutatingwebhookconfigurations"), &configuration).await.expect(201);
    let changed = admin.merge(&format!("{V1}/a"), &json!({"spec": {"target": "a:2"}})).await.expect(200);
    assert_eq!(changed["spec"], json!({"target": "a:7"}));
}
