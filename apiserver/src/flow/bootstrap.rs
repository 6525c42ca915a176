//! The priority levels and flow schemas that a new cluster starts with, as upstream's users know them.

use serde_json::{Value, json};

use super::upkeep::status;
use crate::pipeline::now;

const API: &str = "flowcontrol.apiserver.k8s.io/v1";

/// Name, shares, percent that may be lent, queues (none: whatever has no seat is refused) and queues per flow.
const LEVELS: [(&str, u32, u32, u32, u32); 7] = [
    ("catch-all", 5, 0, 0, 0),
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];

/// Every object.
pub(crate) fn objects() -> Vec<Value> {
    let mut objects: Vec<Value> = LEVELS.into_iter().map(level).collect();
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    objects.push(object("PriorityLevelConfiguration", "exempt", exempt));

    let everybody = || groups(&["system:unauthenticated", "system:authenticated"]);
    let nodes = || groups(&["system:nodes"]);
    let accounts =
        || json!([{"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}}]);
    let users = |names: &[&str]| -> Value {
        names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
    };
    let (manager, scheduler) = ("system:kube-controller-manager", "system:kube-scheduler");
    let mut electors = users(&[manager, scheduler]);
    if let (Some(list), Value::Array(more)) = (electors.as_array_mut(), accounts()) {
        list.extend(more);
    }
    let leases = |verbs: &[&str]| resources(verbs, "coordination.k8s.io", &["leases"], false);
    let probes = json!({"subjects": everybody(), "nonResourceRules": [paths(&["get"], &["/healthz", "/readyz", "/livez"])]});
    let election = json!({"subjects": electors, "resourceRules": [leases(&["get", "create", "update"])]});
    let node_high = json!({"subjects": nodes(), "resourceRules": [
        resources(&["*"], "", &["nodes", "nodes/status"], true), leases(&["*"])]});
    objects.extend([
        schema("exempt", "exempt", 1, "", everything(groups(&["system:masters"]))),
        schema("probes", "exempt", 2, "", probes),
        schema("system-leader-election", "leader-election", 100, "ByUser", election),
        schema("system-node-high", "node-high", 400, "ByUser", node_high),
        schema("system-nodes", "system", 500, "ByUser", everything(nodes())),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", everything(users(&[manager]))),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", everything(users(&[scheduler]))),
        schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", everything(accounts())),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            everything(groups(&["system:serviceaccounts"])),
        ),
        schema("global-default", "global-default", 9900, "ByUser", everything(everybody())),
        schema("catch-all", "catch-all", 10000, "ByUser", everything(everybody())),
    ]);
    objects
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let annotations = json!({"apf.kubernetes.io/autoupdate-spec": "true"});
    json!({"kind": kind, "apiVersion": API, "metadata": {"name": name, "annotations": annotations}, "spec": spec})
}

fn level((name, shares, lent, queues, hand): (&str, u32, u32, u32, u32)) -> Value {
    let response = match queues {
        0 => json!({"type": "Reject"}),
        _ => {
            json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}})
        }
    };
    let limited =
        json!({"nominalConcurrencyShares": shares, "lendablePercent": lent, "limitResponse": response});
    object("PriorityLevelConfiguration", name, json!({"type": "Limited", "limited": limited}))
}

fn schema(name: &str, level: &str, precedence: u32, flows: &str, rules: Value) -> Value {
    let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rules]});
    if !flows.is_empty() {
        crate::tree::set(&mut spec, &["distinguisherMethod", "type"], flows);
    }
    let mut schema = object("FlowSchema", name, spec);
    if let Some(status) = status(&schema, level, true, &now()) {
        crate::tree::set(&mut schema, &["status"], status);
    }
    schema
}

fn groups(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn resources(verbs: &[&str], group: &str, names: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": names, "namespaces": ["*"]});
    if cluster {
        crate::tree::set(&mut rule, &["clusterScope"], true);
    }
    rule
}

fn paths(verbs: &[&str], urls: &[&str]) -> Value {
    json!({"verbs": verbs, "nonResourceURLs": urls})
}

fn everything(subjects: Value) -> Value {
    json!({"subjects": subjects, "resourceRules": [resources(&["*"], "*", &["*"], true)], "nonResourceRules": [paths(&["*"], &["*"])]})
}
