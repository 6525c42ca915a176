#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

//! Decisions, rule by rule, on clusters written as JSON.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use scheduler::events::Plugin;
use scheduler::model::{Cluster, PodInfo};
use scheduler::{Decision, Nomination, Unschedulable, decide};
use serde_json::{Value, json};

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

fn node(name: &str, more: Value) -> Arc<Node> {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
    });
    merge(&mut node, more);
    Arc::new(serde_json::from_value(node).unwrap())
}

fn pod(name: &str, more: Value) -> PodInfo {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "web:v1"}]},
    });
    merge(&mut pod, more);
    let pod: Pod = serde_json::from_value(pod).unwrap();
    PodInfo::new(Arc::new(pod))
}

fn requests(cpu: &str, memory: &str) -> Value {
    let requests = json!({"cpu": cpu, "memory": memory});
    json!({"spec": {"containers": [{"name": "c", "image": "web:v1", "resources": {"requests": requests}}]}})
}

fn cluster(nodes: impl IntoIterator<Item = Arc<Node>>) -> Cluster {
    let mut cluster = Cluster::default();
    nodes.into_iter().for_each(|node| cluster.set_node(node));
    cluster
}

fn place(cluster: &mut Cluster, pod: PodInfo, node: &str) {
    cluster.place(Arc::new(pod), node);
}

fn decision(cluster: &Cluster, pod: &PodInfo) -> Decision {
    decide(cluster, pod, &mut 0, &mut SmallRng::seed_from_u64(7))
}

fn assigned(cluster: &Cluster, pod: &PodInfo) -> String {
    match decision(cluster, pod) {
        Decision::Assign(node) => node.to_string(),
        Decision::Unschedulable(verdict) => panic!("{}", verdict.message),
    }
}

fn refused(cluster: &Cluster, pod: &PodInfo) -> Unschedulable {
    match decision(cluster, pod) {
        Decision::Assign(node) => panic!("went to {node}"),
        Decision::Unschedulable(verdict) => verdict,
    }
}

#[test]
fn a_pod_goes_where_its_requests_fit() {
    let mut cluster = cluster([node("n1", json!({})), node("n2", json!({}))]);
    place(&mut cluster, pod("big", requests("3", "1Gi")), "n1");
    assert_eq!(assigned(&cluster, &pod("p", requests("2", "1Gi"))), "n2");
    place(&mut cluster, pod("big2", requests("3500m", "1Gi")), "n2");
    let verdict = refused(&cluster, &pod("p", requests("2", "1Gi")));
    assert_eq!(
        verdict.message,
        "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: \
         2 No preemption victims found for incoming pod."
    );
    assert_eq!(verdict.rejected_by, [Plugin::NodeResourcesFit]);
    cluster.remove_pod("big2");
    assert_eq!(assigned(&cluster, &pod("p", requests("2", "1Gi"))), "n2");
}

#[test]
fn reasons_are_counted_and_sorted_as_users_know_them() {
    let taint = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    let cordoned = json!({"spec": {"unschedulable": true}});
    let small = json!({"status": {"allocatable": {"cpu": "1", "memory": "1Mi", "pods": "0"}}});
    let cluster =
        cluster([node("n1", taint), node("n2", cordoned), node("n3", small), node("n4", json!({}))]);
    let mut wanted = requests("2", "1Gi");
    merge(&mut wanted, json!({"spec": {"nodeSelector": {"disk": "ssd"}}}));
    let verdict = refused(&cluster, &pod("p", wanted));
    assert_eq!(
        verdict.message,
        "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, \
         2 node(s) didn't match Pod's node affinity/selector. preemption: 0/4 nodes are available: \
         4 Preemption is not helpful for scheduling."
    );
    let none = refused(&Cluster::default(), &pod("p", json!({})));
    assert_eq!(none.message, "no nodes available to schedule pods");
    assert_eq!(none.rejected_by, [Plugin::NodeName]);
}

#[test]
fn selectors_affinity_and_taints_choose_nodes() {
    let cluster = cluster([
        node("n1", json!({"metadata": {"labels": {"disk": "ssd"}}})),
        node("n2", json!({"spec": {"taints": [{"key": "gpu", "value": "a", "effect": "NoSchedule"}]}})),
        node("n3", json!({"spec": {"taints": [{"key": "soft", "effect": "PreferNoSchedule"}]}})),
        node("n4", json!({})),
    ]);
    assert_eq!(assigned(&cluster, &pod("p", json!({"spec": {"nodeSelector": {"disk": "ssd"}}}))), "n1");
    let on = |name: &str| {
        let fields = json!([{"key": "metadata.name", "operator": "In", "values": [name]}]);
        let required = json!({"nodeSelectorTerms": [{"matchFields": fields}]});
        json!({"spec": {"affinity": {"nodeAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": required}}}})
    };
    let mut tolerant = on("n2");
    assert!(
        refused(&cluster, &pod("p", tolerant.clone())).message.contains("1 node(s) had untolerated taint(s)")
    );
    merge(&mut tolerant, json!({"spec": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}}));
    assert_eq!(assigned(&cluster, &pod("p", tolerant)), "n2");
    assert_eq!(assigned(&cluster, &pod("p", on("n3"))), "n3");
    let preference = json!({"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]});
    let preferred = json!([{"weight": 100, "preference": preference}]);
    let wish = json!({"spec": {"affinity": {"nodeAffinity":
        {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}}});
    assert_eq!(assigned(&cluster, &pod("p", wish)), "n4");
}

#[test]
fn a_host_port_is_taken_once_per_node_protocol_and_address() {
    let mut cluster = cluster([node("n1", json!({}))]);
    let with_port = |port: Value| json!({"spec": {"containers": [{"name": "c", "ports": [port]}]}});
    let first = json!({"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.1"});
    place(&mut cluster, pod("a", with_port(first)), "n1");
    for (port, fits) in [
        (json!({"containerPort": 80, "hostPort": 80}), false),
        (json!({"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.1"}), false),
        (json!({"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.2"}), true),
        (json!({"containerPort": 80, "hostPort": 80, "protocol": "UDP"}), true),
        (json!({"containerPort": 80, "hostPort": 81}), true),
        (json!({"containerPort": 80}), true),
    ] {
        let decision = decision(&cluster, &pod("b", with_port(port.clone())));
        assert_eq!(matches!(decision, Decision::Assign(_)), fits, "{port}");
    }
}

#[test]
fn pods_keep_away_from_and_near_to_others() {
    let zone = |zone: &str| json!({"metadata": {"labels": {"zone": zone}}});
    let mut cluster = cluster([node("n1", zone("a")), node("n2", zone("a")), node("n3", zone("b"))]);
    let term = |key: &str| json!([{"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": key}]);
    let rule = |kind: &str, key: &str| json!({"spec": {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term(key)}}}});
    let db = json!({"metadata": {"labels": {"app": "db"}}});
    let mut first = rule("podAntiAffinity", "zone");
    // Nothing to be near to yet: a series that wants to be together starts anywhere.
    assert_eq!(assigned(&cluster, &pod("near", rule("podAffinity", "zone"))).len(), 2);
    place(&mut cluster, pod("first", first.clone()), "n1");
    // Both directions: the newcomer's rule, and the rule of the pod that is there.
    assert_eq!(assigned(&cluster, &pod("second", first.clone())), "n3");
    assert_eq!(assigned(&cluster, &pod("plain", json!({}))), "n3");
    merge(&mut first, db.clone());
    assert_eq!(assigned(&cluster, &pod("db", first)), "n3");
    assert_ne!(
        assigned(
            &cluster,
            &pod("near", {
                let mut near = rule("podAffinity", "zone");
                merge(&mut near, db);
                near
            })
        ),
        "n3"
    );
    place(&mut cluster, pod("third", json!({})), "n3");
    let verdict = refused(&cluster, &pod("fourth", rule("podAntiAffinity", "zone")));
    assert!(
        verdict
            .message
            .starts_with("0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.")
    );
    let verdict = refused(&cluster, &pod("lost", rule("podAffinity", "rack")));
    assert!(
        verdict.message.starts_with("0/3 nodes are available: 3 node(s) didn't match pod affinity rules.")
    );
}

#[test]
fn topology_spread_keeps_the_skew() {
    let zone = |zone: &str| json!({"metadata": {"labels": {"zone": zone}}});
    let mut cluster = cluster([node("n1", zone("a")), node("n2", zone("b")), node("n3", json!({}))]);
    let spread = json!({"spec": {"topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }]}});
    let mut counts = [0_i32, 0];
    for n in 0..10 {
        let name = format!("p{n}");
        let target = assigned(&cluster, &pod(&name, spread.clone()));
        counts[usize::from(target == "n2")] += 1;
        assert!(counts[0].abs_diff(counts[1]) <= 1, "{counts:?}");
        assert_ne!(target, "n3");
        place(&mut cluster, pod(&name, spread.clone()), &target);
    }
    cluster.set_node(node(
        "n2",
        json!({"metadata": {"labels": {"zone": "b"}}, "spec": {"unschedulable": true}}),
    ));
    place(&mut cluster, pod("extra", spread.clone()), "n1");
    let verdict = refused(&cluster, &pod("p", spread));
    assert!(
        verdict.message.starts_with(
            "0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints, \
             1 node(s) didn't match pod topology spread constraints (missing required label), \
             1 node(s) were unschedulable."
        ),
        "{}",
        verdict.message
    );
}

#[test]
fn replicas_of_one_controller_spread_over_nodes_by_themselves() {
    let mut cluster = cluster((0..5).map(|n| node(&format!("n{n}"), json!({}))));
    let owner = json!({"metadata": {"ownerReferences": [{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": true,
    }]}});
    for n in 0..10 {
        let name = format!("p{n}");
        let target = assigned(&cluster, &pod(&name, owner.clone()));
        place(&mut cluster, pod(&name, owner.clone()), &target);
    }
    assert!(cluster.nodes().all(|node| node.pods.len() == 2));
}

#[test]
fn a_more_important_pod_evicts_the_fewest_least_important_ones() {
    let mut cluster = cluster([node("n1", json!({})), node("n2", json!({}))]);
    let with = |cpu: &str, priority: i32| {
        let mut more = requests(cpu, "1Gi");
        merge(&mut more, json!({"spec": {"priority": priority}}));
        more
    };
    for (name, cpu, priority, node) in [
        ("a", "3", 10, "n1"),
        ("b", "1", 0, "n1"),
        ("c", "2", 5, "n2"),
        ("d", "1", 5, "n2"),
        ("e", "1", 5, "n2"),
    ] {
        place(&mut cluster, pod(name, with(cpu, priority)), node);
    }
    let verdict = refused(&cluster, &pod("vip", with("1", 100)));
    let Nomination::New(preemption) = verdict.nomination else { panic!("{}", verdict.message) };
    assert_eq!(&*preemption.node, "n1");
    assert_eq!(preemption.victims.iter().map(|victim| victim.uid.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(verdict.message, "0/2 nodes are available: 2 Insufficient cpu.");
    // While room is being made, nobody less important takes it.
    cluster.nominate(Arc::new(pod("vip", with("1", 100))), "n1");
    cluster.remove_pod("b");
    assert!(refused(&cluster, &pod("late", with("1", 0))).message.contains("2 Insufficient cpu"));
    assert_eq!(assigned(&cluster, &pod("vip", with("1", 100))), "n1");
    let mut never = with("2", 100);
    merge(&mut never, json!({"spec": {"preemptionPolicy": "Never"}}));
    let verdict = refused(&cluster, &pod("shy", never));
    assert!(matches!(verdict.nomination, Nomination::None));
    assert!(verdict.message.ends_with("preemption: not eligible due to preemptionPolicy=Never."));
}

#[test]
fn emptier_nodes_and_nodes_with_the_image_are_preferred() {
    let mut cluster = cluster([node("n1", json!({})), node("n2", json!({}))]);
    place(&mut cluster, pod("busy", requests("2", "4Gi")), "n1");
    assert_eq!(assigned(&cluster, &pod("p", requests("1", "1Gi"))), "n2");
    let image = json!({"status": {"images": [{"names": ["registry/web:v1"], "sizeBytes": 900_000_000}]}});
    let cluster = self::cluster([node("n1", json!({})), node("n2", image), node("n3", json!({}))]);
    let wanted = json!({"spec": {"containers": [{"name": "c", "image": "registry/web:v1"}]}});
    assert_eq!(assigned(&cluster, &pod("p", wanted)), "n2");
}

/// Thousands of pods on a thousand nodes: no node is ever overfilled, everything that fits is placed, and fast.
#[test]
fn a_large_cluster_fills_without_ever_overfilling_a_node() {
    let mut cluster = cluster((0..1000).map(|n| {
        let zone = format!("z{}", n % 3);
        node(&format!("n{n}"), json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}))
    }));
    let mut rng = SmallRng::seed_from_u64(42);
    let mut start = 0;
    let began = std::time::Instant::now();
    for n in 0..3000 {
        let cpu = ["250m", "500m", "1"][n % 3];
        let pod = pod(&format!("p{n}"), requests(cpu, "256Mi"));
        match decide(&cluster, &pod, &mut start, &mut rng) {
            Decision::Assign(node) => cluster.place(Arc::new(pod), &node),
            Decision::Unschedulable(verdict) => panic!("{}", verdict.message),
        }
    }
    let per_pod = began.elapsed() / 3000;
    println!("{per_pod:?} per decision");
    assert_eq!(cluster.nodes().map(|node| node.pods.len()).sum::<usize>(), 3000);
    assert!(cluster.nodes().all(|node| node.requested.cpu_milli <= node.allocatable.cpu_milli));
    assert!(per_pod < std::time::Duration::from_millis(20), "{per_pod:?}");
}
