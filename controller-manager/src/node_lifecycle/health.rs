//! Signs of life, and the conditions and taints that follow from them. Pure.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const WATCHED_CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The taints whose presence we decide: key and effect.
const OURS: [(&str, &str); 9] = [
    (NOT_READY, "NoSchedule"),
    (NOT_READY, "NoExecute"),
    (UNREACHABLE, "NoSchedule"),
    (UNREACHABLE, "NoExecute"),
    (UNSCHEDULABLE, "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/network-unavailable", "NoSchedule"),
];

/// What moves as long as a node lives.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sign {
    lease: Option<MicroTime>,
    heartbeat: Option<Time>,
    ready: String,
}

impl Sign {
    pub fn of(node: &Node, lease: Option<&Lease>) -> Self {
        let ready = find(node, "Ready");
        Self {
            lease: lease.and_then(|lease| lease.spec.as_ref()).and_then(|spec| spec.renew_time.clone()),
            heartbeat: ready.and_then(|ready| ready.last_heartbeat_time.clone()),
            ready: ready.map(|ready| ready.status.clone()).unwrap_or_default(),
        }
    }
}

/// When a node's signs last moved, on our clock.
#[derive(Clone, Debug)]
pub(super) struct Health {
    sign: Sign,
    pub seen_at: Timestamp,
}

impl Health {
    pub fn new(sign: Sign, now: Timestamp) -> Self {
        Self { sign, seen_at: now }
    }

    pub fn observe(&mut self, sign: Sign, now: Timestamp) {
        // Our own verdict "Unknown" is no sign of life.
        let moved = sign.lease != self.sign.lease
            || (sign != self.sign && sign.ready != "Unknown" && sign.heartbeat != self.sign.heartbeat);
        if moved {
            self.seen_at = now;
        }
        self.sign = sign;
    }
}

fn find<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// `True`, `False` or `Unknown`. A node that never reported counts as `False`.
pub(super) fn ready_status(node: &Node) -> &str {
    find(node, "Ready").map_or("False", |ready| ready.status.as_str())
}

/// Sets the conditions of a silent node to Unknown. Returns whether that changed anything.
pub(super) fn make_unknown(node: &mut Node, now: Timestamp) -> bool {
    let created = node.metadata.creation_timestamp.clone();
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    let mut changed = false;
    for type_ in WATCHED_CONDITIONS {
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(Time(now));
                changed = true;
            }
            None => {
                conditions.push(NodeCondition {
                    type_: type_.into(),
                    status: "Unknown".into(),
                    reason: Some("NodeStatusNeverUpdated".into()),
                    message: Some("Kubelet never posted node status.".into()),
                    last_heartbeat_time: created.clone(),
                    last_transition_time: Some(Time(now)),
                });
                changed = true;
            }
        }
    }
    changed
}

/// Brings the taints that follow from conditions up to date. Taints that evict are added only while some node is ready.
/// Returns whether anything changed.
pub(super) fn set_taints(node: &mut Node, may_evict: bool, now: Timestamp) -> bool {
    let wanted = wanted_taints(node);
    let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
    let before = taints.len();
    let is_ours = |taint: &Taint| OURS.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let wants = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    taints.retain(|taint| !is_ours(taint) || wants(taint));
    let mut changed = taints.len() != before;
    for (key, effect) in wanted {
        let present = taints.iter().any(|taint| taint.key == key && taint.effect == effect);
        if present || (effect == "NoExecute" && !may_evict) {
            continue;
        }
        taints.push(Taint {
            key: key.into(),
            effect: effect.into(),
            time_added: (effect == "NoExecute").then_some(Time(now)),
            value: None,
        });
        changed = true;
    }
    if let Some(spec) = &mut node.spec {
        spec.taints = spec.taints.take().filter(|taints| !taints.is_empty());
    }
    changed
}

fn wanted_taints(node: &Node) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    match ready_status(node) {
        "True" => {}
        "Unknown" => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        _ => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    for (condition, key) in [
        ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
        ("DiskPressure", "node.kubernetes.io/disk-pressure"),
        ("PIDPressure", "node.kubernetes.io/pid-pressure"),
        ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
    ] {
        if find(node, condition).is_some_and(|condition| condition.status == "True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn node(ready: &str) -> Node {
        let mut node = Node::default();
        node.status.get_or_insert_default().conditions = Some(vec![NodeCondition {
            type_: "Ready".into(),
            status: ready.into(),
            ..NodeCondition::default()
        }]);
        node
    }

    fn taints(node: &Node) -> Vec<String> {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        taints.map(|taint| format!("{}:{}", taint.key.rsplit('/').next().unwrap(), taint.effect)).collect()
    }

    #[test]
    fn taints_follow_conditions_and_leave_others_alone() {
        let mut node = node("Unknown");
        let theirs = Taint { key: "dedicated".into(), effect: "NoSchedule".into(), ..Taint::default() };
        node.spec.get_or_insert_default().taints = Some(vec![theirs]);
        assert!(set_taints(&mut node, true, at(0)));
        assert_eq!(
            taints(&node),
            ["dedicated:NoSchedule", "unreachable:NoSchedule", "unreachable:NoExecute"]
        );
        assert!(!set_taints(&mut node, true, at(1)));
        node.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "True".into();
        node.spec.as_mut().unwrap().unschedulable = Some(true);
        assert!(set_taints(&mut node, true, at(2)));
        assert_eq!(taints(&node), ["dedicated:NoSchedule", "unschedulable:NoSchedule"]);
    }

    #[test]
    fn nothing_is_evicted_while_no_node_is_ready() {
        let mut node = node("False");
        set_taints(&mut node, false, at(0));
        assert_eq!(taints(&node), ["not-ready:NoSchedule"]);
    }

    #[test]
    fn only_signs_from_the_node_itself_count() {
        let lease = |second: i64| {
            let mut lease = Lease::default();
            lease.spec.get_or_insert_default().renew_time = Some(MicroTime(at(second)));
            lease
        };
        let mut health = Health::new(Sign::of(&node("True"), Some(&lease(1))), at(100));
        health.observe(Sign::of(&node("True"), Some(&lease(2))), at(110));
        assert_eq!(health.seen_at, at(110));
        let mut silent = node("True");
        assert!(make_unknown(&mut silent, at(150)));
        health.observe(Sign::of(&silent, Some(&lease(2))), at(160));
        assert_eq!(health.seen_at, at(110));
        assert_eq!(ready_status(&silent), "Unknown");
    }
}
