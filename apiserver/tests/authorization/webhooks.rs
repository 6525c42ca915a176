//! Webhooks: real HTTPS servers that change, refuse, fail and dawdle.

use std::net::Ipv4Addr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cluster::{Answer, Cluster};
use crate::https::HttpsServer;

pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

/// What the webhooks of the test answer, by their path.
fn answer(path: &str, review: &Value) -> Value {
    let request = &review["request"];
    let patch = |operations: Value| json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())});
    let data =
        |key: &str, value: Value| json!([{"op": "add", "path": format!("/data/{key}"), "value": value}]);
    let mut response = match path {
        "/five" => patch(json!([{"op": "replace", "path": "/spec/replicas", "value": 5}])),
        "/label" => patch(data("labelled", json!("yes"))),
        // What it writes depends on what others have written before.
        "/count" => {
            let fields = request["object"]["data"].as_object().map_or(0, |data| data.len());
            patch(data("fields", json!(fields.to_string())))
        }
        "/refuse" => json!({"allowed": false, "status": {"code": 403, "message": "not on a sunday"}}),
        "/warn" => {
            json!({"allowed": true, "warnings": ["mind the gap"], "auditAnnotations": {"seen": "yes"}})
        }
        "/wrong-id" => json!({"allowed": true, "uid": "other"}),
        "/break" => patch(json!([{"op": "replace", "path": "/metadata", "value": 1}])),
        "/nonsense" => return json!({"hello": "world"}),
        _ => json!({"allowed": true}),
    };
    if response.get("uid").is_none() {
        response["uid"] = request["uid"].clone();
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
}

pub struct World {
    pub cluster: Cluster,
    pub server: HttpsServer,
}

impl World {
    pub async fn new() -> Self {
        Self::at(Cluster::start().await, Ipv4Addr::LOCALHOST).await
    }

    pub async fn at(cluster: Cluster, address: Ipv4Addr) -> Self {
        let authority = &cluster.pki.authority;
        let server = HttpsServer::start_at(address, authority, "hook.default.svc", |path, review| {
            Box::pin(async move {
                if path == "/slow" {
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                }
                (if path == "/error" { 500 } else { 200 }, answer(&path, &review).to_string())
            })
        })
        .await;
        Self { cluster, server }
    }

    pub fn hook(&self, path: &str, more: Value) -> Value {
        let url = format!("https://{}{path}", self.server.address);
        let authority = STANDARD.encode(self.cluster.pki.authority.certificate_pem());
        let mut hook = json!({
            "name": format!("{}.example.com", path.trim_start_matches('/')), "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": {"url": url, "caBundle": authority},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}],
        });
        for (field, value) in more.as_object().unwrap() {
            hook[field] = value.clone();
        }
        hook
    }

    pub async fn configure(&self, kind: &str, name: &str, hooks: Value) {
        let object = json!({"kind": kind, "apiVersion": "admissionregistration.k8s.io/v1",
            "metadata": {"name": name}, "webhooks": hooks});
        let path = format!("{CONFIGURATIONS}/{}s", kind.to_lowercase());
        self.cluster.admin().post(&path, &object).await.expect(201);
    }

    pub async fn mutating(&self, name: &str, hooks: Value) {
        self.configure("MutatingWebhookConfiguration", name, hooks).await;
    }

    pub async fn validating(&self, hook: Value) {
        self.configure("ValidatingWebhookConfiguration", "v", json!([hook])).await;
    }

    pub async fn create(&self, name: &str) -> Answer {
        self.cluster.admin().post(MAPS, &map(name)).await
    }
}

pub fn map(name: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "labels": {"app": name}}, "data": {"own": "1"}})
}

#[tokio::test]
async fn mutating_webhooks_change_in_turn_and_see_again_what_others_change_later() {
    let world = World::new().await;
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    world.mutating("a", json!([world.hook("/count", again)])).await;
    world.mutating("b", json!([world.hook("/label", json!({}))])).await;
    let made = world.create("m").await.expect(201);
    assert_eq!(made["data"], json!({"own": "1", "labelled": "yes", "fields": "3"}));
    assert_eq!((world.server.count("/count"), world.server.count("/label")), (2, 1));
    let asked = world.server.last("/label")["request"].clone();
    assert_eq!(asked["operation"], "CREATE");
    assert_eq!(asked["userInfo"]["username"], "admin");
    assert_eq!(asked["object"]["data"], json!({"own": "1", "fields": "1"}));
    assert_eq!(
        (&asked["namespace"], &asked["name"], &asked["dryRun"]),
        (&json!("default"), &json!("m"), &json!(false))
    );
    assert_eq!(asked["requestKind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    let stored = world.cluster.admin().get(&format!("{MAPS}/m")).await.expect(200);
    assert_eq!(stored["data"], made["data"]);
}

#[tokio::test]
async fn a_refusal_reaches_the_client_in_the_webhooks_words() {
    let world = World::new().await;
    world.validating(world.hook("/refuse", json!({}))).await;
    assert_eq!(
        world.create("m").await.refused(),
        "admission webhook \"refuse.example.com\" denied the request: not on a sunday"
    );
    world.cluster.admin().get(&format!("{MAPS}/m")).await.expect(404);
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/v");
    let quiet = json!([world.hook("/warn", json!({}))]);
    world.cluster.admin().merge(&path, &json!({"webhooks": quiet})).await.expect(200);
    let made = world.create("m").await;
    assert_eq!((made.code, made.warnings), (201, vec!["299 - \"mind the gap\"".to_string()]));
}

#[tokio::test]
async fn what_fails_is_refused_or_passed_over_as_the_policy_says() {
    let world = World::new().await;
    let one_second = json!({"timeoutSeconds": 1});
    for (path, told) in [
        ("/error", "the server answered 500"),
        ("/slow", "context deadline exceeded"),
        ("/wrong-id", "expected response.uid="),
        ("/nonsense", "webhook response was absent"),
    ] {
        world.validating(world.hook(path, one_second.clone())).await;
        let answer = world.create("m").await.expect(500);
        let message = answer["message"].as_str().unwrap();
        assert!(
            message.starts_with("Internal error occurred: failed calling webhook") && message.contains(told),
            "{message}"
        );
        let mut lenient = world.hook(path, one_second.clone());
        lenient["failurePolicy"] = "Ignore".into();
        let configuration = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/v");
        world.cluster.admin().merge(&configuration, &json!({"webhooks": [lenient]})).await.expect(200);
        world.create("m").await.expect(201);
        world.cluster.admin().delete(&format!("{MAPS}/m")).await.expect(200);
        world.cluster.admin().delete(&configuration).await.expect(200);
    }
    let mut stranger = world.hook("/allow", json!({}));
    let other = pki::Authority::create("somebody else", jiff::Timestamp::now()).unwrap();
    stranger["clientConfig"]["caBundle"] = STANDARD.encode(other.certificate_pem()).into();
    world.validating(stranger).await;
    world.create("m").await.expect(500);
    assert_eq!(world.server.count("/allow"), 0, "who is not trusted is told nothing");
}

#[tokio::test]
async fn a_patch_that_breaks_the_object_breaks_the_request() {
    let world = World::new().await;
    world.mutating("a", json!([world.hook("/break", json!({}))])).await;
    world.create("m").await.expect(500);
}

#[tokio::test]
async fn selectors_rules_and_dry_runs_decide_who_is_asked() {
    let world = World::new().await;
    world.cluster.namespace("quiet").await;
    let chosen = json!({
        "namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["quiet"]}]},
        "objectSelector": {"matchLabels": {"app": "chosen"}},
        "sideEffects": "NoneOnDryRun",
    });
    world.validating(world.hook("/refuse", chosen)).await;
    let admin = world.cluster.admin();
    world.create("other").await.expect(201);
    assert_eq!(world.server.count("/refuse"), 0);
    world.create("chosen").await.refused();
    admin.post("/api/v1/namespaces/quiet/configmaps", &map("chosen")).await.expect(201);
    let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "chosen", "labels": {"app": "chosen"}}});
    admin.post("/api/v1/namespaces/default/secrets", &secret).await.expect(201);
    admin.post(&format!("{MAPS}?dryRun=All"), &map("chosen")).await.refused();
    assert_eq!(world.server.last("/refuse")["request"]["dryRun"], true);
    assert_eq!(world.server.count("/refuse"), 2);
}

#[tokio::test]
async fn deletions_are_asked_about_and_services_are_found() {
    let world = World::new().await;
    let admin = world.cluster.admin();
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "hook"},
        "spec": {"type": "ExternalName", "externalName": "localhost"}});
    admin.post("/api/v1/namespaces/default/services", &service).await.expect(201);
    world.create("m").await.expect(201);
    let authority = STANDARD.encode(world.cluster.pki.authority.certificate_pem());
    let port = world.server.address.port();
    let place = json!({"service": {"namespace": "default", "name": "hook", "port": port, "path": "/refuse"}, "caBundle": authority});
    let rules =
        json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["DELETE"], "resources": ["*"]}]);
    world.validating(world.hook("/refuse", json!({"clientConfig": place, "rules": rules}))).await;
    admin.delete(&format!("{MAPS}/m")).await.refused();
    let asked = world.server.last("/refuse")["request"].clone();
    assert_eq!(
        (&asked["operation"], &asked["object"], &asked["oldObject"]["data"]),
        (&json!("DELETE"), &Value::Null, &json!({"own": "1"}))
    );
    let exec = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"], "resources": ["pods/exec"]}]);
    let hook = world.hook("/refuse", json!({"rules": exec}));
    world.mutating("m", json!([hook])).await;
    world.cluster.account("default", "default").await;
    world.cluster.pod("default", "p", "", json!({})).await;
    let path = "/api/v1/namespaces/default/pods/p/exec?command=sh&command=-c&stdin=true";
    admin.post(path, &Value::Null).await.refused();
    let asked = world.server.last("/refuse")["request"].clone();
    assert_eq!(
        asked["object"],
        json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdin": true, "command": ["sh", "-c"]})
    );
    assert_eq!((&asked["subResource"], &asked["kind"]["kind"]), (&json!("exec"), &json!("PodExecOptions")));
    // A webhook that refuses everything can still be removed.
    admin.delete(&format!("{CONFIGURATIONS}/validatingwebhookconfigurations/v")).await.expect(200);
    admin.delete(&format!("{MAPS}/m")).await.expect(200);
}
