//! Who owns whom, over all kinds, by UID. Pure.

use std::collections::{HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub group: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub owners: Vec<OwnerReference>,
    pub deleting: bool,
    /// Being deleted in the foreground: it goes when its blocking dependents have gone.
    pub foreground: bool,
    /// Being deleted, its dependents to be left behind.
    pub orphaning: bool,
}

impl Node {
    pub fn new(group: &str, kind: &str, meta: &ObjectMeta) -> Self {
        let has = |wanted: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == wanted);
        let deleting = meta.deletion_timestamp.is_some();
        Self {
            group: group.into(),
            kind: kind.into(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting,
            foreground: deleting && has(FOREGROUND),
            orphaning: deleting && has(ORPHAN),
        }
    }
}

/// What a change of the graph calls for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Work {
    /// Objects that may have to be deleted, by UID.
    pub check: Vec<String>,
    /// Objects whose dependents must be released, by UID.
    pub orphan: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    /// Dependents by the UID of each owner they name, whether that owner is known or not.
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The known objects that name this one as an owner.
    pub fn dependents(&self, uid: &str) -> Vec<(String, Node)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|dependent| Some((dependent.clone(), self.nodes.get(dependent)?.clone()))).collect()
    }

    /// Whether a dependent of this object is itself being deleted in the foreground: then they may wait for each other.
    pub fn may_be_in_a_circle(&self, uid: &str) -> bool {
        let dependents = self.dependents.get(uid).into_iter().flatten();
        dependents.filter_map(|dependent| self.nodes.get(dependent)).any(|dependent| dependent.foreground)
    }

    /// Takes over an object as it is now.
    pub fn upsert(&mut self, uid: &str, node: Node) -> Work {
        let mut work = Work::default();
        let old = self.nodes.insert(uid.to_string(), node.clone());
        let old_owners: HashSet<String> =
            old.iter().flat_map(|old| &old.owners).map(|owner| owner.uid.clone()).collect();
        let new_owners: HashSet<String> = node.owners.iter().map(|owner| owner.uid.clone()).collect();
        for owner in old_owners.difference(&new_owners) {
            self.unlink(owner, uid);
            // One dependent less may let an owner go.
            if self.nodes.get(owner).is_some_and(|owner| owner.foreground) {
                work.check.push(owner.clone());
            }
        }
        for owner in &new_owners {
            self.dependents.entry(owner.clone()).or_default().insert(uid.to_string());
        }
        let unblocked = old.iter().flat_map(|old| &old.owners).filter(|before| {
            let after = node.owners.iter().find(|after| after.uid == before.uid);
            before.block_owner_deletion == Some(true)
                && after.is_some_and(|after| after.block_owner_deletion != Some(true))
        });
        work.check.extend(unblocked.map(|owner| owner.uid.clone()));
        if old.as_ref().map(|old| &old.owners) != Some(&node.owners) {
            let doubtful = node.owners.iter().any(|owner| {
                self.nodes
                    .get(&owner.uid)
                    .is_none_or(|known| known.foreground || !same_object(known, owner, &node))
            });
            if doubtful {
                work.check.push(uid.to_string());
            }
        }
        if node.foreground && !old.as_ref().is_some_and(|old| old.foreground) {
            work.check.extend(self.dependents.get(uid).into_iter().flatten().cloned());
            work.check.push(uid.to_string());
        }
        if node.orphaning {
            work.orphan.push(uid.to_string());
        }
        work
    }

    /// Forgets an object that is gone. Its dependents, and owners that waited for it, need a look.
    pub fn remove(&mut self, uid: &str) -> Work {
        let Some(node) = self.nodes.remove(uid) else { return Work::default() };
        let mut work = Work::default();
        for owner in &node.owners {
            self.unlink(&owner.uid, uid);
            if self.nodes.get(&owner.uid).is_some_and(|owner| owner.foreground) {
                work.check.push(owner.uid.clone());
            }
        }
        work.check.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        work
    }

    /// Every object with owners that are not known. After a start these are the ones to check.
    pub fn with_unknown_owners(&self) -> Vec<String> {
        let unknown = |node: &Node| {
            node.owners.iter().any(|owner| {
                self.nodes
                    .get(&owner.uid)
                    .is_none_or(|known| known.foreground || !same_object(known, owner, node))
            })
        };
        self.nodes.iter().filter(|(_, node)| unknown(node)).map(|(uid, _)| uid.clone()).collect()
    }

    /// Every object that is being deleted with orphaning.
    pub fn orphaning(&self) -> Vec<String> {
        self.nodes.iter().filter(|(_, node)| node.orphaning).map(|(uid, _)| uid.clone()).collect()
    }

    /// Everything of one kind, for when the kind itself goes.
    pub fn of_kind(&self, group: &str, kind: &str) -> Vec<String> {
        let same = |node: &Node| node.group == group && node.kind == kind;
        self.nodes.iter().filter(|(_, node)| same(node)).map(|(uid, _)| uid.clone()).collect()
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

/// Whether a reference describes the object that its UID belongs to, in a namespace it can reach.
fn same_object(owner: &Node, reference: &OwnerReference, dependent: &Node) -> bool {
    let group = reference.api_version.rsplit_once('/').map_or("", |(group, _)| group);
    owner.kind == reference.kind
        && owner.group == group
        && owner.name == reference.name
        && (owner.namespace.is_empty() || owner.namespace == dependent.namespace)
}

#[cfg(test)]
pub(super) mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::testing::at;

    pub(crate) fn node(name: &str, owners: &[&str]) -> Node {
        let meta = ObjectMeta {
            name: Some(name.into()),
            namespace: Some("default".into()),
            owner_references: Some(
                owners
                    .iter()
                    .map(|owner| OwnerReference {
                        api_version: "v1".into(),
                        kind: "Thing".into(),
                        name: (*owner).into(),
                        uid: (*owner).into(),
                        ..OwnerReference::default()
                    })
                    .collect(),
            ),
            ..ObjectMeta::default()
        };
        Node::new("", "Thing", &meta)
    }

    #[test]
    fn dependents_are_checked_when_their_owner_goes() {
        let mut graph = Graph::default();
        assert_eq!(graph.upsert("owner", node("owner", &[])), Work::default());
        assert_eq!(graph.upsert("child", node("child", &["owner"])), Work::default());
        assert_eq!(graph.remove("owner").check, ["child"]);
    }

    #[test]
    fn an_object_whose_owner_is_unknown_is_checked() {
        let mut graph = Graph::default();
        assert_eq!(graph.upsert("child", node("child", &["owner"])).check, ["child"]);
        assert_eq!(graph.with_unknown_owners(), ["child"]);
        graph.upsert("owner", node("owner", &[]));
        assert!(graph.with_unknown_owners().is_empty());
    }

    #[test]
    fn a_foreground_deletion_looks_at_dependents_and_again_when_each_has_gone() {
        let mut graph = Graph::default();
        graph.upsert("owner", node("owner", &[]));
        graph.upsert("child", node("child", &["owner"]));
        let meta = ObjectMeta {
            name: Some("owner".into()),
            deletion_timestamp: Some(Time(at(0))),
            finalizers: Some(vec![FOREGROUND.into()]),
            ..ObjectMeta::default()
        };
        let work = graph.upsert("owner", Node::new("", "Thing", &meta));
        assert_eq!(work.check, ["child", "owner"]);
        assert_eq!(graph.remove("child").check, ["owner"]);
    }
}
