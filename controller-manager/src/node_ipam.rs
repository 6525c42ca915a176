//! Gives every node a range of pod addresses out of the cluster's range.
//!
//! Guarantees: two nodes never get overlapping ranges, and none overlaps the service range. One worker allocates, and it
//! remembers what it gave before its cache shows it. Not yet: dual-stack nodes with one range of each family.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use client::{Change, EventType, Outcome, queue};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;
use tracing::info;

use crate::common::{Context, ReconcileError, Reconciled};

/// A range of addresses. IPv4 addresses are kept as numbers of 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u128,
    prefix: u8,
    bits: u8,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.trim().split_once('/')?;
        let prefix: u8 = prefix.parse().ok()?;
        let (value, bits) = match address.parse().ok()? {
            IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
            IpAddr::V6(address) => (u128::from(address), 128),
        };
        if prefix > bits {
            return None;
        }
        let size = Self { first: 0, prefix, bits }.size_minus_one();
        Some(Self { first: value & !size, prefix, bits })
    }

    fn size_minus_one(self) -> u128 {
        match self.bits - self.prefix {
            128 => u128::MAX,
            host_bits => (1u128 << host_bits) - 1,
        }
    }

    fn last(self) -> u128 {
        self.first + self.size_minus_one()
    }

    fn overlaps(self, other: Self) -> bool {
        self.bits == other.bits && self.first <= other.last() && other.first <= self.last()
    }

    /// The lowest range of `prefix` bits inside this one that overlaps none of `taken`.
    fn lowest_free(self, prefix: u8, taken: &[Self]) -> Option<Self> {
        if prefix < self.prefix || prefix > self.bits {
            return None;
        }
        let mut candidate = Self { first: self.first, prefix, bits: self.bits };
        loop {
            if candidate.first > self.last() || candidate.last() > self.last() {
                return None;
            }
            // Jump behind the obstacle instead of trying every range in it.
            match taken.iter().find(|range| range.overlaps(candidate)) {
                None => return Some(candidate),
                Some(obstacle) => {
                    let behind = obstacle.last().max(candidate.last()).checked_add(1)?;
                    let step = candidate.size_minus_one();
                    candidate.first = behind.checked_add(step)? & !step;
                }
            }
        }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = match u32::try_from(self.first) {
            Ok(value) if self.bits == 32 => IpAddr::V4(Ipv4Addr::from(value)),
            _ => IpAddr::V6(Ipv6Addr::from(self.first)),
        };
        write!(formatter, "{address}/{}", self.prefix)
    }
}

/// What the ranges are cut from.
#[derive(Clone, Copy)]
struct Pool {
    cluster: Range,
    service: Option<Range>,
    prefix: u8,
}

/// Runs the controller until shutdown; does nothing without a cluster range.
pub(crate) async fn run(context: Context) {
    let config = &context.config;
    let Some(cluster) = config.cluster_cidr.as_deref().and_then(Range::parse) else { return };
    let service = config.service_cidr.as_deref().and_then(Range::parse);
    let pool = Pool { cluster, service, prefix: config.node_cidr_mask_size };
    let nodes = context.all::<Node>();
    let queue = context.queue("node-ipam");
    if !nodes.synced().await {
        return;
    }
    let given: Arc<Mutex<HashMap<String, Range>>> = Arc::default();
    let (enqueue, forget) = (queue.clone(), given.clone());
    nodes.on_change(move |change| match change {
        Change::Deleted(node) => {
            forget.lock().remove(&node.name_any());
        }
        change => enqueue.add(change.object().name_any()),
    });
    let recorder = context.recorder("node-ipam-controller");
    queue::run(queue, 1, move |name: String| {
        let (context, nodes, given, recorder) =
            (context.clone(), nodes.clone(), given.clone(), recorder.clone());
        async move {
            let Some(node) = nodes.get("", &name) else { return Ok(Outcome::Done) };
            let reserved = given.lock().clone();
            match decide(&node, &nodes.list(), &reserved, pool) {
                Decision::HasOne => Ok(Outcome::Done),
                Decision::Full => {
                    let message = "Node has no pod range: the cluster's range is used up";
                    recorder.record(node.as_ref(), EventType::Warning, "CIDRNotAvailable", message);
                    Err(ReconcileError::Unusable(format!("no range left for node {name}")))
                }
                Decision::Assign(range) => {
                    given.lock().insert(name.clone(), range);
                    assign(&context, &name, range).await
                }
            }
        }
    })
    .await;
}

#[derive(Debug, PartialEq)]
enum Decision {
    HasOne,
    Assign(Range),
    Full,
}

fn range_of(node: &Node) -> Option<Range> {
    node.spec.as_ref()?.pod_cidr.as_deref().and_then(Range::parse)
}

fn decide(node: &Node, nodes: &[Arc<Node>], given: &HashMap<String, Range>, pool: Pool) -> Decision {
    if range_of(node).is_some() {
        return Decision::HasOne;
    }
    if let Some(range) = given.get(&node.name_any()) {
        return Decision::Assign(*range);
    }
    let mut taken: Vec<Range> = nodes.iter().filter_map(|other| range_of(other)).collect();
    taken.extend(given.values().copied());
    taken.extend(pool.service);
    pool.cluster.lowest_free(pool.prefix, &taken).map_or(Decision::Full, Decision::Assign)
}

async fn assign(context: &Context, name: &str, range: Range) -> Reconciled {
    let text = range.to_string();
    let patch = json!({ "spec": { "podCIDR": text, "podCIDRs": [text] } });
    let api = context.cluster_api::<Node>();
    api.patch(name, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
    info!(node = name, range = %text, "gave a node its pod range");
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, range: Option<&str>) -> Arc<Node> {
        let mut node = Node::default();
        node.metadata.name = Some(name.into());
        node.spec.get_or_insert_default().pod_cidr = range.map(Into::into);
        Arc::new(node)
    }

    fn pool(cluster: &str, service: Option<&str>) -> Pool {
        Pool { cluster: Range::parse(cluster).unwrap(), service: service.and_then(Range::parse), prefix: 24 }
    }

    fn assigned(decision: Decision) -> String {
        match decision {
            Decision::Assign(range) => range.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nodes_get_the_lowest_free_range_also_before_the_cache_shows_earlier_ones() {
        let nodes = [node("a", Some("10.244.0.0/24")), node("c", Some("10.244.2.0/24"))];
        let pool = pool("10.244.0.0/16", None);
        let first = assigned(decide(&node("b", None), &nodes, &HashMap::new(), pool));
        assert_eq!(first, "10.244.1.0/24");
        let given = HashMap::from([("b".to_string(), Range::parse(&first).unwrap())]);
        assert_eq!(assigned(decide(&node("d", None), &nodes, &given, pool)), "10.244.3.0/24");
        assert_eq!(assigned(decide(&node("b", None), &nodes, &given, pool)), "10.244.1.0/24");
    }

    #[test]
    fn the_service_range_is_spared_and_a_full_pool_says_so() {
        let decision =
            decide(&node("a", None), &[], &HashMap::new(), pool("10.0.0.0/23", Some("10.0.0.0/25")));
        assert_eq!(assigned(decision), "10.0.1.0/24");
        let nodes = [node("a", Some("10.0.0.0/24"))];
        let full = decide(&node("b", None), &nodes, &HashMap::new(), pool("10.0.0.0/24", None));
        assert_eq!(full, Decision::Full);
    }

    #[test]
    fn ranges_of_version_six_work_too() {
        let cluster = Range::parse("fd00:10:244::/56").unwrap();
        let taken = [Range::parse("fd00:10:244::/64").unwrap()];
        assert_eq!(cluster.lowest_free(64, &taken).unwrap().to_string(), "fd00:10:244:1::/64");
    }
}
