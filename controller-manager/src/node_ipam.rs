//! Gives every node a range of pod addresses out of the cluster's range, or one of each family.
//!
//! Guarantees: two nodes never get overlapping ranges, and none overlaps the service range. One worker allocates, and it
//! remembers what it gave before its cache shows it.

use std::collections::HashMap;
use std::sync::Arc;

use api::net::AddressRange;
use client::{Change, EventType, Outcome, queue};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;
use tracing::info;

use crate::Config;
use crate::common::{Context, ReconcileError, Reconciled};

/// How long the prefix of a node's IPv6 range is.
const PREFIX_IPV6: u8 = 64;

/// What the ranges are cut from.
struct Pool {
    /// The range and the length of a node's prefix; one of each family.
    cluster: Vec<(AddressRange, u8)>,
    service: Vec<AddressRange>,
}

impl Pool {
    /// `None` when there is nothing to give.
    fn of(config: &Config) -> Option<Self> {
        let ranges = |text: &Option<String>| -> Vec<AddressRange> {
            text.iter().flat_map(|text| text.split(',')).filter_map(AddressRange::parse).collect()
        };
        let prefix = |range: &AddressRange| {
            if range.family() == "IPv4" { config.node_cidr_mask_size } else { PREFIX_IPV6 }
        };
        let cluster: Vec<_> =
            ranges(&config.cluster_cidr).into_iter().map(|range| (range, prefix(&range))).collect();
        (!cluster.is_empty()).then(|| Self { cluster, service: ranges(&config.service_cidr) })
    }
}

/// The lowest range of a prefix length inside of `pool` that overlaps none of `taken`.
fn lowest_free(pool: AddressRange, prefix: u8, taken: &[AddressRange]) -> Option<AddressRange> {
    let mut candidate = AddressRange::around(pool.nth(0), prefix).filter(|first| pool.contains(*first))?;
    // Jump behind an obstacle instead of trying every range in it.
    while let Some(obstacle) = taken.iter().find(|range| range.overlaps(candidate)) {
        let last = |range: &AddressRange| pool.offset(range.nth(range.offset_max()));
        let behind = last(obstacle)?.max(last(&candidate)?).checked_add(1)?;
        if behind > pool.offset_max() {
            return None;
        }
        candidate = AddressRange::around(pool.nth(behind), prefix)?;
    }
    Some(candidate)
}

/// Runs the controller until shutdown; does nothing without a cluster range.
pub(crate) async fn run(context: Context) {
    let Some(pool) = Pool::of(&context.config).map(Arc::new) else { return };
    let nodes = context.all::<Node>();
    let queue = context.queue("node-ipam");
    if !nodes.synced().await {
        return;
    }
    let given: Arc<Mutex<HashMap<String, Vec<AddressRange>>>> = Arc::default();
    let (enqueue, forget) = (queue.clone(), given.clone());
    nodes.on_change(move |change| match change {
        Change::Deleted(node) => {
            forget.lock().remove(&node.name_any());
        }
        change => enqueue.add(change.object().name_any()),
    });
    let recorder = context.recorder("node-ipam-controller");
    queue::run(queue, 1, move |name: String| {
        let (context, nodes, given, recorder, pool) =
            (context.clone(), nodes.clone(), given.clone(), recorder.clone(), pool.clone());
        async move {
            let Some(node) = nodes.get("", &name) else { return Ok(Outcome::Done) };
            let reserved = given.lock().clone();
            match decide(&node, &nodes.list(), &reserved, &pool) {
                Decision::HasSome => Ok(Outcome::Done),
                Decision::Full => {
                    let message = "Node has no pod range: the cluster's range is used up";
                    recorder.record(node.as_ref(), EventType::Warning, "CIDRNotAvailable", message);
                    Err(ReconcileError::Unusable(format!("no range left for node {name}")))
                }
                Decision::Assign(ranges) => {
                    given.lock().insert(name.clone(), ranges.clone());
                    assign(&context, &name, &ranges).await
                }
            }
        }
    })
    .await;
}

#[derive(Debug, PartialEq)]
enum Decision {
    HasSome,
    Assign(Vec<AddressRange>),
    Full,
}

fn ranges_of(node: &Node) -> Vec<AddressRange> {
    let spec = node.spec.iter();
    let texts = spec.flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr));
    texts.filter_map(|text| AddressRange::parse(text)).collect()
}

fn decide(
    node: &Node,
    nodes: &[Arc<Node>],
    given: &HashMap<String, Vec<AddressRange>>,
    pool: &Pool,
) -> Decision {
    // They cannot change: a node of a cluster that has got a second family meanwhile keeps its one.
    if !ranges_of(node).is_empty() {
        return Decision::HasSome;
    }
    if let Some(ranges) = given.get(&node.name_any()) {
        return Decision::Assign(ranges.clone());
    }
    let mut taken: Vec<AddressRange> = nodes.iter().flat_map(|other| ranges_of(other)).collect();
    taken.extend(given.values().flatten());
    taken.extend(&pool.service);
    let free: Option<Vec<AddressRange>> =
        pool.cluster.iter().map(|(range, prefix)| lowest_free(*range, *prefix, &taken)).collect();
    free.map_or(Decision::Full, Decision::Assign)
}

async fn assign(context: &Context, name: &str, ranges: &[AddressRange]) -> Reconciled {
    let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    let patch = json!({ "spec": { "podCIDR": texts.first(), "podCIDRs": texts } });
    let api = context.cluster_api::<Node>();
    api.patch(name, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
    info!(node = name, ranges = ?texts, "gave a node its pod ranges");
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ranges: &[&str]) -> Arc<Node> {
        let mut node = Node::default();
        node.metadata.name = Some(name.into());
        let spec = node.spec.get_or_insert_default();
        spec.pod_cidr = ranges.first().map(|range| (*range).into());
        spec.pod_cidrs = Some(ranges.iter().map(|range| (*range).into()).collect());
        Arc::new(node)
    }

    fn pool(cluster: &str, service: Option<&str>) -> Pool {
        let (cluster_cidr, service_cidr) = (Some(cluster.into()), service.map(Into::into));
        Pool::of(&Config { cluster_cidr, service_cidr, ..Config::default() }).unwrap()
    }

    fn assigned(decision: Decision) -> String {
        match decision {
            Decision::Assign(ranges) => ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            other => panic!("{other:?}"),
        }
    }

    fn range(text: &str) -> AddressRange {
        AddressRange::parse(text).unwrap()
    }

    #[test]
    fn nodes_get_the_lowest_free_range_also_before_the_cache_shows_earlier_ones() {
        let nodes = [node("a", &["10.244.0.0/24"]), node("c", &["10.244.2.0/24"])];
        let pool = pool("10.244.0.0/16", None);
        let first = assigned(decide(&node("b", &[]), &nodes, &HashMap::new(), &pool));
        assert_eq!(first, "10.244.1.0/24");
        let given = HashMap::from([("b".to_string(), vec![range(&first)])]);
        assert_eq!(assigned(decide(&node("d", &[]), &nodes, &given, &pool)), "10.244.3.0/24");
        assert_eq!(assigned(decide(&node("b", &[]), &nodes, &given, &pool)), "10.244.1.0/24");
    }

    #[test]
    fn the_service_range_is_spared_and_a_full_pool_says_so() {
        let decision =
            decide(&node("a", &[]), &[], &HashMap::new(), &pool("10.0.0.0/23", Some("10.0.0.0/25")));
        assert_eq!(assigned(decision), "10.0.1.0/24");
        let nodes = [node("a", &["10.0.0.0/24"])];
        let full = decide(&node("b", &[]), &nodes, &HashMap::new(), &pool("10.0.0.0/24", None));
        assert_eq!(full, Decision::Full);
        let full = decide(&node("b", &[]), &[], &HashMap::new(), &pool("10.0.0.0/24", Some("10.0.0.0/8")));
        assert_eq!(full, Decision::Full);
    }

    #[test]
    fn nodes_of_a_dual_stack_cluster_get_a_range_of_each_family() {
        let pool = pool("10.244.0.0/16,fd00:10:244::/56", Some("10.96.0.0/16,fd00:10:244::/112"));
        let nodes = [node("a", &["10.244.0.0/24", "fd00:10:244:1::/64"])];
        let given = decide(&node("b", &[]), &nodes, &HashMap::new(), &pool);
        assert_eq!(assigned(given), "10.244.1.0/24,fd00:10:244:2::/64");
        let single = decide(&node("c", &["10.244.7.0/24"]), &nodes, &HashMap::new(), &pool);
        assert_eq!(single, Decision::HasSome);
    }
}
