//! A node, with what is on it added up.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use super::pod::{PodInfo, normalized_image};
use super::resources::{Resources, pod_count};
use super::selector::Labels;

/// A node as the scheduler sees it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// Its name.
    pub name: Arc<str>,
    /// The object; pods can be on a node before it is known.
    pub object: Option<Arc<Node>>,
    /// What it has for pods.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub allowed_pods: usize,
    /// What its pods request.
    pub requested: Resources,
    /// What its pods count as when nodes are compared.
    pub(crate) scored_requested: Resources,
    /// The pods on it, decided ones included.
    pub pods: Vec<Arc<PodInfo>>,
    /// How many of its pods must not be near to others.
    pub(crate) anti_affinity_pods: usize,
    /// How many of its pods have any pod-affinity rule.
    pub(crate) affinity_pods: usize,
    /// The sizes of the images on it.
    pub(crate) images: HashMap<String, i64>,
}

static NO_LABELS: Labels = Labels::new();

impl NodeInfo {
    /// A node of which only the name is known.
    pub(super) fn unknown(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Takes over a new version of the object.
    pub(super) fn set_object(&mut self, object: Option<Arc<Node>>) {
        let status = object.as_ref().and_then(|node| node.status.as_ref());
        let allocatable = status.and_then(|status| status.allocatable.as_ref());
        self.allocatable = allocatable.map(Resources::from_list).unwrap_or_default();
        self.allowed_pods = allocatable.map_or(0, pod_count);
        let images = status.and_then(|status| status.images.as_ref()).into_iter().flatten();
        self.images = images
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                image.names.iter().flatten().map(move |name| (normalized_image(name), size))
            })
            .collect();
        self.object = object;
    }

    pub(crate) fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scored_requested.add(&pod.scored_requests);
        self.anti_affinity_pods += usize::from(!pod.required_anti_affinity.is_empty());
        self.affinity_pods += usize::from(pod.has_affinity());
        self.pods.push(pod);
    }

    pub(crate) fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let position = self.pods.iter().position(|pod| pod.uid == uid)?;
        let pod = self.pods.swap_remove(position);
        self.requested.subtract(&pod.requests);
        self.scored_requested.subtract(&pod.scored_requests);
        self.anti_affinity_pods -= usize::from(!pod.required_anti_affinity.is_empty());
        self.affinity_pods -= usize::from(pod.has_affinity());
        Some(pod)
    }

    /// The node's labels.
    pub(crate) fn labels(&self) -> &Labels {
        let labels = self.object.as_ref().and_then(|node| node.metadata.labels.as_ref());
        labels.unwrap_or(&NO_LABELS)
    }

    /// The node's taints.
    pub(crate) fn taints(&self) -> &[Taint] {
        let spec = self.object.as_ref().and_then(|node| node.spec.as_ref());
        spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }

    /// Whether the node is cordoned.
    pub(crate) fn is_unschedulable(&self) -> bool {
        let spec = self.object.as_ref().and_then(|node| node.spec.as_ref());
        spec.and_then(|spec| spec.unschedulable).unwrap_or(false)
    }
}
