//! Ordered changes for readers that may be slow.
//!
//! A subscription holds at most one pending entry per object: several changes of one object coalesce into one, so
//! nothing is lost, memory is bounded by the number of objects, and a slow reader never slows the watch.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use kube::Resource;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::informer::Informer;
use crate::key::ObjectKey;

/// What happened to an object, as seen by a watch.
#[derive(Debug)]
pub enum Change<K> {
    /// The object is new to the reader.
    Added(Arc<K>),
    /// The object changed; `old` is what the reader saw last.
    Modified {
        /// The version the reader saw last.
        old: Arc<K>,
        /// The newest version.
        new: Arc<K>,
    },
    /// The object is gone; this is its last known version.
    Deleted(Arc<K>),
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Added(object) => Self::Added(object.clone()),
            Self::Modified { old, new } => Self::Modified { old: old.clone(), new: new.clone() },
            Self::Deleted(object) => Self::Deleted(object.clone()),
        }
    }
}

impl<K> Change<K> {
    /// The newest known version of the object.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Deleted(object) | Self::Modified { new: object, .. } => object,
        }
    }

    /// The version before this change, if the reader saw one.
    pub fn old(&self) -> Option<&Arc<K>> {
        match self {
            Self::Added(_) => None,
            Self::Modified { old, .. } => Some(old),
            Self::Deleted(object) => Some(object),
        }
    }
}

struct Pending<K> {
    seen: Option<Arc<K>>,
    now: Option<Arc<K>>,
}

/// Each key of `entries` is in `order` once.
struct Waiting<K> {
    order: VecDeque<ObjectKey>,
    entries: HashMap<ObjectKey, Pending<K>>,
}

pub(crate) struct Mailbox<K> {
    waiting: Mutex<Waiting<K>>,
    wake: Notify,
}

impl<K> Default for Mailbox<K> {
    fn default() -> Self {
        let waiting = Waiting { order: VecDeque::new(), entries: HashMap::new() };
        Self { waiting: Mutex::new(waiting), wake: Notify::new() }
    }
}

impl<K: Resource> Mailbox<K> {
    pub(crate) fn put(&self, change: &Change<K>) {
        let key = ObjectKey::of(change.object().as_ref());
        let now = match change {
            Change::Deleted(_) => None,
            _ => Some(change.object().clone()),
        };
        {
            let waiting = &mut *self.waiting.lock();
            match waiting.entries.get_mut(&key) {
                Some(entry) => entry.now = now,
                None => {
                    waiting.order.push_back(key.clone());
                    waiting.entries.insert(key, Pending { seen: change.old().cloned(), now });
                }
            }
        }
        self.wake.notify_one();
    }

    /// The oldest pending change. An object replaced by another of the same name is reported as deleted, then added.
    pub(crate) fn take(&self) -> Option<Change<K>> {
        let waiting = &mut *self.waiting.lock();
        while let Some(key) = waiting.order.pop_front() {
            let Some(entry) = waiting.entries.remove(&key) else { continue };
            match (entry.seen, entry.now) {
                (None, None) => {}
                (None, Some(new)) => return Some(Change::Added(new)),
                (Some(old), None) => return Some(Change::Deleted(old)),
                (Some(old), Some(new)) if old.meta().uid == new.meta().uid => {
                    return Some(Change::Modified { old, new });
                }
                (Some(old), Some(new)) => {
                    waiting.order.push_front(key.clone());
                    waiting.entries.insert(key, Pending { seen: None, now: Some(new) });
                    return Some(Change::Deleted(old));
                }
            }
        }
        None
    }
}

/// A subscription to an informer. It begins with an [`Change::Added`] for everything already known.
pub struct Changes<K> {
    pub(crate) mailbox: Arc<Mailbox<K>>,
    pub(crate) informer: Informer<K>,
}

impl<K: Resource> Changes<K> {
    /// Waits for the next change. `None` after the informers were shut down.
    pub async fn next(&mut self) -> Option<Change<K>> {
        loop {
            if let Some(change) = self.mailbox.take() {
                return Some(change);
            }
            tokio::select! {
                () = self.mailbox.wake.notified() => {}
                () = self.informer.stopped() => return self.mailbox.take(),
            }
        }
    }

    /// The next change if there is one already.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        self.mailbox.take()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn config_map(name: &str, uid: &str) -> Arc<ConfigMap> {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.into());
        object.metadata.uid = Some(uid.into());
        Arc::new(object)
    }

    #[test]
    fn changes_of_one_object_coalesce_and_keep_the_first_old_version() {
        let mailbox = Mailbox::default();
        let (first, second, third) = (config_map("a", "1"), config_map("a", "1"), config_map("a", "1"));
        mailbox.put(&Change::Modified { old: first.clone(), new: second.clone() });
        mailbox.put(&Change::Modified { old: second, new: third.clone() });
        let Some(Change::Modified { old, new }) = mailbox.take() else { panic!("one modification") };
        assert!(Arc::ptr_eq(&old, &first) && Arc::ptr_eq(&new, &third));
        assert!(mailbox.take().is_none());
    }

    #[test]
    fn an_object_that_came_and_went_unseen_is_not_reported() {
        let mailbox = Mailbox::default();
        mailbox.put(&Change::Added(config_map("a", "1")));
        mailbox.put(&Change::Deleted(config_map("a", "1")));
        assert!(mailbox.take().is_none());
    }

    #[test]
    fn a_replaced_object_is_deleted_then_added() {
        let mailbox = Mailbox::default();
        mailbox.put(&Change::Deleted(config_map("a", "1")));
        mailbox.put(&Change::Added(config_map("a", "2")));
        assert!(
            matches!(mailbox.take(), Some(Change::Deleted(old)) if old.metadata.uid.as_deref() == Some("1"))
        );
        assert!(
            matches!(mailbox.take(), Some(Change::Added(new)) if new.metadata.uid.as_deref() == Some("2"))
        );
    }
}
