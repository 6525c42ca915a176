//! Turns what happens to pods into keys of the owners to reconcile, and keeps their expectations.

use std::sync::Arc;

use client::expectations::Expectations;
use client::owner::controller_of;
use client::{Change, Informer, ObjectKey, Queue, Watched};
use k8s_openapi::api::core::v1::Pod;
use kube::core::{Selector, SelectorExt};
use kube::{Resource, ResourceExt};

use super::pods;

/// A kind that owns pods by label selector.
pub(crate) trait PodOwner: Watched + Resource<DynamicType = ()> {
    /// The kind in owner references.
    const KIND: &'static str;
    /// Which pods belong to it; `None` selects nothing.
    fn pod_selector(&self) -> Option<Selector>;
}

/// Reconciles an owner whenever it or one of its pods changes.
pub(crate) fn watch_owner_and_pods<O: PodOwner>(
    owners: &Informer<O>,
    pods: &Informer<Pod>,
    queue: &Queue<ObjectKey>,
    expectations: &Arc<Expectations>,
) {
    let (enqueue, forget) = (queue.clone(), expectations.clone());
    owners.on_change(move |change| {
        let key = ObjectKey::of(change.object().as_ref());
        if let Change::Deleted(_) = change {
            forget.forget(&key);
        }
        if let Change::Modified { old, new } = change
            && old.meta().uid != new.meta().uid
        {
            forget.forget(&key);
        }
        enqueue.add(key);
    });
    let watcher =
        PodWatcher { owners: owners.clone(), queue: queue.clone(), expectations: expectations.clone() };
    pods.on_change(move |change| watcher.handle(change));
}

struct PodWatcher<O> {
    owners: Informer<O>,
    queue: Queue<ObjectKey>,
    expectations: Arc<Expectations>,
}

impl<O: PodOwner> PodWatcher<O> {
    fn handle(&self, change: &Change<Pod>) {
        match change {
            Change::Added(pod) if pods::is_terminating(pod) => self.gone(pod),
            Change::Added(pod) => match self.owner_key(pod) {
                Some(key) => {
                    self.expectations.creation_observed(&key);
                    self.queue.add(key);
                }
                None => self.orphan(pod),
            },
            Change::Deleted(pod) => self.gone(pod),
            Change::Modified { old, new } => self.modified(old, new),
        }
    }

    fn modified(&self, old: &Pod, new: &Pod) {
        if old.metadata.uid != new.metadata.uid {
            self.gone(old);
            self.handle(&Change::Added(Arc::new(new.clone())));
            return;
        }
        if pods::is_terminating(new) {
            self.gone(new);
            return;
        }
        if controller_of(old) != controller_of(new)
            && let Some(key) = self.owner_key(old)
        {
            self.queue.add(key);
        }
        match self.owner_key(new) {
            Some(key) => self.queue.add(key),
            None => {
                if old.metadata.labels != new.metadata.labels || controller_of(old) != controller_of(new) {
                    self.orphan(new);
                }
            }
        }
    }

    fn gone(&self, pod: &Pod) {
        if let Some(key) = self.owner_key(pod) {
            self.expectations.deletion_observed(&key, pods::uid(pod));
            self.queue.add(key);
        }
    }

    /// A pod without a controller may be adopted by any owner whose selector matches.
    fn orphan(&self, pod: &Pod) {
        if controller_of(pod).is_some() {
            return;
        }
        for owner in self.owners.list_namespace(&pod.namespace().unwrap_or_default()) {
            if owner.pod_selector().is_some_and(|selector| selector.matches(pods::labels(pod))) {
                self.queue.add(ObjectKey::of(owner.as_ref()));
            }
        }
    }

    /// The owner named by the pod, if it is of our kind. It need not be in the cache yet, but must not be another there.
    fn owner_key(&self, pod: &Pod) -> Option<ObjectKey> {
        let reference = controller_of(pod)?;
        let group = O::group(&());
        let group_matches = reference.api_version.rsplit_once('/').map_or("", |(group, _)| group) == group;
        if reference.kind != O::KIND || !group_matches {
            return None;
        }
        let key = ObjectKey::new(pod.namespace().unwrap_or_default(), reference.name.clone());
        let known = self.owners.get_key(&key);
        known.is_none_or(|owner| owner.meta().uid.as_deref() == Some(reference.uid.as_str())).then_some(key)
    }
}
