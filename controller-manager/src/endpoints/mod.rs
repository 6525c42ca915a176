//! Endpoint slices and endpoints of services.
//!
//! Three reconcilers: slices of services with a selector, the older Endpoints objects of the same services, and slices
//! mirrored from Endpoints that people wrote for services without a selector. A terminating pod stays in the slices, not
//! ready but serving, so that proxies can fall back to it. Slices have names computed from their contents' group, so a stale
//! cache leads to "already exists" and a retry, never to a second slice.
//! Deliberately absent: topology hints; Endpoints of more than 1000 addresses are cut, as upstream does.

mod backends;
mod legacy;
mod mirror;
mod slices;

use std::sync::Arc;

use client::{Change, Index, Informer, ObjectKey, Outcome, Queue, queue};
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};

use crate::common::{Context, Reconciled, pods};

pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";
const WORKERS: usize = 5;

/// Runs all three until shutdown.
pub(crate) async fn run(context: Context) {
    let services = context.all::<Service>();
    let pods = context.all::<Pod>();
    let nodes = context.all::<Node>();
    let slices = context.all::<EndpointSlice>();
    let endpoints = context.all::<Endpoints>();
    let by_service = slices.index("service", |slice: &EndpointSlice| vec![service_key_of(slice).to_string()]);
    let synced = services.synced().await && pods.synced().await && nodes.synced().await;
    if !(synced && slices.synced().await && endpoints.synced().await) {
        return;
    }
    let slice_queue = context.queue("endpointslice");
    let legacy_queue = context.queue("endpoints");
    let mirror_queue = context.queue("endpointslice-mirroring");
    watch_services(&services, &[&slice_queue, &legacy_queue, &mirror_queue]);
    watch_pods(&pods, &services, &[&slice_queue, &legacy_queue]);
    let queues = (slice_queue.clone(), mirror_queue.clone());
    slices.on_change(move |change| {
        // Our own writes come back, too; they find nothing to do.
        let manager = change.object().labels().get(MANAGED_BY).map(String::as_str);
        match manager {
            Some(slices::MANAGER) => queues.0.add(service_key_of(change.object())),
            Some(mirror::MANAGER) => queues.1.add(service_key_of(change.object())),
            _ => {}
        }
    });
    let queues = (legacy_queue.clone(), mirror_queue.clone());
    endpoints.on_change(move |change| {
        let key = ObjectKey::of(change.object().as_ref());
        queues.0.add(key.clone());
        queues.1.add(key);
    });
    let shell = Arc::new(Shell { context, services, pods, nodes, by_service, endpoints });
    tokio::join!(
        queue::run_on(slice_queue, WORKERS, shell.clone(), Shell::reconcile_slices),
        queue::run_on(legacy_queue, WORKERS, shell.clone(), Shell::reconcile_endpoints),
        queue::run_on(mirror_queue, 1, shell, Shell::reconcile_mirror),
    );
}

fn service_key_of(slice: &EndpointSlice) -> ObjectKey {
    let name = slice.labels().get(SERVICE_NAME).cloned().unwrap_or_default();
    ObjectKey::new(slice.namespace().unwrap_or_default(), name)
}

fn watch_services(services: &Informer<Service>, queues: &[&Queue<ObjectKey>]) {
    let queues: Vec<Queue<ObjectKey>> = queues.iter().map(|queue| (*queue).clone()).collect();
    services.on_change(move |change| {
        let key = ObjectKey::of(change.object().as_ref());
        for queue in &queues {
            queue.add(key.clone());
        }
    });
}

fn watch_pods(pods: &Informer<Pod>, services: &Informer<Service>, queues: &[&Queue<ObjectKey>]) {
    let queues: Vec<Queue<ObjectKey>> = queues.iter().map(|queue| (*queue).clone()).collect();
    let services = services.clone();
    pods.on_change(move |change| {
        if let Change::Modified { old, new } = change
            && !backends::matters(old, new)
        {
            return;
        }
        let namespace = change.object().namespace().unwrap_or_default();
        for service in services.list_namespace(&namespace) {
            let Some(selector) = selector_of(&service) else { continue };
            let before = change.old().is_some_and(|pod| selector.matches(pods::labels(pod)));
            if before || selector.matches(pods::labels(change.object())) {
                for queue in &queues {
                    queue.add(ObjectKey::of(service.as_ref()));
                }
            }
        }
    });
}

/// The selector of a service that has one; the others' endpoints are not ours.
fn selector_of(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
    Some(selector.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
}

struct Shell {
    context: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    by_service: Index<EndpointSlice>,
    endpoints: Informer<Endpoints>,
}

impl Shell {
    fn selected_pods(&self, namespace: &str, selector: &Selector) -> Vec<Arc<Pod>> {
        let mut pods = self.pods.list_namespace(namespace);
        pods.retain(|pod| selector.matches(pods::labels(pod)));
        pods
    }

    fn zone_of(&self, node: &str) -> Option<String> {
        self.nodes.get("", node)?.labels().get("topology.kubernetes.io/zone").cloned()
    }

    fn existing(&self, key: &ObjectKey, manager: &str) -> Vec<Arc<EndpointSlice>> {
        let mut all = self.by_service.get(&key.to_string());
        all.retain(|slice| slice.labels().get(MANAGED_BY).map(String::as_str) == Some(manager));
        all
    }

    async fn reconcile_slices(self: Arc<Self>, key: ObjectKey) -> Reconciled {
        let key = &key;
        let Some(service) = self.services.get_key(key) else { return Ok(Outcome::Done) };
        // Slices of a service that is gone, or going, belong to the garbage collector.
        let Some(selector) = selector_of(&service).filter(|_| service.metadata.deletion_timestamp.is_none())
        else {
            return Ok(Outcome::Done);
        };
        let pods = self.selected_pods(&key.namespace, &selector);
        let groups = backends::groups(&service, &pods, |node| self.zone_of(node));
        let existing = self.existing(key, slices::MANAGER);
        let meta = slices::SliceMeta::of_service(&service);
        slices::apply(&self.context.api(&key.namespace), slices::plan(&meta, groups, &existing)).await
    }

    async fn reconcile_endpoints(self: Arc<Self>, key: ObjectKey) -> Reconciled {
        let key = &key;
        let service = self.services.get_key(key);
        let existing = self.endpoints.get_key(key);
        let selector = service.as_deref().and_then(selector_of);
        let pods = selector.map(|selector| self.selected_pods(&key.namespace, &selector));
        let action = legacy::decide(service.as_deref(), pods.as_deref(), existing);
        legacy::apply(&self.context.api(&key.namespace), key, action).await
    }

    async fn reconcile_mirror(self: Arc<Self>, key: ObjectKey) -> Reconciled {
        let key = &key;
        let service = self.services.get_key(key);
        let endpoints = self.endpoints.get_key(key);
        let existing = self.existing(key, mirror::MANAGER);
        let plan = mirror::decide(service.as_deref(), endpoints.as_deref(), &existing);
        slices::apply(&self.context.api(&key.namespace), plan).await
    }
}
