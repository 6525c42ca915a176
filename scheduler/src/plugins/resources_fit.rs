//! NodeResourcesFit: what a pod requests has to be free on its node, and a node takes only so many pods.

use std::borrow::Cow;

use super::{Difference, Filter, Rejection};
use crate::events::Plugin;
use crate::model::{NodeInfo, PodInfo, Resources};

struct ResourcesFit<'a>(&'a Resources);

pub(super) fn filter<'a>(pod: &'a PodInfo) -> Option<Box<dyn Filter + 'a>> {
    Some(Box::new(ResourcesFit(&pod.requests)))
}

impl Filter for ResourcesFit<'_> {
    fn check(&self, node: &NodeInfo, _: Difference<'_>) -> Result<(), Rejection> {
        let mut reasons: Vec<Cow<'static, str>> = Vec::new();
        // Fewer pods help unless the node could not hold this one even alone.
        let mut resolvable = true;
        if node.pods.len() + 1 > node.allowed_pods {
            reasons.push("Too many pods".into());
            resolvable = node.allowed_pods > 0;
        }
        let mut judge = |reason: &str, wanted: i64, has: i64, used: i64| {
            if wanted > 0 && wanted > has - used {
                reasons.push(format!("Insufficient {reason}").into());
                resolvable &= wanted <= has;
            }
        };
        let (wanted, has, used) = (self.0, &node.allocatable, &node.requested);
        judge("cpu", wanted.cpu_milli, has.cpu_milli, used.cpu_milli);
        judge("memory", wanted.memory_bytes, has.memory_bytes, used.memory_bytes);
        judge(
            "ephemeral-storage",
            wanted.ephemeral_storage_bytes,
            has.ephemeral_storage_bytes,
            used.ephemeral_storage_bytes,
        );
        for (name, wanted) in &wanted.other {
            let amount = |resources: &Resources| resources.other.get(name).copied().unwrap_or(0);
            judge(name, *wanted, amount(has), amount(used));
        }
        if reasons.is_empty() {
            return Ok(());
        }
        Err(Rejection { plugin: Plugin::NodeResourcesFit, reasons, resolvable })
    }
}
