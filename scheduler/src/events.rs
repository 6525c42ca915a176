//! What can change the answer to "where can this pod go?", and who gives that answer.

use std::ops::{BitOr, BitOrAssign};

/// The filter plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // Upstream's names, which users know.
pub enum Plugin {
    NodeName,
    NodeUnschedulable,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    PodTopologySpread,
    InterPodAffinity,
}

/// A set of kinds of changes in the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterEvents(u16);

impl ClusterEvents {
    /// A node appeared.
    pub const NODE_ADDED: Self = Self(1);
    /// A node has more or less to give.
    pub const NODE_ALLOCATABLE: Self = Self(1 << 1);
    /// A node's labels changed.
    pub const NODE_LABELS: Self = Self(1 << 2);
    /// A node's taints changed, or it was cordoned or uncordoned.
    pub const NODE_TAINTS: Self = Self(1 << 3);
    /// Anything about a node itself.
    pub const ANY_OF_NODE: Self =
        Self(Self::NODE_ADDED.0 | Self::NODE_ALLOCATABLE.0 | Self::NODE_LABELS.0 | Self::NODE_TAINTS.0);
    /// A pod is on a node.
    pub const POD_PLACED: Self = Self(1 << 4);
    /// A pod left its node, or needs less there.
    pub const POD_GONE: Self = Self(1 << 5);
    /// The labels of a placed pod changed.
    pub const POD_LABELS: Self = Self(1 << 6);
    /// A namespace's labels changed.
    pub const NAMESPACE: Self = Self(1 << 7);
    /// Nothing happened.
    pub const NONE: Self = Self(0);

    /// Whether the sets share a member.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether nothing is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for ClusterEvents {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for ClusterEvents {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
