//! Plays nodes: registers them, gives signs of life, binds pods (unless there is a scheduler), and makes pods run and be
//! ready. Pods of the image `done` succeed, of `fail` fail, of `bad` never start. Deletions are finished at once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Change, ErrorExt, Informers, ObjectKey, Outcome, Queue, Scope, queue};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What to play.
#[derive(Clone)]
pub struct Hollow {
    /// Speaks as somebody who may do everything.
    pub client: Client,
    /// How many nodes.
    pub nodes: usize,
    /// Whether to bind pods, too.
    pub binds: bool,
    /// How often nodes give signs of life.
    pub beat: Duration,
    /// Nodes that are dead, by name.
    pub dead: Arc<Mutex<HashSet<String>>>,
}

impl Hollow {
    /// Living nodes that bind pods themselves.
    pub fn new(client: Client, nodes: usize) -> Self {
        Self { client, nodes, binds: true, beat: Duration::from_secs(10), dead: Arc::default() }
    }

    /// Plays until shutdown.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), kube::Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        for number in 0..self.nodes {
            let mut node = Node::default();
            node.metadata.name = Some(format!("hollow-{number}"));
            match nodes.create(&PostParams::default(), &node).await {
                Ok(_) => {}
                Err(error) if error.is_already_exists() => {}
                Err(error) => return Err(error),
            }
            let (hollow, stop) = (self.clone(), shutdown.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = hollow.live(format!("hollow-{number}")) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        let informers = Informers::new(self.client.clone(), shutdown.clone());
        let pods = informers.get::<Pod>(Scope::all());
        let work: Queue<ObjectKey> = Queue::new("hollow", shutdown);
        let enqueue = work.clone();
        pods.on_change(move |change| {
            if !matches!(change, Change::Deleted(_)) {
                enqueue.add(ObjectKey::of(change.object().as_ref()));
            }
        });
        queue::run(work, 16, move |key: ObjectKey| {
            let (hollow, pod) = (self.clone(), pods.get_key(&key));
            async move {
                match pod {
                    Some(pod) => hollow.play(&pod).await,
                    None => Ok(Outcome::Done),
                }
            }
        })
        .await;
        Ok(())
    }

    fn is_dead(&self, node: &str) -> bool {
        self.dead.lock().is_ok_and(|dead| dead.contains(node))
    }

    async fn live(&self, name: String) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        loop {
            if !self.is_dead(&name) {
                let now = now();
                let room = json!({"cpu": "64", "memory": "64Gi", "pods": "1000"});
                let status = json!({"status": {
                    "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
                        "lastHeartbeatTime": now, "lastTransitionTime": now}],
                    "allocatable": room, "capacity": room,
                }});
                let patch = Patch::Strategic(&status);
                if let Err(error) = nodes.patch_status(&name, &PatchParams::default(), &patch).await {
                    eprintln!("node {name}: {error}");
                }
                let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
                    "spec": {"holderIdentity": name, "leaseDurationSeconds": 40,
                        "renewTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()}});
                let params = PatchParams::apply("hollow").force();
                if let Err(error) = leases.patch(&name, &params, &Patch::Apply(&lease)).await {
                    eprintln!("lease {name}: {error}");
                }
            }
            tokio::time::sleep(self.beat).await;
        }
    }

    async fn play(&self, pod: &Pod) -> Result<Outcome, kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let name = pod.name_any();
        let hash =
            name.bytes().fold(7usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        let Some(node) =
            pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty())
        else {
            return if self.binds { self.bind(&api, pod, hash).await } else { Ok(Outcome::Done) };
        };
        if self.is_dead(&node) {
            return Ok(Outcome::Done);
        }
        if pod.metadata.deletion_timestamp.is_some() {
            let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            return match api.delete(&name, &params).await {
                Ok(_) => Ok(Outcome::Done),
                Err(error) if error.is_not_found() => Ok(Outcome::Done),
                Err(error) => Err(error),
            };
        }
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let image = containers.into_iter().find_map(|container| container.image.clone()).unwrap_or_default();
        let target = match image.as_str() {
            "bad" => return Ok(Outcome::Done),
            "done" => "Succeeded",
            "fail" => "Failed",
            _ => "Running",
        };
        if pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(target) {
            return Ok(Outcome::Done);
        }
        let address = format!("10.244.{}.{}", hash % 250, (hash / 250) % 250);
        let ready = if target == "Running" { "True" } else { "False" };
        let status = json!({"status": {
            "phase": target, "podIP": address, "podIPs": [{"ip": address}], "startTime": now(),
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": now()}],
        }});
        api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(&status)).await?;
        Ok(Outcome::Done)
    }

    /// A pod goes to the node that its affinity names, else to a living one by its name.
    async fn bind(&self, api: &Api<Pod>, pod: &Pod, hash: usize) -> Result<Outcome, kube::Error> {
        let spec = pod.spec.clone().unwrap_or_default();
        let pinned = spec
            .affinity
            .and_then(|affinity| affinity.node_affinity)
            .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution)
            .and_then(|required| required.node_selector_terms.into_iter().next())
            .and_then(|term| term.match_fields)
            .and_then(|fields| fields.into_iter().next())
            .and_then(|field| field.values)
            .and_then(|values| values.into_iter().next());
        let living: Vec<String> = (0..self.nodes)
            .map(|number| format!("hollow-{number}"))
            .filter(|node| !self.is_dead(node))
            .collect();
        let Some(target) = pinned.or_else(|| living.get(hash % living.len().max(1)).cloned()) else {
            return Ok(Outcome::Retry);
        };
        let name = pod.name_any();
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": target}});
        let _: Value = api.create_subresource("binding", &name, &PostParams::default(), &binding).await?;
        Ok(Outcome::Done)
    }
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
