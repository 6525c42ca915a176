//! The config maps and secrets that the node's pods refer to, and no others: the Node authorizer lets a node see just
//! these, one by one.
//!
//! Each is watched once for all pods that refer to it, and as long as one does. Its pods are woken when it changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use client::{Informer, Informers, Scope};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use parking_lot::Mutex;

/// How long a pod waits for the first answer about an object.
const ANSWER: Duration = Duration::from_secs(10);

/// The kinds that pods refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A config map.
    ConfigMap,
    /// A secret.
    Secret,
}

/// What identifies an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Called when an object changed.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

type Subscribers = Arc<Mutex<HashMap<String, Waker>>>;

enum Source {
    ConfigMap(Informer<ConfigMap>),
    Secret(Informer<Secret>),
}

/// One object that is watched as long as somebody holds this.
pub struct Reference {
    key: Key,
    source: Source,
    subscribers: Subscribers,
}

/// All that are watched.
pub struct References {
    informers: Informers,
    known: Mutex<HashMap<Key, Weak<Reference>>>,
}

impl References {
    /// Watches through these informers.
    pub fn new(informers: Informers) -> Self {
        Self { informers, known: Mutex::default() }
    }

    /// The object, watched from now on; `waker` is called under the pod's UID whenever it changes.
    pub fn hold(&self, key: &Key, uid: &str, waker: Waker) -> Arc<Reference> {
        let mut known = self.known.lock();
        let reference = known.get(key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let reference = Arc::new(self.watch(key));
            known.retain(|_, weak| weak.strong_count() > 0);
            known.insert(key.clone(), Arc::downgrade(&reference));
            reference
        });
        reference.subscribers.lock().insert(uid.to_string(), waker);
        reference
    }

    fn watch(&self, key: &Key) -> Reference {
        let subscribers = Subscribers::default();
        let scope = Scope::namespace(&key.namespace).fields(format!("metadata.name={}", key.name));
        let wake = {
            let subscribers = subscribers.clone();
            move || subscribers.lock().values().for_each(|waker| waker())
        };
        let source = match key.kind {
            Kind::ConfigMap => {
                let informer = self.informers.get::<ConfigMap>(scope);
                informer.on_change(move |_| wake());
                Source::ConfigMap(informer)
            }
            Kind::Secret => {
                let informer = self.informers.get::<Secret>(scope);
                informer.on_change(move |_| wake());
                Source::Secret(informer)
            }
        };
        Reference { key: key.clone(), source, subscribers }
    }
}

impl Reference {
    /// Waits for the first answer; false when there was none in time.
    pub async fn answered(&self) -> bool {
        let synced = async {
            match &self.source {
                Source::ConfigMap(informer) => informer.synced().await,
                Source::Secret(informer) => informer.synced().await,
            }
        };
        tokio::time::timeout(ANSWER, synced).await.unwrap_or(false)
    }

    /// Its data; None when it does not exist.
    pub fn data(&self) -> Option<BTreeMap<String, Vec<u8>>> {
        let (namespace, name) = (&self.key.namespace, &self.key.name);
        match &self.source {
            Source::ConfigMap(informer) => {
                let object = informer.get(namespace, name)?;
                let text = object.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
                let binary = object.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
                Some(text.chain(binary).collect())
            }
            Source::Secret(informer) => {
                let object = informer.get(namespace, name)?;
                Some(object.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect())
            }
        }
    }

    /// A pod that is over is not woken any more.
    pub fn forget(&self, uid: &str) {
        self.subscribers.lock().remove(uid);
    }
}
