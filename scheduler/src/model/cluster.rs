//! All nodes and the pods on them, kept up to date change by change.
//!
//! A pod is on at most one node. A decided pod is put on its node at once ("assumed"), so that the next decision counts
//! it before the API server has heard of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::node::NodeInfo;
use super::pod::PodInfo;
use super::selector::Labels;

/// The labels of namespaces.
pub type Namespaces = BTreeMap<String, Labels>;

/// The state that decisions are made on.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: Vec<NodeInfo>,
    positions: HashMap<Arc<str>, usize>,
    /// On which node a pod is, by the pod's UID.
    placements: HashMap<String, Arc<str>>,
    /// On how many nodes an image is.
    image_nodes: HashMap<String, usize>,
    /// Pods that a preemption makes room for, by node.
    nominated: HashMap<String, Vec<Arc<PodInfo>>>,
    /// The labels of namespaces, for rules that select namespaces.
    pub namespaces: Namespaces,
    /// What limits the choice of victims.
    pub disruption_budgets: Vec<Arc<PodDisruptionBudget>>,
}

impl Cluster {
    /// All nodes that exist.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.iter().filter(|node| node.object.is_some())
    }

    /// One node, if it exists.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.positions
            .get(name)
            .and_then(|position| self.nodes.get(*position))
            .filter(|node| node.object.is_some())
    }

    /// Adds a node or takes over its new version.
    pub fn set_node(&mut self, object: Arc<Node>) {
        let name = object.metadata.name.clone().unwrap_or_default();
        self.change_node_object(&name, Some(object));
    }

    /// Forgets a node; pods that are still on it stay known.
    pub fn remove_node(&mut self, name: &str) {
        self.change_node_object(name, None);
        self.drop_if_empty(name);
    }

    /// Puts a pod on a node, or takes over its new version there.
    pub fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(&pod.uid);
        self.unnominate(&pod.uid);
        let info = self.node_mut(node);
        let name = Arc::clone(&info.name);
        self.placements.insert(pod.uid.clone(), name);
        self.node_mut(node).add_pod(pod);
    }

    /// Takes a pod off its node. Returns the node's name if it was on one.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<str>> {
        let name = self.placements.remove(uid)?;
        self.node_mut(&name).remove_pod(uid);
        self.drop_if_empty(&name);
        Some(name)
    }

    /// The node that a pod is on.
    pub fn placement(&self, uid: &str) -> Option<&Arc<str>> {
        self.placements.get(uid)
    }

    /// Notes that room is being made for a pod.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.unnominate(&pod.uid);
        self.nominated.entry(node.to_owned()).or_default().push(pod);
    }

    /// Takes the note back.
    pub fn unnominate(&mut self, uid: &str) {
        self.nominated.retain(|_, pods| {
            pods.retain(|pod| pod.uid != uid);
            !pods.is_empty()
        });
    }

    /// The pods that room is being made for on a node.
    pub(crate) fn nominated(&self, node: &str) -> &[Arc<PodInfo>] {
        self.nominated.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    /// On how many nodes an image is.
    pub(crate) fn image_nodes(&self, image: &str) -> usize {
        self.image_nodes.get(image).copied().unwrap_or(0)
    }

    fn change_node_object(&mut self, name: &str, object: Option<Arc<Node>>) {
        let node = self.node_mut(name);
        let before: Vec<String> = node.images.keys().cloned().collect();
        node.set_object(object);
        let after: Vec<String> = node.images.keys().cloned().collect();
        for image in after {
            *self.image_nodes.entry(image).or_default() += 1;
        }
        for image in before {
            if let Some(count) = self.image_nodes.get_mut(&image) {
                *count -= 1;
                if *count == 0 {
                    self.image_nodes.remove(&image);
                }
            }
        }
    }

    /// The entry of a node, made if there is none.
    fn node_mut(&mut self, name: &str) -> &mut NodeInfo {
        let position = match self.positions.get(name) {
            Some(position) => *position,
            None => {
                let node = NodeInfo::unknown(name);
                self.positions.insert(Arc::clone(&node.name), self.nodes.len());
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        // Positions are kept in step with the nodes below.
        #[allow(clippy::indexing_slicing)]
        &mut self.nodes[position]
    }

    fn drop_if_empty(&mut self, name: &str) {
        let node = self.node_mut(name);
        if node.object.is_some() || !node.pods.is_empty() {
            return;
        }
        if let Some(position) = self.positions.remove(name) {
            self.nodes.swap_remove(position);
            if let Some(moved) = self.nodes.get(position) {
                self.positions.insert(Arc::clone(&moved.name), position);
            }
        }
    }
}
