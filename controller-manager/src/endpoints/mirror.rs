//! Slices that mirror Endpoints which people wrote for services without a selector. Pure.

use std::sync::Arc;

use client::owner::controller_ref;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::ResourceExt;

use super::backends::Group;
use super::slices::{self, Plan, SliceMeta};

pub(super) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const MIRRORED_MAX: usize = 1000;

pub(super) fn decide(
    service: Option<&Service>,
    endpoints: Option<&Endpoints>,
    existing: &[Arc<EndpointSlice>],
) -> Plan {
    let (Some(service), Some(endpoints)) = (service, endpoints) else {
        return Plan { delete: existing.to_vec(), ..Plan::default() };
    };
    let mirrored = super::selector_of(service).is_none()
        && endpoints.labels().get(SKIP).map(String::as_str) != Some("true")
        && !endpoints.annotations().contains_key(LEADER);
    if !mirrored {
        return Plan { delete: existing.to_vec(), ..Plan::default() };
    }
    let meta = SliceMeta::managed_by(MANAGER, service, endpoints.labels().clone(), controller_ref(endpoints));
    let groups = endpoints.subsets.iter().flatten().flat_map(groups_of).collect();
    slices::plan(&meta, groups, existing)
}

fn groups_of(subset: &EndpointSubset) -> Vec<Group> {
    let ports: Vec<EndpointPort> = subset
        .ports
        .iter()
        .flatten()
        .map(|port| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    let ready = subset.addresses.iter().flatten().map(|address| endpoint_of(address, true));
    let unready = subset.not_ready_addresses.iter().flatten().map(|address| endpoint_of(address, false));
    let endpoints: Vec<Endpoint> = ready.chain(unready).take(MIRRORED_MAX).collect();
    let (v6, v4): (Vec<_>, Vec<_>) = endpoints
        .into_iter()
        .partition(|endpoint| endpoint.addresses.first().is_some_and(|address| address.contains(':')));
    let group = |address_type, endpoints| Group { address_type, ports: ports.clone(), endpoints };
    [group("IPv4", v4), group("IPv6", v6)].into_iter().filter(|group| !group.endpoints.is_empty()).collect()
}

fn endpoint_of(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn endpoints() -> Endpoints {
        serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "default", "uid": "e"},
            "subsets": [{"addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}], "ports": [{"port": 5432}]}]
        }))
        .unwrap()
    }

    fn service(spec: serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "db", "namespace": "default"}, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn hand_written_endpoints_are_mirrored_by_family() {
        let plan = decide(Some(&service(json!({}))), Some(&endpoints()), &[]);
        let families: Vec<_> = plan.create.iter().map(|slice| slice.address_type.as_str()).collect();
        assert_eq!(families, ["IPv4", "IPv6"]);
        let existing: Vec<_> = plan.create.into_iter().map(Arc::new).collect();
        let gone = decide(None, None, &existing);
        assert_eq!(gone.delete.len(), 2);
    }

    #[test]
    fn endpoints_of_services_with_a_selector_are_not_mirrored() {
        let selecting = service(json!({"selector": {"app": "db"}}));
        assert!(decide(Some(&selecting), Some(&endpoints()), &[]).create.is_empty());
        let mut skipped = endpoints();
        skipped.labels_mut().insert(SKIP.into(), "true".into());
        assert!(decide(Some(&service(json!({}))), Some(&skipped), &[]).create.is_empty());
    }
}
