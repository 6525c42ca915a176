//! Where the zone looks services and endpoints up.

use std::sync::Arc;

use client::{Index, Informer, Informers, Scope};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Says which service a slice belongs to.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// What the zone needs to know of the cluster.
pub(super) trait Directory {
    /// A service.
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    /// The endpoint slices of a service.
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>>;
    /// Whether a namespace has a service.
    fn has_services(&self, namespace: &str) -> bool;
    /// The services at an address.
    fn services_at(&self, address: &str) -> Vec<Arc<Service>>;
    /// The slices with an endpoint at an address.
    fn slices_at(&self, address: &str) -> Vec<Arc<EndpointSlice>>;
}

/// The directory of a running cluster.
pub(super) struct InformerDirectory {
    services: Informer<Service>,
    services_by_address: Index<Service>,
    slices_informer: Informer<EndpointSlice>,
    slices_by_service: Index<EndpointSlice>,
    slices_by_address: Index<EndpointSlice>,
}

impl InformerDirectory {
    pub(super) fn new(informers: &Informers) -> Self {
        let services = informers.get::<Service>(Scope::all());
        let slices_informer = informers.get::<EndpointSlice>(Scope::all());
        Self {
            services_by_address: services.index("cluster-ip", |service| {
                service.spec.as_ref().and_then(|spec| spec.cluster_ips.clone()).unwrap_or_default()
            }),
            slices_by_service: slices_informer.index("service", |slice| vec![service_key(slice)]),
            slices_by_address: slices_informer.index("endpoint-ip", |slice| {
                slice.endpoints.iter().flatten().flat_map(|e| e.addresses.iter().cloned()).collect()
            }),
            services,
            slices_informer,
        }
    }

    /// Waits until the first complete lists are there. False: they never will be.
    pub(super) async fn synced(&self) -> bool {
        self.services.synced().await && self.slices_informer.synced().await
    }

    /// Whether they are there.
    pub(super) fn is_synced(&self) -> bool {
        self.services.is_synced() && self.slices_informer.is_synced()
    }
}

fn service_key(slice: &EndpointSlice) -> String {
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    let service = service_of(slice).unwrap_or_default();
    format!("{namespace}/{service}")
}

/// The name of the service that a slice belongs to.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL).map(String::as_str)
}

impl Directory for InformerDirectory {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(namespace, name)
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices_by_service.get(&format!("{namespace}/{service}"))
    }

    fn has_services(&self, namespace: &str) -> bool {
        !self.services.list_namespace(namespace).is_empty()
    }

    fn services_at(&self, address: &str) -> Vec<Arc<Service>> {
        self.services_by_address.get(address)
    }

    fn slices_at(&self, address: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices_by_address.get(address)
    }
}
