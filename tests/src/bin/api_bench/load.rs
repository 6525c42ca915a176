//! The work: writes, reads, lists and watches as controllers and people ask for them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::AsyncReadExt;
use http::Request;
use http_body_util::BodyExt;
use kube::Client;
use kube::discovery::{Discovery, verbs};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::server::Server;

const CLIENTS: usize = 32;
const CONFIG_MAPS: usize = 6000;
const GETS: usize = 12_000;
const PODS: usize = 3000;
const WATCHERS: usize = 200;
const WATCHED_WRITES: usize = 300;
const NAMESPACE: &str = "/api/v1/namespaces/gantry-bench";

/// How fast, and at what cost.
#[derive(Clone, Copy)]
pub struct Rate {
    per_second: f64,
    processor_time: Duration,
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, micros) = (self.per_second, self.processor_time.as_secs_f64() * 1e6);
        write!(formatter, "{rate:.0}/s, ")?;
        if micros < 10_000.0 {
            write!(formatter, "{micros:.0} µs")
        } else {
            write!(formatter, "{:.1} ms", micros / 1e3)
        }
    }
}

/// All of it, one kind after the other.
pub async fn run(server: &Server) -> Vec<(&'static str, Rate)> {
    let one = server.client().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gantry-bench"}});
    send(&one, "POST", "/api/v1/namespaces", Some(&namespace)).await;
    // No controller does it where the API server runs alone; where one does, it may be faster.
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let path = format!("{NAMESPACE}/serviceaccounts/default?fieldManager=bench&force=true");
    send(&one, "PATCH", &path, Some(&account)).await;
    let mut rates = Vec::new();
    let maps = format!("{NAMESPACE}/configmaps");
    let each = |method: &'static str, wanted: usize| {
        let maps = maps.clone();
        move |client: Client, index: usize| {
            let path =
                if method == "POST" { maps.clone() } else { format!("{maps}/map-{}", index % CONFIG_MAPS) };
            async move {
                let body = matches!(method, "POST" | "PUT").then(|| config_map(index % CONFIG_MAPS, wanted));
                send(&client, method, &path, body.as_ref()).await;
            }
        }
    };
    rates.push(("create a config map of 1 KB", measure(server, CLIENTS, CONFIG_MAPS, each("POST", 0)).await));
    rates.push(("get it", measure(server, CLIENTS, GETS, each("GET", 0)).await));
    rates.push(("update it", measure(server, CLIENTS, CONFIG_MAPS, each("PUT", 1)).await));
    rates.push(("deliver a change to a watcher, 200 of them", deliveries(server, &maps).await));
    rates.push(("delete a config map", measure(server, CLIENTS, CONFIG_MAPS, each("DELETE", 0)).await));

    let pods = format!("{NAMESPACE}/pods");
    let create = |client: Client, index: usize| {
        let pods = pods.clone();
        async move { drop(send(&client, "POST", &pods, Some(&pod(index))).await) }
    };
    rates.push(("create a pod", measure(server, CLIENTS, PODS, create).await));
    for (work, query, count) in [
        ("list 3,000 pods, from the cache", "?resourceVersion=0", 60),
        ("list 3,000 pods, consistent", "", 60),
        ("a page of 500", "?limit=500", 200),
        ("a selector's 429 of 3,000", "?labelSelector=group%3Dg3", 400),
    ] {
        let path = format!("{pods}{query}");
        let list = move |client: Client, _| {
            let path = path.clone();
            async move { drop(send(&client, "GET", &path, None).await) }
        };
        rates.push((work, measure(server, 4, count, list).await));
    }
    rates
}

/// Takes away what the load has made.
pub async fn clean_up(server: &Server) {
    send(&server.client().await, "DELETE", NAMESPACE, None).await;
}

/// The bytes of all objects that a server holds, as lists of JSON.
pub async fn held_bytes(server: &Server) -> usize {
    let client = server.client().await;
    let discovery = Discovery::new(client.clone()).run().await.unwrap();
    let mut bytes = 0;
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            // What is computed when it is asked for, as usage is, is not held.
            if capabilities.supports_operation(verbs::LIST) && group.name() != "metrics.k8s.io" {
                let base = if resource.group.is_empty() { "/api" } else { "/apis" };
                let path = format!("{base}/{}/{}", resource.api_version, resource.plural);
                bytes += send(&client, "GET", &path, None).await.len();
            }
        }
    }
    bytes
}

/// What a server of ours remembers of changes, by its own count; nothing of another.
pub async fn history_bytes(server: &Server) -> usize {
    let metrics = send(&server.client().await, "GET", "/metrics", None).await;
    let metrics = String::from_utf8_lossy(&metrics);
    let lines = metrics.lines().filter(|line| line.starts_with("apiserver_watch_cache_history_bytes"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}

/// `total` times `work` by so many clients, each with a connection of its own.
async fn measure<F>(server: &Server, clients: usize, total: usize, work: impl Fn(Client, usize) -> F) -> Rate
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut ready = Vec::new();
    for _ in 0..clients {
        let client = server.client().await;
        send(&client, "GET", "/version", None).await;
        ready.push(client);
    }
    let (begun, before) = (Instant::now(), server.processor_time());
    for (number, client) in ready.into_iter().enumerate() {
        let mine: Vec<F> =
            (number..total).step_by(clients).map(|index| work(client.clone(), index)).collect();
        tasks.spawn(async move {
            for one in mine {
                one.await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    rate(total, begun.elapsed(), server.processor_time() - before)
}

/// Changes until every watcher has seen all of them.
async fn deliveries(server: &Server, maps: &str) -> Rate {
    let seen = Arc::new(AtomicUsize::new(0));
    let client = server.client().await;
    let list = send(&client, "GET", &format!("{maps}?limit=1"), None).await;
    let list: Value = serde_json::from_slice(&list).unwrap();
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_string();
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        let client = server.client().await;
        let request =
            Request::get(format!("{maps}?watch=true&resourceVersion={version}")).body(Vec::new()).unwrap();
        let mut stream = Box::pin(client.request_stream(request).await.unwrap());
        let seen = seen.clone();
        watchers.spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                let lines = buffer[..read].iter().filter(|byte| **byte == b'\n').count();
                seen.fetch_add(lines, Ordering::Relaxed);
            }
        });
    }
    let (begun, before) = (Instant::now(), server.processor_time());
    for index in 0..WATCHED_WRITES {
        let path = format!("{maps}/map-{index}");
        send(&client, "PUT", &path, Some(&config_map(index, 2))).await;
    }
    let all = WATCHERS * WATCHED_WRITES;
    while seen.load(Ordering::Relaxed) < all {
        assert!(begun.elapsed() < Duration::from_secs(120), "the watchers have not seen everything");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rate = rate(all, begun.elapsed(), server.processor_time() - before);
    watchers.shutdown().await;
    rate
}

fn rate(count: usize, elapsed: Duration, processor_time: Duration) -> Rate {
    Rate {
        per_second: count as f64 / elapsed.as_secs_f64(),
        processor_time: processor_time / u32::try_from(count).unwrap(),
    }
}

/// One request; anything but success ends the run.
async fn send(client: &Client, method: &str, path: &str, body: Option<&Value>) -> Bytes {
    let bytes = body.map(|body| serde_json::to_vec(body).unwrap()).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(
            "content-type",
            if method == "PATCH" { "application/apply-patch+yaml" } else { "application/json" },
        )
        .body(bytes.into())
        .unwrap();
    let answer = client.send(request).await.unwrap();
    let status = answer.status();
    let whole = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(status.is_success(), "{method} {path}: {status} {}", String::from_utf8_lossy(&whole));
    whole
}

fn config_map(index: usize, round: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("map-{index}"), "labels": {"app": "bench"}},
        "data": {"round": round.to_string(), "text": "x".repeat(1000)}})
}

/// As a deployment makes them; nobody schedules it.
fn pod(index: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{index}"), "labels": {"app": "bench", "group": format!("g{}", index % 7)}},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "main", "image": "registry.example/app:v1",
            "ports": [{"containerPort": 80}], "env": [{"name": "MODE", "value": "fast"}],
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
            "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}]}})
}
