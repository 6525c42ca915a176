//! The kinds that are watched, and the metadata that is kept of their objects.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use client::Informer;
use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta};
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer};

use crate::common::served::Served;

/// Metadata without what ownership does not need: there is one for every object of the cluster.
#[derive(Clone, Debug)]
pub(super) struct OwnedMeta {
    pub metadata: ObjectMeta,
}

impl<'de> Deserialize<'de> for OwnedMeta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Whole {
            metadata: ObjectMeta,
        }
        let meta = Whole::deserialize(deserializer)?.metadata;
        Ok(Self {
            metadata: ObjectMeta {
                name: meta.name,
                namespace: meta.namespace,
                uid: meta.uid,
                resource_version: meta.resource_version,
                owner_references: meta.owner_references,
                finalizers: meta.finalizers,
                deletion_timestamp: meta.deletion_timestamp,
                ..ObjectMeta::default()
            },
        })
    }
}

impl Resource for OwnedMeta {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }

    fn api_version(kind: &ApiResource) -> Cow<'_, str> {
        kind.api_version.as_str().into()
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }

    fn metadata_api() -> bool {
        true
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Where the objects of a kind come from.
pub(super) trait Feed: Send + Sync {
    /// Resolves when the first complete list was taken over.
    fn synced(&self) -> BoxFuture<'static, bool>;
}

/// A subscription to an informer of any type. It ends when this is dropped.
pub(super) struct Following<K> {
    pub informer: Informer<K>,
    pub _alive: Arc<()>,
}

impl<K: client::Watched> Feed for Following<K> {
    fn synced(&self) -> BoxFuture<'static, bool> {
        let informer = self.informer.clone();
        async move { informer.synced().await }.boxed()
    }
}

struct Watched {
    served: Served,
    feed: Option<Box<dyn Feed>>,
}

#[derive(Default)]
pub(super) struct Kinds {
    by_kind: Mutex<HashMap<(String, String), Watched>>,
    ready: AtomicBool,
}

fn key(resource: &ApiResource) -> (String, String) {
    (resource.group.clone(), resource.kind.clone())
}

impl Kinds {
    pub fn ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub fn len(&self) -> usize {
        self.by_kind.lock().len()
    }

    /// Takes over what the server has now; which kinds are new and which have gone. Dropping those ends their watches.
    pub fn replace(&self, served: Vec<Served>) -> (Vec<Served>, Vec<Served>) {
        let mut known = self.by_kind.lock();
        let now: HashMap<_, _> = served.into_iter().map(|served| (key(&served.resource), served)).collect();
        let gone: Vec<_> = known.keys().filter(|kind| !now.contains_key(*kind)).cloned().collect();
        let removed =
            gone.iter().filter_map(|kind| known.remove(kind)).map(|watched| watched.served).collect();
        let mut added = Vec::new();
        for (kind, served) in now {
            known.entry(kind).or_insert_with(|| {
                added.push(served.clone());
                Watched { served, feed: None }
            });
        }
        (added, removed)
    }

    pub fn watching(&self, resource: &ApiResource, feed: Box<dyn Feed>) {
        if let Some(watched) = self.by_kind.lock().get_mut(&key(resource)) {
            watched.feed = Some(feed);
        }
    }

    pub fn find(&self, group: &str, kind: &str) -> Option<Served> {
        self.by_kind.lock().get(&(group.to_string(), kind.to_string())).map(|watched| watched.served.clone())
    }

    pub async fn wait_until_synced(&self) {
        let feeds: Vec<_> = self
            .by_kind
            .lock()
            .values()
            .filter_map(|watched| Some(watched.feed.as_ref()?.synced()))
            .collect();
        for synced in feeds {
            synced.await;
        }
    }
}
