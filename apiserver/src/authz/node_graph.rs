//! Which secrets, config maps, claims and accounts the pods of each node name.
//!
//! An index that follows the pods' cache: it is brought up to date when it is asked, by the changes since the last
//! time, so that a question costs two look-ups and not a walk over all pods. A pod's references are read when it comes
//! to a node and when it goes; they do not change in between. As upstream, what ephemeral containers name is not
//! followed, and mirror pods name nothing: a node makes those itself.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use crate::cache::{Cached, Follower, Step};
use crate::objects::Objects;

const PODS: &str = "core/pods";
const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";

/// A kind of object that pods name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Pod,
    Secret,
    ConfigMap,
    Claim,
    Account,
}

/// How many pods of a node name an object, by [`key`].
type Edges = HashMap<Box<str>, u32>;

type Nodes = HashMap<Box<str>, Edges>;

#[derive(Default)]
struct State {
    follower: Follower,
    nodes: Nodes,
}

/// The index.
pub(super) struct NodeGraph {
    objects: Objects,
    state: Mutex<State>,
}

impl NodeGraph {
    pub fn new(objects: Objects) -> Self {
        Self { objects, state: Mutex::default() }
    }

    /// Whether a pod on the node names the object (or is it), as far as the cache knows.
    pub fn has(&self, node: &str, kind: Named, namespace: &str, name: &str) -> bool {
        let mut state = self.state.lock();
        self.follow(&mut state);
        state.nodes.get(node).is_some_and(|edges| edges.contains_key(key(kind, namespace, name).as_str()))
    }

    fn follow(&self, state: &mut State) {
        let State { follower, nodes } = state;
        follower.follow(&self.objects.row(PODS), |step| match step {
            Step::Restart => nodes.clear(),
            Step::Change { old, new } => replace(nodes, old, new),
        });
    }
}

fn replace(nodes: &mut Nodes, old: Option<&Arc<Cached>>, new: Option<&Arc<Cached>>) {
    if let (Some(old), Some(new)) = (old, new)
        && node_of(old) == node_of(new)
    {
        return;
    }
    if let Some((pod, node)) = old.and_then(|pod| Some((pod, node_of(pod)?))) {
        let mut is_empty = false;
        if let Some(edges) = nodes.get_mut(node) {
            for key in references(&pod.tree()) {
                if let Some(count) = edges.get_mut(key.as_str()) {
                    *count -= 1;
                    if *count == 0 {
                        edges.remove(key.as_str());
                    }
                }
            }
            is_empty = edges.is_empty();
        }
        if is_empty {
            nodes.remove(node);
        }
    }
    if let Some((pod, node)) = new.and_then(|pod| Some((pod, node_of(pod)?))) {
        let edges = nodes.entry(node.into()).or_default();
        for key in references(&pod.tree()) {
            *edges.entry(key.into()).or_default() += 1;
        }
    }
}

fn node_of(pod: &Cached) -> Option<&str> {
    pod.fields.get("spec.nodeName").filter(|node| !node.is_empty())
}

fn key(kind: Named, namespace: &str, name: &str) -> String {
    let letter = match kind {
        Named::Pod => "p",
        Named::Secret => "s",
        Named::ConfigMap => "c",
        Named::Claim => "v",
        Named::Account => "a",
    };
    [letter, namespace, name].join("/")
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// Everything that a pod names, itself included; nothing twice.
fn references(pod: &Value) -> Vec<String> {
    let namespace = api::object::namespace(pod);
    let mut found = vec![key(Named::Pod, namespace, api::object::name(pod))];
    if pod.pointer(MIRROR).is_none() {
        let mut add = |kind, name: Option<&str>| found.extend(name.map(|name| key(kind, namespace, name)));
        add(Named::Account, text(pod, "/spec/serviceAccountName"));
        for secret in items(pod, "/spec/imagePullSecrets") {
            add(Named::Secret, text(secret, "/name"));
        }
        let containers =
            ["/spec/initContainers", "/spec/containers"].into_iter().flat_map(|list| items(pod, list));
        for container in containers {
            for variable in items(container, "/env") {
                add(Named::Secret, text(variable, "/valueFrom/secretKeyRef/name"));
                add(Named::ConfigMap, text(variable, "/valueFrom/configMapKeyRef/name"));
            }
            for source in items(container, "/envFrom") {
                add(Named::Secret, text(source, "/secretRef/name"));
                add(Named::ConfigMap, text(source, "/configMapRef/name"));
            }
        }
        for volume in items(pod, "/spec/volumes") {
            of_volume(pod, volume, &mut add);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn of_volume(pod: &Value, volume: &Value, add: &mut impl FnMut(Named, Option<&str>)) {
    add(Named::Secret, text(volume, "/secret/secretName"));
    add(Named::ConfigMap, text(volume, "/configMap/name"));
    add(Named::Claim, text(volume, "/persistentVolumeClaim/claimName"));
    if volume.get("ephemeral").is_some() {
        let claim = format!("{}-{}", api::object::name(pod), text(volume, "/name").unwrap_or_default());
        add(Named::Claim, Some(&claim));
    }
    for source in items(volume, "/projected/sources") {
        add(Named::Secret, text(source, "/secret/name"));
        add(Named::ConfigMap, text(source, "/configMap/name"));
    }
    for driver in ["csi/nodePublishSecretRef", "iscsi/secretRef", "flexVolume/secretRef", "cephfs/secretRef"]
    {
        add(Named::Secret, text(volume, &format!("/{driver}/name")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_name_a_secret_is_seen() {
        let pod = json!({"metadata": {"namespace": "ns", "name": "p"}, "spec": {
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "a"}}}], "envFrom": [{"secretRef": {"name": "b"}}]}],
            "initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "c"}}}]}],
            "imagePullSecrets": [{"name": "d"}],
            "volumes": [{"secret": {"secretName": "e"}}, {"projected": {"sources": [{"secret": {"name": "f"}}]}},
                {"csi": {"nodePublishSecretRef": {"name": "g"}}}],
        }});
        let names = references(&pod);
        assert_eq!(names, ["p/ns/p", "s/ns/a", "s/ns/b", "s/ns/c", "s/ns/d", "s/ns/e", "s/ns/f", "s/ns/g"]);
    }

    #[test]
    fn a_mirror_pod_names_only_itself() {
        let pod = json!({"metadata": {"namespace": "ns", "name": "p", "annotations": {"kubernetes.io/config.mirror": "x"}},
            "spec": {"volumes": [{"secret": {"secretName": "e"}}], "serviceAccountName": "admin"}});
        assert_eq!(references(&pod), ["p/ns/p"]);
    }
}
