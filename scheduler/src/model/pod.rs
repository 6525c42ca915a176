//! A pod, with what the plugins look at worked out once.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodSpec};

use super::cluster::Namespaces;
use super::resources::{Resources, requests_of, scored_requests_of};
use super::selector::{LabelMatcher, Labels, NodeMatcher};

/// A pod as the scheduler sees it.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// The object.
    pub object: Arc<Pod>,
    /// Namespace and name.
    pub key: ObjectKey,
    /// What tells it from an earlier pod of the same name.
    pub uid: String,
    /// How important it is.
    pub priority: i32,
    /// What it needs.
    pub requests: Resources,
    /// What it counts as when nodes are compared.
    pub(crate) scored_requests: Resources,
    /// The node's ports that it takes.
    pub host_ports: Vec<HostPort>,
    pub(crate) node_matcher: NodeMatcher,
    /// Which pods it must be near to.
    pub required_affinity: Vec<AffinityTerm>,
    /// Which pods it must not be near to.
    pub required_anti_affinity: Vec<AffinityTerm>,
    /// Which pods it would like to be near to, with weights; negative weights push away.
    pub preferred_affinity: Vec<(i64, AffinityTerm)>,
    /// The UID of the object that controls it.
    pub controller_uid: Option<String>,
    /// The images of its containers, with a tag or digest.
    pub images: Vec<String>,
}

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    protocol: String,
    address: String,
    port: i32,
}

/// A term of pod affinity or anti-affinity.
#[derive(Clone, Debug)]
pub struct AffinityTerm {
    /// Nodes with the same value of this label are near to each other.
    pub topology_key: String,
    selector: LabelMatcher,
    namespaces: BTreeSet<String>,
    namespace_selector: LabelMatcher,
}

static NO_LABELS: Labels = Labels::new();

impl PodInfo {
    /// Works out what the plugins need.
    pub fn new(object: Arc<Pod>) -> Self {
        let nothing = PodSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&nothing);
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let labels = object.metadata.labels.as_ref().unwrap_or(&NO_LABELS);
        let affinity = spec.affinity.as_ref();
        let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
        let far = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        let required = |terms: Option<&Vec<PodAffinityTerm>>| -> Vec<AffinityTerm> {
            terms.into_iter().flatten().map(|term| AffinityTerm::new(term, &namespace, labels)).collect()
        };
        let likes = near.and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_ref());
        let dislikes = far.and_then(|far| far.preferred_during_scheduling_ignored_during_execution.as_ref());
        let likes = likes.into_iter().flatten().map(|weighted| (1, weighted));
        let dislikes = dislikes.into_iter().flatten().map(|weighted| (-1, weighted));
        let preferred = likes.chain(dislikes).map(|(sign, weighted)| {
            let term = AffinityTerm::new(&weighted.pod_affinity_term, &namespace, labels);
            (sign * i64::from(weighted.weight), term)
        });
        Self {
            key: ObjectKey::of(&*object),
            uid: object.metadata.uid.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            requests: requests_of(&object),
            scored_requests: scored_requests_of(&object),
            host_ports: host_ports_of(spec),
            node_matcher: NodeMatcher::new(spec),
            required_affinity: required(
                near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            required_anti_affinity: required(
                far.and_then(|far| far.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            preferred_affinity: preferred.collect(),
            controller_uid: client::owner::controller_of(&*object).map(|owner| owner.uid.clone()),
            images: images_of(spec),
            object,
        }
    }

    /// The pod's labels.
    pub(crate) fn labels(&self) -> &Labels {
        self.object.metadata.labels.as_ref().unwrap_or(&NO_LABELS)
    }

    /// The pod's specification.
    pub(crate) fn spec(&self) -> Option<&PodSpec> {
        self.object.spec.as_ref()
    }

    /// Whether the pod is on its way out.
    pub fn is_terminating(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }

    /// When the pod was started, or now if it was not.
    pub(crate) fn started(&self) -> Timestamp {
        let status = self.object.status.as_ref();
        status.and_then(|status| status.start_time.as_ref()).map_or(Timestamp::MAX, |time| time.0)
    }

    /// Whether any pod-affinity rule is in it.
    pub(crate) fn has_affinity(&self) -> bool {
        !(self.required_affinity.is_empty()
            && self.required_anti_affinity.is_empty()
            && self.preferred_affinity.is_empty())
    }

    /// The node that a preemption is making room on.
    pub(crate) fn nominated_node(&self) -> Option<&str> {
        let nominated = self.object.status.as_ref()?.nominated_node_name.as_deref();
        nominated.filter(|name| !name.is_empty())
    }
}

impl AffinityTerm {
    fn new(term: &PodAffinityTerm, own_namespace: &str, own_labels: &Labels) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(own_namespace.to_owned());
        }
        let mut selector = LabelMatcher::new(term.label_selector.as_ref());
        for key in term.match_label_keys.iter().flatten() {
            if let Some(value) = own_labels.get(key) {
                selector.and_equal(key, value);
            }
        }
        Self {
            topology_key: term.topology_key.clone(),
            selector,
            namespaces,
            namespace_selector: LabelMatcher::new(term.namespace_selector.as_ref()),
        }
    }

    /// Whether the term means this pod.
    pub(crate) fn matches(&self, pod: &PodInfo, namespaces: &Namespaces) -> bool {
        let namespace = &pod.key.namespace;
        let in_namespace = self.namespaces.contains(namespace)
            || self.namespace_selector.matches(namespaces.get(namespace).unwrap_or(&NO_LABELS));
        in_namespace && self.selector.matches(pod.labels())
    }
}

impl HostPort {
    /// Whether both cannot be on one node.
    pub(crate) fn conflicts_with(&self, other: &Self) -> bool {
        const ANY: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || self.address == ANY || other.address == ANY)
    }
}

fn host_ports_of(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(HostPort {
                port: port.host_port.filter(|port| *port > 0)?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                address: port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into()),
            })
        })
        .collect()
}

fn images_of(spec: &PodSpec) -> Vec<String> {
    let init = spec.init_containers.iter().flatten();
    let containers = init.chain(&spec.containers);
    containers.filter_map(|container| container.image.as_deref()).map(normalized_image).collect()
}

/// An image name as nodes report it: with a tag.
pub(super) fn normalized_image(name: &str) -> String {
    let after_slash = name.rsplit('/').next().unwrap_or(name);
    if after_slash.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") }
}
