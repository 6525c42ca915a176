//! kube-rs doing the everyday work of an operator and of a script.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::controller::Action;
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{Controller, WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testbed::Backend;

use crate::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_should_do_its_everyday_work_over_the_embedded_store() {
    everyday(Backend::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_should_do_its_everyday_work_over_etcd() {
    everyday(Backend::OwnEtcd).await;
}

async fn everyday(backend: Backend) {
    let cluster = Cluster::start(backend).await;
    let client = cluster.test.certificate(&cluster.listening, &cluster.test.pki.admin).client;
    discovery(&client).await;
    objects(&client).await;
    patches(&client).await;
    apply(&client).await;
    lists(&client).await;
    deletion(&client).await;
    rights(&client).await;
    certificates(&client).await;
    custom_kinds(&client).await;
    an_operator(&client).await;
    a_watch_through_a_restart(cluster, &client).await;
}

const SOON: Duration = Duration::from_secs(60);

fn of<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

/// Objects of the namespace `default`.
fn api<K>(client: &Client) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), "default")
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    api.create(&PostParams::default(), &of(object)).await.unwrap()
}

async fn make_map(client: &Client, name: &str, data: Value) -> ConfigMap {
    create(&api(client), json!({"metadata": {"name": name}, "data": data})).await
}

/// The code and the reason with which something is refused.
fn refusal<T: std::fmt::Debug>(result: kube::Result<T>) -> (u16, String) {
    match result.unwrap_err() {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("{other}"),
    }
}

async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(SOON, looking).await.unwrap_or_else(|_| panic!("not in a minute: {what}"))
}

async fn discovery(client: &Client) {
    assert_eq!(client.apiserver_version().await.unwrap().minor, "36");
    let found = kube::discovery::Discovery::new(client.clone()).run_aggregated().await.unwrap();
    let kind = GroupVersionKind::gvk("apps", "v1", "Deployment");
    let (resource, capabilities) = found.resolve_gvk(&kind).unwrap();
    assert_eq!(resource.plural, "deployments");
    assert!(capabilities.supports_operation("watch"));
    assert!(capabilities.subresources.iter().any(|(sub, _)| sub.plural == "scale"));
}

async fn objects(client: &Client) {
    let maps: Api<ConfigMap> = api(client);
    let made = make_map(client, "plain", json!({"a": "1"})).await;
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    let same: ConfigMap = of(json!({"metadata": {"name": "plain"}}));
    assert_eq!(refusal(maps.create(&PostParams::default(), &same).await), (409, "AlreadyExists".into()));
    assert_eq!(refusal(maps.get("none").await), (404, "NotFound".into()));
    assert!(maps.get_opt("none").await.unwrap().is_none());
    let mut changed = made.clone();
    changed.data.as_mut().unwrap().insert("b".into(), "2".into());
    maps.replace("plain", &PostParams::default(), &changed).await.unwrap();
    let late = maps.replace("plain", &PostParams::default(), &changed).await;
    assert_eq!(refusal(late), (409, "Conflict".into()));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &of(json!({"metadata": {"name": "dry"}}))).await.unwrap();
    assert!(maps.get_opt("dry").await.unwrap().is_none());
    let metadata = maps.get_metadata("plain").await.unwrap();
    assert_eq!((metadata.uid(), metadata.types.unwrap().kind), (made.uid(), "PartialObjectMetadata".into()));
    let mut entry = maps.entry("plain").await.unwrap().and_modify(|map| {
        map.binary_data = Some(BTreeMap::from([("bytes".to_string(), ByteString(vec![0, 255]))]));
    });
    if let kube::api::entry::Entry::Occupied(entry) = &mut entry {
        entry.commit(&PostParams::default()).await.unwrap();
    }
    assert_eq!(maps.get("plain").await.unwrap().binary_data.unwrap()["bytes"].0, [0, 255]);
}

async fn patches(client: &Client) {
    let maps: Api<ConfigMap> = api(client);
    make_map(client, "patched", json!({"a": "1"})).await;
    let plain = PatchParams::default();
    let merge = json!({"metadata": {"labels": {"tier": "front"}}, "data": {"merged": "1"}});
    maps.patch("patched", &plain, &Patch::Merge(merge)).await.unwrap();
    let strategic = json!({"metadata": {"annotations": {"note": "n"}}, "data": {"strategic": "1"}});
    maps.patch("patched", &plain, &Patch::Strategic(strategic)).await.unwrap();
    let steps = |version: &str| {
        of(
            json!([{"op": "test", "path": "/data/merged", "value": version}, {"op": "remove", "path": "/data/merged"}]),
        )
    };
    maps.patch("patched", &plain, &Patch::<()>::Json(steps("1"))).await.unwrap();
    let failed = maps.patch("patched", &plain, &Patch::<()>::Json(steps("1"))).await;
    assert_eq!(refusal(failed), (422, "Invalid".into()));
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"applied": "1"}});
    let patched = maps.patch("patched", &PatchParams::apply("fourth"), &Patch::Apply(applied)).await.unwrap();
    let keys: Vec<_> = patched.data.as_ref().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["a", "applied", "strategic"]);
    assert_eq!((&*patched.labels()["tier"], &*patched.annotations()["note"]), ("front", "n"));
    let strict = PatchParams {
        field_validation: Some(kube::api::ValidationDirective::Strict),
        ..PatchParams::default()
    };
    let unknown = maps.patch("patched", &strict, &Patch::Merge(json!({"date": {}}))).await;
    assert_eq!(refusal(unknown).0, 422);
    let metadata =
        maps.patch_metadata("patched", &plain, &Patch::Merge(json!({"metadata": {"labels": null}}))).await;
    assert!(metadata.unwrap().labels().is_empty());
}

async fn apply(client: &Client) {
    let maps: Api<ConfigMap> = api(client);
    let map = |data: Value| Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data}));
    let first = PatchParams::apply("first");
    let second = PatchParams::apply("second");
    maps.patch("ssa", &first, &map(json!({"a": "1", "b": "1"}))).await.unwrap();
    assert_eq!(refusal(maps.patch("ssa", &second, &map(json!({"a": "2"}))).await), (409, "Conflict".into()));
    maps.patch("ssa", &second.force(), &map(json!({"a": "2"}))).await.unwrap();
    let nothing = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap"}));
    let left = maps.patch("ssa", &first, &nothing).await.unwrap();
    assert_eq!(left.data.clone().unwrap(), BTreeMap::from([("a".to_string(), "2".to_string())]));
    let managers: Vec<_> =
        left.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect();
    assert_eq!(managers, ["second"], "who owns nothing is not told of");
}

async fn lists(client: &Client) {
    let maps: Api<ConfigMap> = api(client);
    for number in 0..5 {
        let labels = json!({"listed": "yes", "even": (number % 2 == 0).to_string()});
        create(&maps, json!({"metadata": {"name": format!("l{number}"), "labels": labels}})).await;
    }
    let mut params = ListParams::default().labels("listed=yes").limit(2);
    let mut names = Vec::new();
    loop {
        let page = maps.list(&params).await.unwrap();
        names.extend(page.items.iter().map(ResourceExt::name_any));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => break,
        }
    }
    assert_eq!(names, ["l0", "l1", "l2", "l3", "l4"]);
    let count = async |params: ListParams| maps.list_metadata(&params).await.unwrap().items.len();
    assert_eq!(count(ListParams::default().labels("listed,even!=true")).await, 2);
    assert_eq!(count(ListParams::default().labels("even in (true, false)")).await, 5);
    assert_eq!(count(ListParams::default().fields("metadata.name=l3")).await, 1);
    let everywhere: Api<ConfigMap> = Api::all(client.clone());
    let stale = ListParams::default().labels("listed").match_any().at("0");
    assert_eq!(everywhere.list(&stale).await.unwrap().items.len(), 5);
    let gone =
        maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("listed")).await;
    assert!(gone.is_ok());
    assert_eq!(count(ListParams::default().labels("listed")).await, 0);
}

fn web() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web:v1"}]}}}})
}

async fn deletion(client: &Client) {
    let (deployments, sets): (Api<Deployment>, Api<ReplicaSet>) = (api(client), api(client));
    let pods: Api<Pod> = api(client);
    let of_web = ListParams::default().labels("app=web");
    for policy in [PropagationPolicy::Orphan, PropagationPolicy::Foreground, PropagationPolicy::Background] {
        let made = create(&deployments, web()).await;
        tokio::time::timeout(
            SOON,
            await_condition(deployments.clone(), "web", conditions::is_deployment_completed()),
        )
        .await
        .expect("the rollout completes")
        .unwrap();
        assert_eq!(deployments.get_scale("web").await.unwrap().spec.unwrap().replicas, Some(2));
        let wrong = Preconditions { uid: Some("other".into()), ..Preconditions::default() };
        let refused = deployments.delete("web", &DeleteParams::default().preconditions(wrong)).await;
        assert_eq!(refusal(refused.map(|_| ())), (409, "Conflict".into()));
        let params = DeleteParams { propagation_policy: Some(policy.clone()), ..DeleteParams::default() };
        deployments.delete("web", &params).await.unwrap();
        let uid = made.uid().unwrap();
        let gone = await_condition(deployments.clone(), "web", conditions::is_deleted(&uid));
        tokio::time::timeout(SOON, gone).await.expect("it goes").unwrap();
        let below = async || {
            let sets = sets.list(&of_web).await.unwrap().items.len();
            (sets, pods.list(&of_web).await.unwrap().items.len())
        };
        match policy {
            PropagationPolicy::Orphan => assert_eq!(below().await, (1, 2)),
            PropagationPolicy::Foreground => assert_eq!(below().await, (0, 0)),
            PropagationPolicy::Background => {
                eventually("nothing is left below", async || (below().await == (0, 0)).then_some(())).await;
            }
        }
    }
}

async fn rights(client: &Client) {
    let review: SelfSubjectAccessReview = of(
        json!({"spec": {"resourceAttributes": {"verb": "delete", "resource": "pods", "namespace": "default"}}}),
    );
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    assert!(reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed);
    let accounts: Api<ServiceAccount> = api(client);
    create(&accounts, json!({"metadata": {"name": "robot"}})).await;
    let asked: TokenRequest = of(json!({"spec": {"audiences": [], "expirationSeconds": 600}}));
    let made = accounts.create_token_request("robot", &PostParams::default(), &asked).await.unwrap();
    let review: TokenReview = of(json!({"spec": {"token": made.status.unwrap().token}}));
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let known = reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap();
    assert_eq!(known.user.unwrap().username.as_deref(), Some("system:serviceaccount:default:robot"));
    let nodes: Api<Node> = Api::all(client.clone());
    assert!(nodes.cordon("hollow-0").await.unwrap().spec.unwrap().unschedulable.unwrap());
    assert_ne!(nodes.uncordon("hollow-0").await.unwrap().spec.unwrap().unschedulable, Some(true));
}

async fn certificates(client: &Client) {
    let asked =
        pki::certificate_request(&pki::Leaf::client("ann", Some("staff")), jiff::Timestamp::now()).unwrap();
    let request: CertificateSigningRequest = of(json!({"metadata": {"name": "ann"}, "spec": {
        "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
        "request": ByteString(asked.certificate_pem.into_bytes())}}));
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    requests.create(&PostParams::default(), &request).await.unwrap();
    let approved = json!({"status": {"conditions": [
        {"type": "Approved", "status": "True", "reason": "Script", "message": "approved by a script"}]}});
    requests.patch_approval("ann", &PatchParams::default(), &Patch::Merge(approved)).await.unwrap();
    let issued = eventually("the certificate is issued", async || {
        requests.get("ann").await.unwrap().status?.certificate
    })
    .await;
    assert!(issued.0.starts_with(b"-----BEGIN CERTIFICATE-----"));
}

async fn custom_kinds(client: &Client) {
    let definition = json!({"metadata": {"name": "crabs.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"kind": "Crab", "plural": "crabs"},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "required": ["legs"], "properties": {"legs": {"type": "integer", "maximum": 10}}},
                "status": {"type": "object", "properties": {"seen": {"type": "boolean"}}}}}}}]}});
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    create(&definitions, definition).await;
    let established =
        await_condition(definitions.clone(), "crabs.example.com", conditions::is_crd_established());
    tokio::time::timeout(SOON, established).await.expect("the kind is served").unwrap();
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.com", "v1", "Crab"), "crabs");
    let crabs: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let ferris = DynamicObject::new("ferris", &resource).data(json!({"spec": {"legs": 8}}));
    crabs.create(&PostParams::default(), &ferris).await.unwrap();
    let status = Patch::Merge(json!({"status": {"seen": true}, "spec": {"legs": 2}}));
    let patched = crabs.patch_status("ferris", &PatchParams::default(), &status).await.unwrap();
    assert_eq!((&patched.data["status"]["seen"], &patched.data["spec"]["legs"]), (&json!(true), &json!(8)));
    let many = Patch::Merge(json!({"spec": {"legs": 100}}));
    assert_eq!(refusal(crabs.patch("ferris", &PatchParams::default(), &many).await), (422, "Invalid".into()));
    definitions.delete("crabs.example.com", &DeleteParams::default()).await.unwrap();
}

/// Gives every config map that is labelled `copied` a copy that it owns.
async fn an_operator(client: &Client) {
    let maps: Api<ConfigMap> = api(client);
    let originals = watcher::Config::default().labels("copied=yes");
    let reconcile = |map: Arc<ConfigMap>, client: Arc<Client>| async move {
        let owner = map.controller_owner_ref(&()).unwrap();
        let copy = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"ownerReferences": [owner]}, "data": map.data});
        let maps: Api<ConfigMap> = api(&client);
        let name = format!("{}-copy", map.name_any());
        maps.patch(&name, &PatchParams::apply("copier").force(), &Patch::Apply(copy)).await?;
        Ok::<_, kube::Error>(Action::await_change())
    };
    let retry =
        |_: Arc<ConfigMap>, _: &kube::Error, _: Arc<Client>| Action::requeue(Duration::from_millis(200));
    let operator = Controller::new(maps.clone(), originals)
        .owns(maps.clone(), watcher::Config::default())
        .run(reconcile, retry, Arc::new(client.clone()));
    let running = tokio::spawn(operator.for_each(|_| async {}));
    create(&maps, json!({"metadata": {"name": "original", "labels": {"copied": "yes"}}, "data": {"a": "1"}}))
        .await;
    let copied = async |value: &str| {
        eventually("the copy is as the original", async || {
            let copy = maps.get_opt("original-copy").await.unwrap()?;
            (copy.data?.get("a")? == value).then_some(())
        })
        .await;
    };
    copied("1").await;
    maps.patch("original", &PatchParams::default(), &Patch::Merge(json!({"data": {"a": "2"}})))
        .await
        .unwrap();
    copied("2").await;
    maps.delete("original-copy", &DeleteParams::default()).await.unwrap();
    copied("2").await;
    running.abort();
    maps.delete("original", &DeleteParams::default()).await.unwrap();
    eventually("the copy goes with its owner", async || {
        maps.get_opt("original-copy").await.unwrap().is_none().then_some(())
    })
    .await;
}

async fn a_watch_through_a_restart(cluster: Cluster, client: &Client) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    create(&namespaces, json!({"metadata": {"name": "before"}})).await;
    let watch = |config: watcher::Config| {
        let events = watcher(namespaces.clone(), config).default_backoff().applied_objects();
        Box::pin(events.filter_map(async |event| event.ok().map(|namespace| namespace.name_any())))
    };
    let mut watches =
        [watch(watcher::Config::default()), watch(watcher::Config::default().streaming_lists())];
    for events in &mut watches {
        sees(events, "before").await;
    }
    let _cluster = cluster.restarted().await;
    let again = eventually("the server is back", async || {
        let namespace: Namespace = of(json!({"metadata": {"name": "after"}}));
        namespaces.create(&PostParams::default(), &namespace).await.ok()
    });
    again.await;
    for events in &mut watches {
        sees(events, "after").await;
    }
}

/// Waits until a watch tells of a name.
async fn sees(events: &mut (impl futures::Stream<Item = String> + Unpin), name: &str) {
    let seen = async { while events.next().await.expect("the watch goes on") != name {} };
    tokio::time::timeout(SOON, seen).await.unwrap_or_else(|_| panic!("{name} is not seen in a minute"));
}
