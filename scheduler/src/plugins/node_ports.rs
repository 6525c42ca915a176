//! NodePorts: two pods cannot take the same port of a node.

use super::{Difference, Filter, Rejection};
use crate::events::Plugin;
use crate::model::{HostPort, NodeInfo, PodInfo};

struct NodePorts<'a>(&'a [HostPort]);

pub(super) fn filter<'a>(pod: &'a PodInfo) -> Option<Box<dyn Filter + 'a>> {
    (!pod.host_ports.is_empty()).then(|| Box::new(NodePorts(&pod.host_ports)) as Box<dyn Filter>)
}

impl Filter for NodePorts<'_> {
    fn check(&self, node: &NodeInfo, _: Difference<'_>) -> Result<(), Rejection> {
        let mut taken = node.pods.iter().flat_map(|pod| &pod.host_ports);
        if taken.any(|taken| self.0.iter().any(|wanted| wanted.conflicts_with(taken))) {
            return Err(Rejection::resolvable(
                Plugin::NodePorts,
                "node(s) didn't have free ports for the requested pod ports",
            ));
        }
        Ok(())
    }
}
