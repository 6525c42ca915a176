//! The controllers against a real server in this process, over hollow nodes: no containers, no network, no root.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::HashSet;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use client::{Change, Informers, Scope};
use controller_manager::Config;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ResourceQuota, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testbed::{Controllers, Hollow, TestServer};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A server with hollow nodes.
struct World {
    test: TestServer,
    hollow: Hollow,
    config: Config,
    shutdown: CancellationToken,
    _stop: DropGuard,
}

impl World {
    async fn new(nodes: usize) -> Self {
        let test = TestServer::start().await;
        let shutdown = CancellationToken::new();
        let hollow = Hollow { beat: Duration::from_millis(500), ..Hollow::new(test.client.clone(), nodes) };
        tokio::spawn(hollow.clone().run(shutdown.clone()));
        // A node that has not spoken yet would be tainted, and what runs there evicted.
        let api: Api<Node> = Api::all(test.client.clone());
        for number in 0..nodes {
            let name = format!("hollow-{number}");
            eventually("the node is ready", || async { api.get(&name).await.ok().filter(is_ready_node) })
                .await;
        }
        let config = Config { node_monitor_grace: Duration::from_secs(3), ..Controllers::config(&test) };
        Self { test, hollow, config, _stop: shutdown.clone().drop_guard(), shutdown }
    }

    fn admin(&self) -> Client {
        self.hollow.client.clone()
    }

    fn start_controllers(&self) -> Controllers {
        Controllers::start(&self.test, self.config.clone())
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.admin(), "default")
    }

    async fn create<K>(&self, object: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        let object: K = serde_json::from_value(object).unwrap();
        let api = self.api::<K>();
        // Pods wait for the service account of their namespace.
        eventually("the object is accepted", || async {
            api.create(&PostParams::default(), &object).await.ok()
        })
        .await
    }

    async fn patch<K>(&self, name: &str, patch: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
    }

    async fn pods(&self) -> Vec<Pod> {
        self.api::<Pod>().list(&ListParams::default()).await.unwrap().items
    }
}

/// Waits for something to become true, half a minute at most.
async fn eventually<T, F, Fut>(what: &str, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    for _ in 0..1500 {
        if let Some(seen) = look().await {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not in half a minute: {what}");
}

fn deployment(name: &str, replicas: i32, strategy: Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "strategy": strategy,
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "containers": [{"name": "c", "image": "v1", "ports": [{"name": "http", "containerPort": 8080}]}],
                    "tolerations": [{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]
                }
            }
        }
    })
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

async fn rolled_out(world: &World, name: &str, replicas: i32) -> Deployment {
    eventually("the rollout is complete", || async {
        let deployment = world.api::<Deployment>().get(name).await.ok()?;
        let status = deployment.status.clone()?;
        let done = [status.updated_replicas, status.replicas, status.available_replicas]
            == [Some(replicas); 3]
            && status.observed_generation == deployment.metadata.generation;
        done.then_some(deployment)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_update_keeps_its_bounds_as_a_watch_sees_them_and_services_follow() {
    let world = World::new(2).await;
    let _controllers = world.start_controllers();
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}});
    world.create::<Deployment>(deployment("web", 5, strategy)).await;
    let ports = json!([{"port": 80, "targetPort": "http"}]);
    world
        .create::<Service>(
            json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}}),
        )
        .await;
    rolled_out(&world, "web", 5).await;

    // Every change of a pod is checked against the bounds, in the watch's own order.
    let lowest = Arc::new(AtomicUsize::new(usize::MAX));
    let informers = Informers::new(world.admin(), world.shutdown.clone());
    let pods = informers.get::<Pod>(Scope::namespace("default"));
    assert!(pods.synced().await);
    let (seen, all, worst) = (lowest.clone(), pods.clone(), Arc::new(std::sync::Mutex::new(String::new())));
    let told = worst.clone();
    pods.on_change(move |change| {
        if matches!(change, Change::Added(_)) {
            return;
        }
        let serving = all
            .list()
            .iter()
            .filter(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none())
            .count();
        if serving < seen.fetch_min(serving, Ordering::SeqCst) && serving < 5 {
            *told.lock().unwrap() = format!("{:?}", all.list());
        }
    });
    world.patch::<Deployment>("web", image("v2")).await;
    rolled_out(&world, "web", 5).await;
    let served = lowest.load(Ordering::SeqCst);
    assert!(served >= 5, "{served} pods served: {}", worst.lock().unwrap());

    eventually("the slices hold exactly the new pods", || async {
        let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
        let slices = world.api::<EndpointSlice>().list(&of_web).await.ok()?.items;
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        let ready: HashSet<_> = endpoints
            .filter(|endpoint| {
                endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
            })
            .filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.clone())
            .collect();
        let port = slices.first()?.ports.as_ref()?.first()?.port;
        let wanted: HashSet<_> = world.pods().await.iter().map(ResourceExt::name_any).collect();
        (ready == wanted && port == Some(8080)).then_some(())
    })
    .await;

    // A bad image leaves the old pods alone; going back makes a new revision of the old set.
    world.patch::<Deployment>("web", image("bad")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(lowest.load(Ordering::SeqCst) >= 5);
    world.patch::<Deployment>("web", image("v1")).await;
    let back = rolled_out(&world, "web", 5).await;
    assert_eq!(back.annotations()["deployment.kubernetes.io/revision"], "4");

    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    world.api::<Deployment>().delete("web", &foreground).await.unwrap();
    eventually("nothing is left", || async {
        let sets = world.api::<ReplicaSet>().list(&ListParams::default()).await.ok()?;
        (sets.items.is_empty() && world.pods().await.is_empty()).then_some(())
    })
    .await;
}

fn is_ready_node(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_that_are_cut_off_and_restarted_neither_double_nor_lose_a_pod() {
    let world = World::new(3).await;
    let informers = Informers::new(world.admin(), world.shutdown.clone());
    let pods = informers.get::<Pod>(Scope::namespace("default"));
    assert!(pods.synced().await);
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    pods.on_change(move |change| {
        if matches!(change, Change::Added(_)) {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut running = world.start_controllers();
    let template =
        json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "done"}]}});
    let spec = json!({"completions": 60, "parallelism": 15, "template": template});
    world.create::<Job>(json!({"metadata": {"name": "many"}, "spec": spec})).await;
    for round in 0..6u64 {
        tokio::time::sleep(Duration::from_millis(60 + 40 * round)).await;
        running.kill();
        running = world.start_controllers();
    }
    let job = eventually("the job is complete", || async {
        let job = world.api::<Job>().get("many").await.ok()?;
        let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let complete = conditions.into_iter().any(|condition| condition.type_ == "Complete");
        complete.then_some(job)
    })
    .await;
    assert_eq!(job.status.unwrap().succeeded, Some(60));
    assert_eq!(made.load(Ordering::SeqCst), 60);
    assert!(world.pods().await.iter().all(|pod| pod.finalizers().is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pods_of_a_dead_node_are_replaced_on_the_others() {
    let world = World::new(2).await;
    let _controllers = world.start_controllers();
    world.create::<Deployment>(deployment("web", 4, json!({"type": "RollingUpdate"}))).await;
    rolled_out(&world, "web", 4).await;
    world.hollow.dead.lock().unwrap().insert("hollow-1".into());
    let nodes: Api<Node> = Api::all(world.admin());
    let node = eventually("the node is tainted", || async {
        let node = nodes.get("hollow-1").await.ok()?;
        let evicts = node.spec.as_ref()?.taints.iter().flatten().any(|taint| taint.effect == "NoExecute");
        evicts.then_some(node)
    })
    .await;
    let ranges: HashSet<_> = [nodes.get("hollow-0").await.unwrap(), node]
        .iter()
        .filter_map(|node| node.spec.as_ref()?.pod_cidr.clone())
        .collect();
    assert_eq!(ranges.len(), 2, "every node has its own range");
    eventually("four pods serve on the living node", || async {
        let pods = world.pods().await;
        let living = pods.iter().filter(|pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            node == Some("hollow-0") && is_ready(pod)
        });
        (living.count() == 4).then_some(())
    })
    .await;
    nodes.delete("hollow-1", &DeleteParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_goes_with_everything_in_it_also_custom_objects_and_their_dependents() {
    let world = World::new(1).await;
    let _controllers = world.start_controllers();
    let namespaces: Api<Namespace> = Api::all(world.admin());
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("doomed".into());
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(world.admin(), "doomed");
    eventually("the root certificates are published", || async { maps.get("kube-root-ca.crt").await.ok() })
        .await;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]}
    });
    let request = |path: &str, body: &Value| {
        http::Request::post(path)
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .unwrap()
    };
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    world.admin().request::<Value>(request(definitions, &definition)).await.unwrap();
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": {"name": "w", "finalizers": ["example.com/hold"]}});
    let path = "/apis/example.com/v1/namespaces/doomed/widgets";
    eventually("the kind is served", || async {
        world.admin().request::<Value>(request(path, &widget)).await.ok()
    })
    .await;
    let owner = json!([{"apiVersion": "example.com/v1", "kind": "Widget", "name": "gone",
        "uid": "00000000-0000-0000-0000-000000000000"}]);
    let child = json!({"metadata": {"name": "child", "ownerReferences": owner}});
    maps.create(&PostParams::default(), &serde_json::from_value(child).unwrap()).await.unwrap();
    eventually("an object whose owner is gone is collected", || async {
        maps.get_opt("child").await.ok()?.is_none().then_some(())
    })
    .await;

    namespaces.delete("doomed", &DeleteParams::default()).await.unwrap();
    let held = eventually("the conditions say what holds it", || async {
        let namespace = namespaces.get("doomed").await.ok()?;
        let conditions = namespace.status?.conditions?;
        conditions
            .into_iter()
            .find(|known| known.type_ == "NamespaceFinalizersRemaining" && known.status == "True")
    })
    .await;
    assert!(held.message.unwrap().contains("example.com/hold"));
    let body = json!({"metadata": {"finalizers": null}}).to_string().into_bytes();
    let patch =
        http::Request::patch(format!("{path}/w")).header("content-type", "application/merge-patch+json");
    world.admin().request::<Value>(patch.body(body).unwrap()).await.unwrap();
    eventually("the namespace is gone", || async {
        namespaces.get_opt("doomed").await.ok()?.is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_counts_what_was_there_before_it_and_bounds_what_a_replica_set_makes() {
    let world = World::new(1).await;
    let _controllers = world.start_controllers();
    world.create::<ConfigMap>(json!({"metadata": {"name": "before"}})).await;
    let hard =
        json!({"pods": "3", "count/configmaps": "5", "count/replicasets.apps": "1", "requests.cpu": "0"});
    world.create::<ResourceQuota>(json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await;
    let used = |name: &'static str| {
        let world = &world;
        async move {
            let quota = world.api::<ResourceQuota>().get("q").await.ok()?;
            quota.status?.used?.get(name).map(|amount| amount.0.clone())
        }
    };
    // The namespace has `kube-root-ca.crt` too.
    eventually("what was there is counted", || async { used("count/configmaps").await.filter(|n| n == "2") })
        .await;
    let set = json!({"metadata": {"name": "many"}, "spec": {"replicas": 8, "selector": {"matchLabels": {"app": "many"}},
        "template": {"metadata": {"labels": {"app": "many"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}}});
    world.patch::<ResourceQuota>("q", json!({"spec": {"hard": {"requests.cpu": null}}})).await;
    eventually("the new limits are counted", || async {
        used("requests.cpu").await.is_none().then_some(())?;
        used("pods").await
    })
    .await;
    world.create::<ReplicaSet>(set).await;
    eventually("as many pods as may be", || async { (world.pods().await.len() == 3).then_some(()) }).await;
    assert_eq!(used("pods").await.as_deref(), Some("3"));
    assert_eq!(used("count/replicasets.apps").await.as_deref(), Some("1"));
    world.api::<ReplicaSet>().delete("many", &DeleteParams::default()).await.unwrap();
    eventually("everything is given back", || async { used("pods").await.filter(|n| n == "0") }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_keeps_a_workload_within_its_bounds_and_says_what_it_cannot_measure() {
    let world = World::new(1).await;
    let _controllers = world.start_controllers();
    for (name, replicas) in [("large", 4), ("fitting", 1)] {
        world.create::<Deployment>(deployment(name, replicas, json!({}))).await;
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
        let spec = json!({"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 2});
        world.create::<HorizontalPodAutoscaler>(json!({"metadata": {"name": name}, "spec": spec})).await;
    }
    eventually("the large one is brought down to the maximum", || async {
        let replicas = world.api::<Deployment>().get("large").await.unwrap().spec.unwrap().replicas;
        (replicas == Some(2)).then_some(())
    })
    .await;
    let status = async |name: &str| {
        world.api::<HorizontalPodAutoscaler>().get(name).await.unwrap().status.unwrap_or_default()
    };
    eventually("the large one's step is told", || async {
        status("large").await.last_scale_time.map(|_| ())
    })
    .await;
    // Nobody measures hollow nodes.
    eventually("the fitting one's want of metrics is told", || async {
        let conditions = status("fitting").await.conditions.unwrap_or_default();
        let active = conditions.into_iter().find(|condition| condition.type_ == "ScalingActive")?;
        (active.reason? == "FailedGetResourceMetric").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_service_addresses_stays_while_a_service_needs_it() {
    let world = World::new(0).await;
    let _controllers = world.start_controllers();
    let ranges: Api<ServiceCIDR> = Api::all(world.admin());
    let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/24"]}});
    ranges.create(&PostParams::default(), &serde_json::from_value(range).unwrap()).await.unwrap();
    let ready = async |wanted: &str| {
        let conditions = ranges.get("more").await.ok()?.status?.conditions?;
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready")?;
        (ready.status == wanted).then_some(ready.reason)
    };
    eventually("the range is ready", || ready("True")).await;
    let finalizers = ranges.get("more").await.unwrap().metadata.finalizers.unwrap();
    assert_eq!(finalizers, ["networking.k8s.io/service-cidr-finalizer"]);
    let service =
        json!({"metadata": {"name": "a"}, "spec": {"clusterIP": "10.97.0.7", "ports": [{"port": 80}]}});
    world.create::<Service>(service.clone()).await;
    ranges.delete("more", &DeleteParams::default()).await.unwrap();
    let reason = eventually("the service holds the range", || ready("False")).await;
    assert_eq!(reason, "Terminating");
    let mut other = service;
    other["metadata"]["name"] = "b".into();
    other["spec"]["clusterIP"] = "10.97.0.8".into();
    let other: Service = serde_json::from_value(other).unwrap();
    let refused =
        world.api::<Service>().create(&PostParams::default(), &other).await.unwrap_err().to_string();
    assert!(refused.contains("is not in the valid range"), "{refused}");
    world.api::<Service>().delete("a", &DeleteParams::default()).await.unwrap();
    eventually("the range goes with the service", || async {
        ranges.get_opt("more").await.unwrap().is_none().then_some(())
    })
    .await;
}
