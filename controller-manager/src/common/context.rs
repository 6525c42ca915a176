//! What every controller is given, and how its reconciles fail.

use std::sync::Arc;

use client::{EventRecorder, Informer, Informers, Outcome, Queue, Scope, Watched};
use jiff::Timestamp;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::Config;

/// What every controller is given. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    pub client: Client,
    pub informers: Informers,
    pub config: Arc<Config>,
    pub shutdown: CancellationToken,
}

/// Why a reconcile failed. Each is retried with back-off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// The API server refused or could not be reached.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// An object says something that cannot be followed; an edit of the object helps.
    #[error("{0}")]
    Unusable(String),
}

/// The end of a reconcile.
pub(crate) type Reconciled = Result<Outcome, ReconcileError>;

impl Context {
    /// The informer over all objects of a kind.
    pub fn all<K: Watched>(&self) -> Informer<K>
    where
        K::DynamicType: Default,
    {
        self.informers.get(Scope::all())
    }

    pub fn recorder(&self, component: &str) -> EventRecorder {
        EventRecorder::new(self.client.clone(), component, None, self.shutdown.clone())
    }

    pub fn queue<K: client::queue::Key>(&self, name: &'static str) -> Queue<K> {
        Queue::new(name, self.shutdown.clone())
    }

    /// The API of a namespaced kind in one namespace.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The API of a cluster-scoped kind.
    pub fn cluster_api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = ()>,
    {
        Api::all(self.client.clone())
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
