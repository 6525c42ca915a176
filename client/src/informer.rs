//! Shared informers: one list-and-watch per kind, scope and selector, with its objects shared by all readers.
//!
//! Guarantees: readers see the objects of one watch in its order; a handler runs after the cache has changed; after
//! [`Informer::synced`] returns, the cache held a complete list once. Objects are shared, never copied, and carry no
//! `managedFields`. A watch lives as long as a handle to it (informer, index or subscription) does.
//! Handlers run in the watch's task: they must be quick, must not block, and must not register further handlers.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Weak};

use kube::{Client, Resource};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cache::{Cache, Index};
use crate::changes::{Change, Changes, Mailbox};
use crate::key::ObjectKey;
use crate::owner;
use crate::queue::{self, Queue};
use crate::reflector;

/// A kind that can be listed and watched.
pub trait Watched: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}
impl<K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Watched for K {}

/// Which objects of a kind an informer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    pub(crate) namespace: Option<String>,
    pub(crate) labels: Option<String>,
    pub(crate) fields: Option<String>,
}

impl Scope {
    /// Every object of the kind.
    pub fn all() -> Self {
        Self::default()
    }

    /// The objects of one namespace.
    pub fn namespace(namespace: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), ..Self::default() }
    }

    /// Only objects that the label selector matches, such as `app=web,tier!=db`.
    #[must_use]
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.labels = Some(selector.into());
        self
    }

    /// Only objects that the field selector matches, such as `spec.nodeName=n1`.
    #[must_use]
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.fields = Some(selector.into());
        self
    }
}

/// Everything that a process watches through one client. Cheap to clone.
#[derive(Clone)]
pub struct Informers {
    shared: Arc<InformersShared>,
}

struct InformersShared {
    client: Client,
    shutdown: CancellationToken,
    handles: Mutex<HashMap<HandleKey, AnyHandle>>,
}

/// The type, its path on the server and the selectors.
type HandleKey = (TypeId, String, Scope);
/// A `Weak<Handle<K>>`.
type AnyHandle = Box<dyn Any + Send>;

impl Informers {
    /// Informers that read through `client` until `shutdown`.
    pub fn new(client: Client, shutdown: CancellationToken) -> Self {
        Self { shared: Arc::new(InformersShared { client, shutdown, handles: Mutex::default() }) }
    }

    /// The client that the informers read through.
    pub fn client(&self) -> Client {
        self.shared.client.clone()
    }

    /// The informer for a kind known at compile time; starts its watch with the first call for the scope.
    /// Must be called within a tokio runtime.
    pub fn get<K: Watched>(&self, scope: Scope) -> Informer<K>
    where
        K::DynamicType: Default,
    {
        self.get_with(&K::DynamicType::default(), scope)
    }

    /// The informer for a kind known at run time, such as [`kube::core::DynamicObject`] or
    /// [`kube::core::PartialObjectMeta`] with an [`kube::core::ApiResource`].
    pub fn get_with<K: Watched>(&self, kind: &K::DynamicType, scope: Scope) -> Informer<K> {
        let path = K::url_path(kind, scope.namespace.as_deref());
        let mut handles = self.shared.handles.lock();
        let entry = (TypeId::of::<K>(), path.clone(), scope.clone());
        if let Some(handle) = handles.get(&entry).and_then(|any| any.downcast_ref::<Weak<Handle<K>>>())
            && let Some(handle) = handle.upgrade()
        {
            return Informer { handle };
        }
        let stop = self.shared.shutdown.child_token();
        let shared = Arc::new(Shared::new(stop.clone()));
        tokio::spawn(reflector::run(self.shared.client.clone(), path, scope, shared.clone()));
        let handle = Arc::new(Handle { shared, _stop: stop.drop_guard() });
        handles.retain(|_, any| {
            any.downcast_ref::<Weak<Handle<K>>>().is_none_or(|weak| weak.strong_count() > 0)
        });
        handles.insert(entry, Box::new(Arc::downgrade(&handle)));
        Informer { handle }
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

pub(crate) struct Shared<K> {
    cache: RwLock<Cache<K>>,
    /// Held while a change is applied and handed out, so that a new handler misses nothing and sees nothing twice.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
    pub(crate) stop: CancellationToken,
}

struct Handle<K> {
    shared: Arc<Shared<K>>,
    _stop: DropGuard,
}

impl<K> Shared<K> {
    fn new(stop: CancellationToken) -> Self {
        Self { cache: RwLock::default(), handlers: Mutex::default(), synced: watch::Sender::new(false), stop }
    }
}

impl<K: Resource> Shared<K> {
    pub(crate) fn upsert(&self, object: K) {
        self.change(|cache| cache.upsert(Arc::new(object)));
    }

    pub(crate) fn remove(&self, object: K) {
        let key = ObjectKey::of(&object);
        self.change(|cache| cache.remove(&key, Some(Arc::new(object))));
    }

    /// Takes over a complete list: everything that it lacks was deleted while nobody watched.
    pub(crate) fn replace(&self, objects: Vec<K>) {
        let present: std::collections::HashSet<ObjectKey> = objects.iter().map(ObjectKey::of).collect();
        let known = self.cache.read().keys();
        for key in known.into_iter().filter(|key| !present.contains(key)) {
            self.change(|cache| cache.remove(&key, None));
        }
        for object in objects {
            self.upsert(object);
        }
        self.synced.send_replace(true);
    }

    fn change(&self, apply: impl FnOnce(&mut Cache<K>) -> Option<Change<K>>) {
        let handlers = self.handlers.lock();
        let Some(change) = apply(&mut self.cache.write()) else { return };
        for handler in handlers.iter() {
            handler(&change);
        }
    }
}

/// A shared view of the objects of one kind and scope. Cheap to clone.
pub struct Informer<K> {
    handle: Arc<Handle<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone() }
    }
}

impl<K> Informer<K> {
    pub(crate) async fn stopped(&self) {
        self.handle.shared.stop.cancelled().await;
    }
}

impl<K: Resource + 'static> Informer<K> {
    /// Waits until a complete list has been taken over. Returns false when the informers shut down before.
    pub async fn synced(&self) -> bool {
        let mut synced = self.handle.shared.synced.subscribe();
        tokio::select! {
            result = synced.wait_for(|done| *done) => result.is_ok(),
            () = self.stopped() => false,
        }
    }

    /// Whether a complete list has been taken over.
    pub fn is_synced(&self) -> bool {
        *self.handle.shared.synced.borrow()
    }

    /// All objects, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read(Cache::list)
    }

    /// The objects of one namespace, ordered by name.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read(|cache| cache.list_namespace(namespace))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read(Cache::len)
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One object; the namespace is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get_key(&ObjectKey::new(namespace, name))
    }

    /// One object by its key.
    pub fn get_key(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.read(|cache| cache.get(key))
    }

    /// An index over the objects. The first function given for a name stays; it must depend on the object alone.
    pub fn index(
        &self,
        name: &'static str,
        compute: impl Fn(&K) -> Vec<String> + Send + Sync + 'static,
    ) -> Index<K> {
        self.handle.shared.cache.write().add_index(name, Arc::new(compute));
        Index { informer: self.clone(), name }
    }

    /// The index by UID of the controlling owner. Objects without one are under the empty value.
    pub fn by_controller(&self) -> Index<K> {
        self.index("controller-uid", |object| {
            vec![owner::controller_of(object).map(|reference| reference.uid.clone()).unwrap_or_default()]
        })
    }

    /// Calls `handler` for everything known now, as added, and then for every change, in order.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut handlers = self.handle.shared.handlers.lock();
        for object in self.list() {
            handler(&Change::Added(object));
        }
        handlers.push(Box::new(handler));
    }

    /// Adds a key of everything known now, and of every object that changes, to a queue.
    pub fn feed<Q: queue::Key>(&self, queue: &Queue<Q>, key_of: impl Fn(&K) -> Q + Send + Sync + 'static) {
        let queue = queue.clone();
        self.on_change(move |change| queue.add(key_of(change.object())));
    }

    /// A subscription that begins with everything known now, as added, and loses no event: changes of one object
    /// coalesce while the reader is busy. Keep it, and read it, or drop it.
    pub fn subscribe(&self) -> Changes<K>
    where
        K: Send + Sync,
    {
        let mailbox = Arc::new(Mailbox::default());
        let weak = Arc::downgrade(&mailbox);
        self.on_change(move |change| {
            if let Some(mailbox) = weak.upgrade() {
                mailbox.put(change);
            }
        });
        Changes { mailbox, informer: self.clone() }
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&Cache<K>) -> T) -> T {
        look(&self.handle.shared.cache.read())
    }
}

impl Informer<k8s_openapi::api::core::v1::Pod> {
    /// The index of pods by the node they are bound to; unbound pods are under the empty value.
    pub fn by_node(&self) -> Index<k8s_openapi::api::core::v1::Pod> {
        self.index("node", |pod| {
            vec![pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()]
        })
    }
}
