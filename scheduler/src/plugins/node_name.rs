//! NodeName: a pod that names its node goes there. (Such pods do not reach the scheduler as pending; the filter is for
//! completeness of a decision.)

use super::{Difference, Filter, Rejection};
use crate::events::Plugin;
use crate::model::{NodeInfo, PodInfo};

struct NodeName<'a>(&'a str);

pub(super) fn filter<'a>(pod: &'a PodInfo) -> Option<Box<dyn Filter + 'a>> {
    let name = pod.spec()?.node_name.as_deref().filter(|name| !name.is_empty())?;
    Some(Box::new(NodeName(name)))
}

impl Filter for NodeName<'_> {
    fn check(&self, node: &NodeInfo, _: Difference<'_>) -> Result<(), Rejection> {
        if &*node.name == self.0 {
            return Ok(());
        }
        Err(Rejection::final_one(Plugin::NodeName, "node(s) didn't match the requested node name"))
    }
}
