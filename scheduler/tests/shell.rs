//! The scheduler against the API server, in one process: hollow nodes, real requests, the scheduler's own identity.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use testbed::TestServer;
use tokio_util::sync::CancellationToken;

struct Cluster {
    _test: TestServer,
    client: Client,
    shutdown: CancellationToken,
    scheduler: tokio::task::JoinHandle<Result<(), scheduler::Error>>,
}

impl Cluster {
    async fn start() -> Self {
        let test = TestServer::start().await;
        test.make_default_account().await;
        let client = test.client.clone();
        let own = test.user("system:kube-scheduler", &["system:authenticated"]).client;
        let shutdown = CancellationToken::new();
        let scheduler = tokio::spawn(scheduler::run(scheduler::Config::default(), own, shutdown.clone()));
        Self { _test: test, client, shutdown, scheduler }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn add_node(&self, name: &str, cpu: &str) {
        let api: Api<Node> = Api::all(self.client.clone());
        let status =
            json!({"allocatable": {"cpu": cpu, "memory": "16Gi", "pods": "1000"}, "capacity": {"cpu": cpu}});
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        });
        api.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
        let patch = Patch::Merge(json!({"status": status}));
        api.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
        // New nodes are tainted as not ready until the node's agent and the controllers say otherwise.
        let patch = Patch::Merge(json!({"spec": {"taints": null}}));
        api.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn add_pod(&self, name: &str, spec: Value) {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        pod["spec"]["automountServiceAccountToken"] = false.into();
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    }

    /// Waits until a pod is as wanted.
    async fn wait(&self, name: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let pod = self.pods().get(name).await.unwrap();
            if wanted(&pod) {
                return pod;
            }
            assert!(Instant::now() < deadline, "{}", serde_json::to_string_pretty(&pod).unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn events(&self, reason: &str) -> Vec<Event> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let all = api.list(&ListParams::default()).await.unwrap().items;
            let found: Vec<_> =
                all.into_iter().filter(|event| event.reason.as_deref() == Some(reason)).collect();
            if !found.is_empty() {
                return found;
            }
            assert!(Instant::now() < deadline, "no event {reason}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), self.scheduler).await;
        ended.expect("the scheduler should stop when told to").unwrap().unwrap();
    }
}

fn container(cpu: &str) -> Value {
    json!([{"name": "c", "image": "web:v1", "resources": {"requests": {"cpu": cpu}}}])
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn scheduled_condition(pod: &Pod) -> Option<(String, String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == "PodScheduled")?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Some((condition.status.clone(), text(&condition.reason), text(&condition.message)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_bound_when_there_is_room_and_told_why_when_there_is_none() {
    let cluster = Cluster::start().await;
    cluster.add_pod("early", json!({"containers": container("1")})).await;
    let early = cluster.wait("early", |pod| scheduled_condition(pod).is_some()).await;
    let (status, reason, message) = scheduled_condition(&early).unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Unschedulable"));
    assert_eq!(message, "no nodes available to schedule pods");
    cluster.add_node("n1", "2").await;
    let early = cluster.wait("early", |pod| node_of(pod).is_some()).await;
    assert_eq!(node_of(&early), Some("n1"));
    assert_eq!(scheduled_condition(&early).unwrap().0, "True");
    let scheduled = cluster.events("Scheduled").await;
    assert_eq!(scheduled[0].message.as_deref(), Some("Successfully assigned default/early to n1"));
    assert_eq!(scheduled[0].source.as_ref().unwrap().component.as_deref(), Some("default-scheduler"));
    cluster.add_pod("big", json!({"containers": container("1500m")})).await;
    let big = cluster.wait("big", |pod| scheduled_condition(pod).is_some()).await;
    let message = scheduled_condition(&big).unwrap().2;
    assert!(message.starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{message}");
    let failed = cluster.events("FailedScheduling").await;
    assert!(failed.iter().any(|event| event.message.as_deref() == Some(&*message)));
    // Room comes free, and the pod that waits gets it.
    let now = DeleteParams::default().grace_period(0);
    cluster.pods().delete("early", &now).await.unwrap();
    cluster.wait("big", |pod| node_of(pod) == Some("n1")).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gates_hold_a_pod_back_and_other_schedulers_pods_are_left_alone() {
    let cluster = Cluster::start().await;
    cluster.add_node("n1", "2").await;
    let gated = json!({"containers": container("1"), "schedulingGates": [{"name": "example.com/wait"}]});
    cluster.add_pod("gated", gated).await;
    cluster.add_pod("foreign", json!({"containers": container("1"), "schedulerName": "other"})).await;
    cluster.add_pod("own", json!({"containers": container("1")})).await;
    cluster.wait("own", |pod| node_of(pod).is_some()).await;
    for name in ["gated", "foreign"] {
        assert_eq!(node_of(&cluster.pods().get(name).await.unwrap()), None, "{name}");
    }
    let open = Patch::Merge(json!({"spec": {"schedulingGates": null}}));
    cluster.pods().patch("gated", &PatchParams::default(), &open).await.unwrap();
    cluster.wait("gated", |pod| node_of(pod).is_some()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_more_important_pod_gets_its_place() {
    let cluster = Cluster::start().await;
    cluster.add_node("n1", "2").await;
    let class: Api<k8s_openapi::api::scheduling::v1::PriorityClass> = Api::all(cluster.client.clone());
    let vip = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "vip"}, "value": 1000});
    class.create(&PostParams::default(), &serde_json::from_value(vip).unwrap()).await.unwrap();
    cluster.add_pod("low", json!({"containers": container("2"), "terminationGracePeriodSeconds": 0})).await;
    cluster.wait("low", |pod| node_of(pod).is_some()).await;
    cluster.add_pod("high", json!({"containers": container("2"), "priorityClassName": "vip"})).await;
    // There is no agent that would let the victim go.
    let now = DeleteParams::default().grace_period(0);
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Ok(low) = cluster.pods().get("low").await {
        if low.metadata.deletion_timestamp.is_some() {
            cluster.pods().delete("low", &now).await.unwrap();
            break;
        }
        assert!(Instant::now() < deadline, "the victim should have been deleted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let high = cluster.wait("high", |pod| node_of(pod) == Some("n1")).await;
    assert_eq!(scheduled_condition(&high).unwrap().0, "True");
    assert!(cluster.events("Preempted").await[0].message.as_deref().unwrap().contains("on node n1"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_pods_per_second_are_bound_without_overfilling_a_node() {
    const PODS: usize = 500;
    let cluster = Cluster::start().await;
    for n in 0..20 {
        cluster.add_node(&format!("n{n}"), "8").await;
    }
    let began = Instant::now();
    let names: Vec<String> = (0..PODS).map(|n| format!("p{n}")).collect();
    for chunk in names.chunks(50) {
        let created =
            chunk.iter().map(|name| cluster.add_pod(name, json!({"containers": container("250m")})));
        futures::future::join_all(created).await;
    }
    let created = began.elapsed();
    let bound = loop {
        let pods = cluster.pods().list(&ListParams::default()).await.unwrap().items;
        if pods.iter().all(|pod| node_of(pod).is_some()) {
            break pods;
        }
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    println!("{PODS} pods: created in {created:?}, bound after {:?}", began.elapsed());
    for n in 0..20 {
        let name = format!("n{n}");
        let there = bound.iter().filter(|pod| node_of(pod) == Some(&name)).count();
        assert!(there <= 32, "{name} has {there}");
    }
    cluster.stop().await;
}
