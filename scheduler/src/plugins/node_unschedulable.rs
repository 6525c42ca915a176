//! NodeUnschedulable: cordoned nodes take only pods that tolerate it.

use k8s_openapi::api::core::v1::Taint;

use super::taints::tolerations_of;
use super::{Difference, Filter, Rejection};
use crate::events::Plugin;
use crate::model::{NodeInfo, PodInfo};

struct NodeUnschedulable {
    tolerated: bool,
}

pub(super) fn filter(pod: &PodInfo) -> Option<Box<dyn Filter + '_>> {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    let tolerated = tolerations_of(pod).tolerate(&taint);
    Some(Box::new(NodeUnschedulable { tolerated }))
}

impl Filter for NodeUnschedulable {
    fn check(&self, node: &NodeInfo, _: Difference<'_>) -> Result<(), Rejection> {
        if !node.is_unschedulable() || self.tolerated {
            return Ok(());
        }
        Err(Rejection::final_one(Plugin::NodeUnschedulable, "node(s) were unschedulable"))
    }
}
