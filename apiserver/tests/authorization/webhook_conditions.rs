//! What a webhook is asked about: conditions, changes of its configuration, kinds of all sorts; and how it is reached.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;

use apiserver::{Config, ServiceRange};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::webhooks::{CONFIGURATIONS, MAPS, World, map};

const HOOKS: &str = "validatingwebhookconfigurations";

fn conditions(expressions: &[&str]) -> Value {
    let named = expressions.iter().enumerate();
    let list: Vec<Value> =
        named.map(|(index, text)| json!({"name": format!("c{index}"), "expression": text})).collect();
    json!({"matchConditions": list})
}

async fn lift(world: &World, kind: &str) {
    world.cluster.admin().delete(&format!("{CONFIGURATIONS}/{kind}")).await.expect(200);
}

#[tokio::test]
async fn conditions_decide_who_is_asked() {
    let world = World::new().await;
    for (expressions, policy, code) in [
        (&["object.metadata.name == 'm'"][..], "Fail", 403),
        (&["object.metadata.name != 'm'"], "Fail", 201),
        (&["true", "request.operation == 'CREATE' && oldObject == null"], "Fail", 403),
        (&["true", "request.userInfo.username == 'somebody'"], "Fail", 201),
        // One that does not hold settles it; else what fails is refused, or leaves the webhook out.
        (&["object.none == 1", "false"], "Fail", 201),
        (&["object.none == 1", "true"], "Ignore", 201),
        (&["object.none == 1"], "Ignore", 201),
    ] {
        let mut hook = world.hook("/refuse", conditions(expressions));
        hook["failurePolicy"] = policy.into();
        world.validating(hook).await;
        let answer = world.cluster.admin().post(&format!("{MAPS}?dryRun=All"), &map("m")).await;
        assert_eq!(answer.code, code, "{expressions:?} {policy}: {}", answer.body);
        lift(&world, "validatingwebhookconfigurations/v").await;
    }
    let asked = world.server.count("/refuse");
    world.validating(world.hook("/refuse", conditions(&["object.none == 1"]))).await;
    let told = world.create("m").await.refused();
    assert!(
        told.starts_with("configmaps \"m\" is forbidden: expression 'object.none == 1' resulted in error:"),
        "{told}"
    );
    assert_eq!(world.server.count("/refuse"), asked, "who is not asked hears nothing");
}

#[tokio::test]
async fn mutating_webhooks_leave_alone_what_their_conditions_leave_out() {
    let world = World::new().await;
    world
        .mutating("a", json!([world.hook("/label", conditions(&["object.metadata.name != 'skip-me'"]))]))
        .await;
    assert_eq!(world.create("skip-me").await.expect(201)["data"], json!({"own": "1"}));
    assert_eq!(world.create("other").await.expect(201)["data"], json!({"own": "1", "labelled": "yes"}));
}

#[tokio::test]
async fn conditions_that_cannot_be_used_are_refused_when_they_are_written() {
    let world = World::new().await;
    let admin = world.cluster.admin();
    for (kind, plural) in [
        ("ValidatingWebhookConfiguration", HOOKS),
        ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
    ] {
        let configuration = |expression: &str| {
            json!({"kind": kind, "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "c"},
                "webhooks": [world.hook("/refuse", conditions(&["true", expression]))]})
        };
        let path = format!("{CONFIGURATIONS}/{plural}");
        for expression in ["... [}", "nobody.knows", "params == null"] {
            let answer = admin.post(&path, &configuration(expression)).await.expect(422);
            let cause = &answer["details"]["causes"][0];
            assert_eq!(cause["field"], "webhooks[0].matchConditions[1].expression");
            assert!(cause["message"].as_str().unwrap().contains("compilation failed"), "{cause}");
        }
        admin.post(&path, &configuration("object.metadata.name == 'a'")).await.expect(201);
        let update = json!({"webhooks": configuration("object.metadata.name == 'b'")["webhooks"]});
        let kept = admin.merge(&format!("{path}/c"), &update).await.expect(200);
        assert_eq!(kept["webhooks"][0]["matchConditions"][1]["expression"], "object.metadata.name == 'b'");
        let broken = json!({"webhooks": configuration("b ==")["webhooks"]});
        admin.merge(&format!("{path}/c"), &broken).await.expect(422);
    }
}

#[tokio::test]
async fn a_changed_configuration_is_in_force_at_once() {
    let world = World::new().await;
    let admin = world.cluster.admin();
    for (kind, plural, path) in [
        ("ValidatingWebhookConfiguration", HOOKS, "/refuse"),
        ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "/label"),
    ] {
        let is_asked = async || {
            let answer = admin.post(&format!("{MAPS}?dryRun=All"), &map("m")).await;
            answer.code == 403 || answer.body["data"].get("labelled").is_some()
        };
        world.configure(kind, "w", json!([world.hook(path, json!({}))])).await;
        assert!(is_asked().await);
        let place = format!("{CONFIGURATIONS}/{plural}/w");
        let mut configuration = admin.get(&place).await.expect(200);
        configuration["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
        admin.put(&place, &configuration).await.expect(200);
        assert!(!is_asked().await);
        let patch = json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}]);
        admin.send("PATCH", &place, "application/json-patch+json", patch.to_string()).await.expect(200);
        assert!(is_asked().await);
        // Ten more with a label, gone with it.
        for number in 0..10 {
            let name = format!("n{number}");
            world.configure(kind, &name, json!([world.hook(path, json!({}))])).await;
            admin
                .merge(
                    &format!("{CONFIGURATIONS}/{plural}/{name}"),
                    &json!({"metadata": {"labels": {"ten": "yes"}}}),
                )
                .await
                .expect(200);
        }
        let labelled = format!("{CONFIGURATIONS}/{plural}?labelSelector=ten%3Dyes");
        assert_eq!(admin.get(&labelled).await.expect(200)["items"].as_array().unwrap().len(), 10);
        admin.delete(&place).await.expect(200);
        assert!(is_asked().await);
        admin.delete(&labelled).await.expect(200);
        assert!(!is_asked().await);
    }
}

#[tokio::test]
async fn configurations_are_nobodys_business() {
    let world = World::new().await;
    let admin = world.cluster.admin();
    let rules = json!([{"apiGroups": ["admissionregistration.k8s.io"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}]);
    world.mutating("m", json!([world.hook("/label", json!({"rules": rules}))])).await;
    world.validating(world.hook("/refuse", json!({"rules": rules}))).await;
    world
        .configure("ValidatingWebhookConfiguration", "other", json!([world.hook("/allow", json!({}))]))
        .await;
    let kept = admin.get(&format!("{CONFIGURATIONS}/{HOOKS}/other")).await.expect(200);
    assert_eq!(kept.get("data"), None);
    admin.delete(&format!("{CONFIGURATIONS}/{HOOKS}/other")).await.expect(200);
    assert_eq!((world.server.count("/refuse"), world.server.count("/label")), (0, 0));
}

#[tokio::test]
async fn custom_resources_and_their_definitions_are_asked_about() {
    let world = World::new().await;
    let admin = world.cluster.admin();
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let data =
        json!({"type": "object", "properties": {"own": {"type": "string"}, "labelled": {"type": "string"}}});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"data": data}}});
    let definition = json!({"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"kind": "Widget", "plural": "widgets"}, "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": schema},
            {"name": "v2", "served": true, "storage": false, "schema": schema}]}});
    let rules = |group: &str, operations: &[&str]| json!({"rules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": operations, "resources": ["*"]}]});
    world.validating(world.hook("/refuse", rules("apiextensions.k8s.io", &["CREATE"]))).await;
    admin.post(definitions, &definition).await.refused();
    lift(&world, "validatingwebhookconfigurations/v").await;
    admin.post(definitions, &definition).await.expect(201);
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    let widget = json!({"kind": "Widget", "apiVersion": "example.com/v1", "metadata": {"name": "w"}, "data": {"own": "1"}});
    let served = async {
        while admin.get(widgets).await.code != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), served).await.expect("the kind is served");
    // What the schema does not know of a patch falls away.
    world
        .mutating(
            "m",
            json!([
                world.hook("/label", rules("example.com", &["CREATE", "UPDATE"])),
                world.hook("/count", rules("example.com", &["CREATE"]))
            ]),
        )
        .await;
    let made = admin.post(widgets, &widget).await.expect(201);
    assert_eq!(made["data"], json!({"own": "1", "labelled": "yes"}));
    // Another version comes to be the stored one; the webhook sees the version of its rule.
    let versions = json!([{"op": "replace", "path": "/spec/versions/0/storage", "value": false}, {"op": "replace", "path": "/spec/versions/1/storage", "value": true}]);
    admin
        .send(
            "PATCH",
            &format!("{definitions}/widgets.example.com"),
            "application/json-patch+json",
            versions.to_string(),
        )
        .await
        .expect(200);
    let changed = admin.merge(&format!("{widgets}/w"), &json!({"data": {"own": "2"}})).await.expect(200);
    assert_eq!(changed["data"], json!({"own": "2", "labelled": "yes"}));
    assert_eq!(world.server.last("/label")["request"]["object"]["apiVersion"], "example.com/v1");
    world.validating(world.hook("/refuse", rules("example.com", &["CREATE", "UPDATE", "DELETE"]))).await;
    admin.merge(&format!("{widgets}/w"), &json!({"data": {"own": "3"}})).await.refused();
    admin.delete(&format!("{widgets}/w")).await.refused();
    let mut another = widget.clone();
    another["metadata"]["name"] = "another".into();
    admin.post(widgets, &another).await.refused();
}

#[tokio::test]
async fn a_scale_is_changed_as_the_scale_that_it_is() {
    let world = World::new().await;
    let admin = world.cluster.admin();
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"app": "d"}}, "template": {"metadata": {"labels": {"app": "d"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    admin.post(deployments, &deployment).await.expect(201);
    let rules = json!([{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments/scale"]}]);
    world.mutating("m", json!([world.hook("/five", json!({"rules": rules}))])).await;
    let scaled =
        admin.merge(&format!("{deployments}/d/scale"), &json!({"spec": {"replicas": 9}})).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 5);
    let asked = world.server.last("/five")["request"].clone();
    assert_eq!((&asked["object"]["kind"], &asked["kind"]["kind"]), (&json!("Scale"), &json!("Scale")));
    assert_eq!(
        (&asked["object"]["spec"], &asked["oldObject"]["spec"]),
        (&json!({"replicas": 9}), &json!({"replicas": 1}))
    );
    let stored = admin.get(&format!("{deployments}/d")).await.expect(200);
    assert_eq!((&stored["kind"], &stored["spec"]["replicas"]), (&json!("Deployment"), &json!(5)));
}

#[tokio::test]
async fn services_are_reached_at_their_cluster_address() {
    let address = Ipv4Addr::new(127, 64, 0, 77);
    let service_range = ServiceRange::parse("127.64.0.0/24").unwrap();
    let cluster = Cluster::start_as(|config| Config { service_range, ..config }).await;
    let world = World::at(cluster, address).await;
    let admin = world.cluster.admin();
    let port = world.server.address.port();
    let authority = STANDARD.encode(world.cluster.pki.authority.certificate_pem());
    let place = |name: &str, port: u16| json!({"service": {"namespace": "default", "name": name, "port": port, "path": "/refuse"}, "caBundle": authority});
    let service = |name: &str, ip: &str| {
        json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name},
        "spec": {"clusterIP": ip, "ports": [{"port": port}]}})
    };
    admin.post("/api/v1/namespaces/default/services", &service("hook", "127.64.0.77")).await.expect(201);
    admin.post("/api/v1/namespaces/default/services", &service("headless", "None")).await.expect(201);
    for (name, port, told) in [
        ("hook", port, "denied the request: not on a sunday"),
        ("hook", 1, "no service port 1 found for service \"hook\""),
        ("headless", port, "cannot route to service \"headless\" without a cluster IP"),
        ("nobody", port, "service \"nobody\" not found"),
    ] {
        world.validating(world.hook("/refuse", json!({"clientConfig": place(name, port)}))).await;
        let answer = world.create("m").await;
        let message = answer.body["message"].as_str().unwrap();
        assert!(answer.code >= 400 && message.contains(told), "{message}");
        lift(&world, "validatingwebhookconfigurations/v").await;
    }
    assert_eq!(world.server.count("/refuse"), 1);
}

#[tokio::test]
async fn connections_are_used_again() {
    let world = World::new().await;
    world.validating(world.hook("/allow", json!({}))).await;
    for number in 0..20 {
        world.create(&format!("m{number}")).await.expect(201);
    }
    let connections = world.server.connections.load(Ordering::Relaxed);
    assert_eq!(world.server.count("/allow"), 20);
    assert!(connections <= 10, "{connections} connections for 20 requests");
}
