//! The scheduler's mind in a world of its own: seeded, on a clock of its own, with late news and failing bindings.
//!
//! The world is what the API server would know. In every step something random happens in it, some of the news reaches
//! the scheduler, and some of what the scheduler decided takes effect. What must hold is checked against the world, not
//! against what the scheduler believes. `SCHEDULER_SEED` replays one seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Change;
use k8s_openapi::api::core::v1::{Node, Pod};
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use scheduler::model::{Cluster, PodInfo};
use scheduler::scheduling::Scheduling;
use scheduler::{Decision, decide};
use serde_json::{Value, json};

const STEPS: usize = 600;

struct World {
    rng: SmallRng,
    now: Instant,
    pods: BTreeMap<String, Arc<Pod>>,
    nodes: BTreeMap<String, Arc<Node>>,
    pod_news: VecDeque<Change<Pod>>,
    node_news: VecDeque<Change<Node>>,
    /// Decided, not yet carried out.
    bindings: VecDeque<(String, String)>,
    scheduling: Scheduling,
    made: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            now: Instant::now(),
            pods: BTreeMap::new(),
            nodes: BTreeMap::new(),
            pod_news: VecDeque::new(),
            node_news: VecDeque::new(),
            bindings: VecDeque::new(),
            scheduling: Scheduling::new("default-scheduler", SmallRng::seed_from_u64(seed)),
            made: 0,
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..20) {
            0..8 => self.create_pod(),
            8..11 => self.delete_pod(),
            11 => self.finish_pod(),
            12 => self.open_gate(),
            13 => self.add_node(),
            14..17 => self.advance_node(),
            _ => {}
        }
        self.now += Duration::from_millis(self.rng.random_range(0..500));
        for _ in 0..self.rng.random_range(0..4) {
            self.hear();
        }
        if self.rng.random_bool(0.8) {
            self.decide();
        }
        for _ in 0..self.rng.random_range(0..3) {
            self.carry_out(0.1);
        }
        self.check();
    }

    fn set_pod(&mut self, new: Pod) {
        let name = new.metadata.name.clone().unwrap();
        let new = Arc::new(new);
        let news = match self.pods.insert(name, Arc::clone(&new)) {
            None => Change::Added(new),
            Some(old) => Change::Modified { old, new },
        };
        self.pod_news.push_back(news);
    }

    fn set_node(&mut self, new: Node) {
        let name = new.metadata.name.clone().unwrap();
        let new = Arc::new(new);
        let news = match self.nodes.insert(name, Arc::clone(&new)) {
            None => Change::Added(new),
            Some(old) => Change::Modified { old, new },
        };
        self.node_news.push_back(news);
    }

    fn create_pod(&mut self) {
        self.made += 1;
        let name = format!("p{}", self.made);
        let app = format!("app{}", self.rng.random_range(0..4));
        let cpu = format!("{}m", self.rng.random_range(1..30) * 100);
        let mut container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let same = json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "zone"});
        let mut spec = json!({"preemptionPolicy": "Never"});
        match self.rng.random_range(0..8) {
            0 => {
                let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": [same]});
                spec["affinity"] = json!({"podAntiAffinity": required});
            }
            1 => {
                let mut constraint = same;
                constraint["maxSkew"] = 1.into();
                constraint["whenUnsatisfiable"] = "DoNotSchedule".into();
                spec["topologySpreadConstraints"] = json!([constraint]);
            }
            2 => spec["nodeSelector"] = json!({"disk": "ssd"}),
            3 => {
                container["ports"] = json!([{"containerPort": 80, "hostPort": self.rng.random_range(80..83)}])
            }
            4 => spec["schedulingGates"] = json!([{"name": "example.com/gate"}]),
            _ => {}
        }
        spec["containers"] = json!([container]);
        let metadata = json!({"name": name, "namespace": "default", "uid": name, "labels": {"app": app}});
        self.set_pod(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap());
    }

    fn random_pod(&mut self, wanted: impl Fn(&Pod) -> bool) -> Option<Pod> {
        self.pods.values().filter(|pod| wanted(pod)).choose(&mut self.rng).map(|pod| (**pod).clone())
    }

    fn delete_pod(&mut self) {
        let Some(pod) = self.random_pod(|_| true) else { return };
        let gone = self.pods.remove(pod.metadata.name.as_ref().unwrap()).unwrap();
        self.pod_news.push_back(Change::Deleted(gone));
    }

    fn finish_pod(&mut self) {
        let Some(mut pod) = self.random_pod(|pod| node_of(pod).is_some()) else { return };
        pod.status = Some(serde_json::from_value(json!({"phase": "Succeeded"})).unwrap());
        self.set_pod(pod);
    }

    fn open_gate(&mut self) {
        let Some(mut pod) = self.random_pod(is_gated) else { return };
        pod.spec.as_mut().unwrap().scheduling_gates = None;
        self.set_pod(pod);
    }

    /// A node comes as real ones do: first it only exists, tainted.
    fn add_node(&mut self) {
        let name = format!("n{}", self.nodes.len());
        let zone = format!("z{}", self.nodes.len() % 3);
        self.set_node(
            serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {"zone": zone}},
                "spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]},
            }))
            .unwrap(),
        );
    }

    fn advance_node(&mut self) {
        let Some(node) = self.nodes.values().choose(&mut self.rng).map(|node| (**node).clone()) else {
            return;
        };
        let mut tree = serde_json::to_value(node).unwrap();
        match self.rng.random_range(0..3) {
            0 => tree["status"] = json!({"allocatable": {"cpu": "6", "memory": "1Gi", "pods": "8"}}),
            1 => tree["spec"]["taints"] = Value::Null,
            _ => tree["metadata"]["labels"]["disk"] = "ssd".into(),
        }
        self.set_node(serde_json::from_value(tree).unwrap());
    }

    /// One piece of news arrives. Each kind keeps its order; kinds do not wait for each other.
    fn hear(&mut self) -> bool {
        let pods_first = self.rng.random_bool(0.5);
        let take_pod = !self.pod_news.is_empty() && (pods_first || self.node_news.is_empty());
        if take_pod {
            self.scheduling.pod_changed(&self.pod_news.pop_front().unwrap(), self.now);
        } else if let Some(change) = self.node_news.pop_front() {
            self.scheduling.node_changed(&change, self.now);
        } else {
            return false;
        }
        true
    }

    fn decide(&mut self) -> bool {
        match self.scheduling.next(self.now) {
            Some((pod, Decision::Assign(node))) => {
                self.bindings.push_back((pod.uid.clone(), node.to_string()));
                true
            }
            Some(_) => true,
            None => false,
        }
    }

    /// The API server's part: a pod that is there, free and not gated is bound.
    fn carry_out(&mut self, failures: f64) -> bool {
        let Some((uid, node)) = self.bindings.pop_front() else { return false };
        let pod = self.pods.get(&uid).map(|pod| (**pod).clone());
        let broken = self.rng.random_bool(failures);
        match pod {
            Some(mut pod) if node_of(&pod).is_none() && !is_gated(&pod) && !broken => {
                pod.spec.as_mut().unwrap().node_name = Some(node);
                self.set_pod(pod);
            }
            Some(pod) => {
                assert!(node_of(&pod).is_none(), "{uid} is decided about twice");
                self.scheduling.binding_failed(&uid, self.now);
            }
            None => self.scheduling.binding_failed(&uid, self.now),
        }
        true
    }

    fn running(&self) -> impl Iterator<Item = (&Arc<Pod>, &str)> {
        let live = self.pods.values().filter(|pod| pod.status.is_none());
        live.filter_map(|pod| node_of(pod).map(|node| (pod, node)))
    }

    /// What users rely on, in the world as it is.
    fn check(&self) {
        let mut used: BTreeMap<&str, (i64, usize, Vec<i32>)> = BTreeMap::new();
        for (pod, node) in self.running() {
            let info = PodInfo::new(Arc::clone(pod));
            let entry = used.entry(node).or_default();
            entry.0 += info.requests.cpu_milli;
            entry.1 += 1;
            let container = &pod.spec.as_ref().unwrap().containers[0];
            let ports = container.ports.iter().flatten();
            entry.2.extend(ports.filter_map(|port| port.host_port));
        }
        for (node, (cpu, pods, mut ports)) in used {
            assert!(cpu <= 6000, "{node} is overfilled: {cpu}m");
            assert!(pods <= 8, "{node} has {pods} pods");
            let count = ports.len();
            ports.sort_unstable();
            ports.dedup();
            assert_eq!(count, ports.len(), "a port of {node} is taken twice");
        }
        for (pod, node) in self.running() {
            let rule = pod.spec.as_ref().unwrap().affinity.as_ref();
            if rule.and_then(|rule| rule.pod_anti_affinity.as_ref()).is_none() {
                continue;
            }
            let zone = |node: &str| self.nodes[node].metadata.labels.as_ref().unwrap()["zone"].clone();
            let near = self
                .running()
                .filter(|(other, at)| zone(at) == zone(node) && other.metadata.labels == pod.metadata.labels);
            assert_eq!(near.count(), 1, "{:?} has company in its zone", pod.metadata.name);
        }
    }

    /// Lets everything arrive and take effect; then nobody who fits may still be waiting.
    fn settle(&mut self) {
        // Well before the time after which every pod is tried again anyway.
        let end = self.now + Duration::from_secs(60);
        while self.now < end {
            while self.hear() || self.decide() || self.carry_out(0.0) {}
            self.check();
            self.now += Duration::from_secs(1);
        }
        let mut truth = Cluster::default();
        self.nodes.values().for_each(|node| truth.set_node(Arc::clone(node)));
        for (pod, node) in self.running() {
            truth.place(Arc::new(PodInfo::new(Arc::clone(pod))), node);
        }
        let waiting = self.pods.values().filter(|pod| node_of(pod).is_none() && !is_gated(pod));
        for pod in waiting {
            let info = PodInfo::new(Arc::clone(pod));
            let decision = decide(&truth, &info, &mut 0, &mut self.rng);
            if let Decision::Assign(node) = decision {
                panic!("{:?} fits on {node} and was forgotten", pod.metadata.name);
            }
        }
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn is_gated(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .is_some_and(|spec| spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()))
}

#[test]
fn late_news_and_failing_bindings_overfill_no_node_and_forget_no_pod() {
    let replay = std::env::var("SCHEDULER_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let seeds = replay.map_or(0..40, |seed| seed..seed + 1);
    for seed in seeds {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.settle();
        assert!(world.running().count() > 20, "seed {seed}: the world should be busy");
    }
}
