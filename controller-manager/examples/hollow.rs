//! The controllers alone, against the server of `$KUBECONFIG`, for development.
//!
//!     cargo run -p controller-manager --example hollow -- [HOLLOW-NODES]
//!
//! With `NODES_ONLY` set no controllers run, and with `NO_BINDING` set no pods are bound: the server has its own. With a number it also plays that many nodes, in one process: it registers them, binds pods to them in turn, makes pods
//! run and be ready, lets pods of the image `done` succeed and of `fail` fail, and finishes deletions.

use std::sync::Arc;
use std::time::Duration;

use client::{Change, ErrorExt, Informers, ObjectKey, Outcome, Queue, Scope, queue};
use controller_manager::{Config, SigningAuthority};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let hollow: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(0);
    let client = Client::try_default().await?;
    let shutdown = CancellationToken::new();
    let ca = std::env::var("CA_DIR").ok().and_then(|dir| {
        let read = |name: &str| std::fs::read_to_string(format!("{dir}/{name}")).ok();
        Some(SigningAuthority { certificate_pem: read("ca.crt")?, key_pem: read("ca.key")? })
    });
    let config = Config {
        root_ca_pem: ca.as_ref().map(|ca| ca.certificate_pem.clone()),
        signing_authority: ca,
        leader_elect: is_set("LEADER_ELECT"),
        ..Config::default()
    };
    if hollow > 0 {
        tokio::spawn(play_nodes(client.clone(), hollow, shutdown.clone()));
    }
    let stop = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    if is_set("NODES_ONLY") {
        shutdown.cancelled().await;
        return Ok(());
    }
    // The controllers must get by with the rights of their own identity.
    let mut identity = kube::Config::infer().await?;
    identity.auth_info.impersonate = Some("system:kube-controller-manager".into());
    let client = Client::try_from(identity)?;
    Ok(controller_manager::run(config, client, shutdown).await?)
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some()
}

async fn play_nodes(client: Client, count: usize, shutdown: CancellationToken) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    for number in 0..count {
        let mut node = Node::default();
        node.metadata.name = Some(format!("hollow-{number}"));
        match nodes.create(&PostParams::default(), &node).await {
            Ok(_) => {}
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error),
        }
        tokio::spawn(beat(client.clone(), format!("hollow-{number}")));
    }
    let informers = Informers::new(client.clone(), shutdown.clone());
    let pods = informers.get::<Pod>(Scope::all());
    let work: Queue<ObjectKey> = Queue::new("hollow", shutdown);
    let enqueue = work.clone();
    pods.on_change(move |change| {
        if !matches!(change, Change::Deleted(_)) {
            enqueue.add(ObjectKey::of(change.object().as_ref()));
        }
    });
    queue::run(work, 16, move |key: ObjectKey| {
        let (client, pod) = (client.clone(), pods.get_key(&key));
        async move {
            match pod {
                Some(pod) => play_pod(client, pod, count).await,
                None => Ok(Outcome::Done),
            }
        }
    })
    .await;
    Ok(())
}

/// A node's signs of life. A file `/tmp/hollow-dead-<name>` silences it.
async fn beat(client: Client, name: String) {
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    loop {
        if !std::path::Path::new(&format!("/tmp/hollow-dead-{name}")).exists() {
            let now = Timestamp::now();
            let status = json!({"status": {
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
                    "lastHeartbeatTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                    "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}],
                "allocatable": {"cpu": "64", "memory": "64Gi", "pods": "1000"},
                "capacity": {"cpu": "64", "memory": "64Gi", "pods": "1000"},
            }});
            if let Err(error) =
                nodes.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&status)).await
            {
                eprintln!("node {name}: {error}");
            }
            let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
                "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string()}});
            let params = PatchParams::apply("hollow").force();
            if let Err(error) = leases.patch(&name, &params, &Patch::Apply(&lease)).await {
                eprintln!("lease {name}: {error}");
            }
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

async fn play_pod(client: Client, pod: Arc<Pod>, count: usize) -> Result<Outcome, kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    let spec = pod.spec.clone().unwrap_or_default();
    let hash = name.bytes().fold(7usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    let Some(node) = spec.node_name.filter(|node| !node.is_empty()) else {
        if is_set("NO_BINDING") {
            return Ok(Outcome::Done);
        }
        let wanted = spec
            .affinity
            .and_then(|affinity| affinity.node_affinity)
            .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution)
            .and_then(|required| required.node_selector_terms.into_iter().next())
            .and_then(|term| term.match_fields)
            .and_then(|fields| fields.into_iter().next())
            .and_then(|field| field.values)
            .and_then(|values| values.into_iter().next());
        let target = wanted.unwrap_or_else(|| format!("hollow-{}", hash % count));
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": target}});
        let _: serde_json::Value =
            api.create_subresource("binding", &name, &PostParams::default(), &binding).await?;
        return Ok(Outcome::Done);
    };
    if std::path::Path::new(&format!("/tmp/hollow-dead-{node}")).exists() {
        return Ok(Outcome::Done);
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        return match api.delete(&name, &params).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if error.is_not_found() => Ok(Outcome::Done),
            Err(error) => Err(error),
        };
    }
    let image = spec.containers.first().and_then(|container| container.image.clone()).unwrap_or_default();
    let target = match image.as_str() {
        "done" => "Succeeded",
        "fail" => "Failed",
        _ => "Running",
    };
    if phase == target || image == "bad" {
        return Ok(Outcome::Done);
    }
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let address = format!("10.244.{}.{}", hash % 250, (hash / 250) % 250);
    let status = json!({"status": {
        "phase": target, "podIP": address, "podIPs": [{"ip": address}], "startTime": now,
        "conditions": [{"type": "Ready", "status": if target == "Running" { "True" } else { "False" }, "lastTransitionTime": now}],
    }});
    api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&status)).await?;
    Ok(Outcome::Done)
}
