//! The objects an informer knows, with indexes over them. Pure: no task, no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use kube::Resource;

use crate::changes::Change;
use crate::informer::Informer;
use crate::key::ObjectKey;

/// Computes the values under which an object is found in an index.
pub(crate) type IndexFn<K> = Arc<dyn Fn(&K) -> Vec<String> + Send + Sync>;

/// A handle on one index of an informer.
pub struct Index<K> {
    pub(crate) informer: Informer<K>,
    pub(crate) name: &'static str,
}

impl<K: Resource + 'static> Index<K> {
    /// All objects that the index files under `value`, ordered by key.
    pub fn get(&self, value: &str) -> Vec<Arc<K>> {
        self.informer.read(|cache| cache.indexed(self.name, value))
    }
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self { informer: self.informer.clone(), name: self.name }
    }
}

struct IndexState<K> {
    compute: IndexFn<K>,
    keys: HashMap<String, BTreeSet<ObjectKey>>,
}

pub(crate) struct Cache<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    indexes: HashMap<&'static str, IndexState<K>>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), indexes: HashMap::new() }
    }
}

impl<K: Resource> Cache<K> {
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.objects.get(key).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(crate) fn list(&self) -> Vec<Arc<K>> {
        self.objects.values().cloned().collect()
    }

    pub(crate) fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let first = ObjectKey::new(namespace, "");
        self.objects
            .range((Bound::Included(&first), Bound::Unbounded))
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub(crate) fn keys(&self) -> Vec<ObjectKey> {
        self.objects.keys().cloned().collect()
    }

    pub(crate) fn indexed(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let keys = self.indexes.get(name).and_then(|index| index.keys.get(value));
        keys.into_iter().flatten().filter_map(|key| self.objects.get(key).cloned()).collect()
    }

    /// Adds an index unless one of that name exists; the first function given for a name stays.
    pub(crate) fn add_index(&mut self, name: &'static str, compute: IndexFn<K>) {
        if self.indexes.contains_key(name) {
            return;
        }
        let mut index = IndexState { compute, keys: HashMap::new() };
        for (key, object) in &self.objects {
            index.insert(key, object);
        }
        self.indexes.insert(name, index);
    }

    /// Stores an object. `None` when the very same version is already there.
    pub(crate) fn upsert(&mut self, object: Arc<K>) -> Option<Change<K>> {
        let key = ObjectKey::of(object.as_ref());
        let old = self.objects.insert(key.clone(), object.clone());
        if let Some(old) = &old
            && old.meta().resource_version == object.meta().resource_version
            && old.meta().uid == object.meta().uid
        {
            return None;
        }
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.insert(&key, &object);
        }
        Some(match old {
            Some(old) => Change::Modified { old, new: object },
            None => Change::Added(object),
        })
    }

    /// Forgets an object; the change carries `last` where the server told it, else what was known.
    pub(crate) fn remove(&mut self, key: &ObjectKey, last: Option<Arc<K>>) -> Option<Change<K>> {
        let old = self.objects.remove(key)?;
        for index in self.indexes.values_mut() {
            index.remove(key, &old);
        }
        Some(Change::Deleted(last.unwrap_or(old)))
    }
}

impl<K> IndexState<K> {
    fn insert(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.compute)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.compute)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(namespace: &str, name: &str, node: &str, version: &str) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some(namespace.into());
        pod.metadata.name = Some(name.into());
        pod.metadata.resource_version = Some(version.into());
        pod.spec.get_or_insert_default().node_name = Some(node.into());
        Arc::new(pod)
    }

    fn names(pods: Vec<Arc<Pod>>) -> Vec<String> {
        pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect()
    }

    #[test]
    fn an_index_follows_changes_of_its_value() {
        let mut cache = Cache::default();
        cache.upsert(pod("a", "one", "n1", "1"));
        cache.add_index(
            "node",
            Arc::new(|pod: &Pod| pod.spec.iter().filter_map(|s| s.node_name.clone()).collect()),
        );
        cache.upsert(pod("a", "two", "n1", "2"));
        assert_eq!(names(cache.indexed("node", "n1")), ["one", "two"]);
        cache.upsert(pod("a", "one", "n2", "3"));
        assert_eq!(names(cache.indexed("node", "n1")), ["two"]);
        assert_eq!(names(cache.indexed("node", "n2")), ["one"]);
        cache.remove(&ObjectKey::new("a", "one"), None);
        assert!(cache.indexed("node", "n2").is_empty());
    }

    #[test]
    fn a_namespace_lists_only_its_own_objects() {
        let mut cache = Cache::default();
        for (namespace, name) in [("a", "one"), ("ab", "two"), ("b", "three")] {
            cache.upsert(pod(namespace, name, "n", "1"));
        }
        assert_eq!(names(cache.list_namespace("a")), ["one"]);
        assert_eq!(names(cache.list_namespace("b")), ["three"]);
    }

    #[test]
    fn the_same_version_again_is_no_change() {
        let mut cache = Cache::default();
        assert!(matches!(cache.upsert(pod("a", "one", "n", "1")), Some(Change::Added(_))));
        assert!(cache.upsert(pod("a", "one", "n", "1")).is_none());
    }
}
