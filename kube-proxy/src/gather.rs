//! From API objects to [`ServicePort`]s.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort as ApiPort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};

use crate::model::{Endpoint, Protocol, ServicePort, Target};

/// Services with this label are looked after by somebody else.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Services with this label have no cluster address.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Says which service a slice belongs to.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const AFFINITY_SECONDS_DEFAULT: i32 = 10_800;

/// All service ports that this proxy is responsible for, in a stable order.
#[must_use]
pub fn gather(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>], node: &str) -> Vec<ServicePort> {
    let mut by_service: HashMap<(&str, &str), Vec<&EndpointSlice>> = HashMap::new();
    for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(service) = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME_LABEL)) {
            by_service.entry((namespace, service)).or_default().push(slice);
        }
    }
    let mut ports = Vec::new();
    for service in services.iter().filter(|service| is_ours(service)) {
        let Some(spec) = &service.spec else { continue };
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let slices = by_service.get(&(namespace, name)).map(Vec::as_slice).unwrap_or_default();
        for port in spec.ports.iter().flatten() {
            let full_name = format!("{namespace}/{name}:{}", port.name.as_deref().unwrap_or_default());
            ports.extend(service_port(service, spec, port, full_name, slices, node));
        }
    }
    ports
}

/// Cluster addresses of services that somebody else looks after: they are not for us to refuse.
#[must_use]
pub fn foreign_addresses(services: &[Arc<Service>]) -> Vec<Ipv4Addr> {
    let foreign = services
        .iter()
        .filter(|s| s.metadata.labels.as_ref().is_some_and(|l| l.contains_key(PROXY_NAME_LABEL)));
    foreign.filter_map(|service| service.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok()).collect()
}

fn is_ours(service: &Service) -> bool {
    let labelled = |label| service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(label));
    let spec = service.spec.as_ref();
    let is_name = spec.and_then(|s| s.type_.as_deref()) == Some("ExternalName");
    let has_address =
        spec.and_then(|s| s.cluster_ip.as_deref()).is_some_and(|ip| !ip.is_empty() && ip != "None");
    has_address && !is_name && !labelled(PROXY_NAME_LABEL) && !labelled(HEADLESS_LABEL)
}

fn service_port(
    service: &Service,
    spec: &ServiceSpec,
    port: &ApiPort,
    name: String,
    slices: &[&EndpointSlice],
    node: &str,
) -> Option<ServicePort> {
    let protocol = Protocol::parse(port.protocol.as_deref())?;
    let addresses = |texts: &[String]| texts.iter().filter_map(|t| t.parse().ok()).collect::<Vec<Ipv4Addr>>();
    let mut cluster_ips = addresses(spec.cluster_ips.as_deref().unwrap_or_default());
    cluster_ips.extend(spec.cluster_ip.as_ref().and_then(|ip| ip.parse::<Ipv4Addr>().ok()));
    cluster_ips.sort_unstable();
    cluster_ips.dedup();
    let mut external_ips = addresses(spec.external_ips.as_deref().unwrap_or_default());
    external_ips.sort_unstable();
    external_ips.dedup();
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
    let seconds = || {
        let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
        config.and_then(|c| c.timeout_seconds).unwrap_or(AFFINITY_SECONDS_DEFAULT)
    };
    Some(ServicePort {
        name,
        protocol,
        port: u16::try_from(port.port).ok()?,
        cluster_ips,
        external_ips,
        balancer_ips: balancer_ips(service).collect(),
        source_ranges: ranges.iter().filter_map(|range| range.trim().parse().ok()).collect(),
        node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0),
        affinity_seconds: sticky.then(|| u32::try_from(seconds()).unwrap_or(1).max(1)),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        endpoints: endpoints(slices, port, protocol, node),
    })
}

/// Addresses of load balancers that send packets as they are; one in mode `Proxy` is a client like any other.
fn balancer_ips(service: &Service) -> impl Iterator<Item = Ipv4Addr> {
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = balancer.and_then(|b| b.ingress.as_deref()).unwrap_or_default().iter();
    ingress.filter(|i| i.ip_mode.as_deref() != Some("Proxy")).filter_map(|i| i.ip.as_ref()?.parse().ok())
}

fn endpoints(slices: &[&EndpointSlice], port: &ApiPort, protocol: Protocol, node: &str) -> Vec<Endpoint> {
    let wanted = port.name.as_deref().unwrap_or_default();
    let mut endpoints = Vec::new();
    for slice in slices {
        let matching = slice.ports.iter().flatten().find(|p| {
            p.name.as_deref().unwrap_or_default() == wanted
                && Protocol::parse(p.protocol.as_deref()) == Some(protocol)
        });
        let Some(number) = matching.and_then(|p| p.port).and_then(|p| u16::try_from(p).ok()) else {
            continue;
        };
        endpoints.extend(slice.endpoints.iter().flatten().filter_map(|e| endpoint(e, number, node)));
    }
    // While an endpoint moves from one slice to another it may be in both; the ready one counts.
    endpoints.sort_by_key(|e| (e.target, !e.ready));
    endpoints.dedup_by(|a, b| a.target == b.target);
    endpoints
}

fn endpoint(endpoint: &ApiEndpoint, port: u16, node: &str) -> Option<Endpoint> {
    let address = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let hints = endpoint.hints.as_ref();
    let zones = hints.and_then(|h| h.for_zones.as_deref()).unwrap_or_default();
    let nodes = hints.and_then(|h| h.for_nodes.as_deref()).unwrap_or_default();
    Some(Endpoint {
        target: Target { address, port },
        ready,
        serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        local: endpoint.node_name.as_deref() == Some(node),
        zones: zones.iter().map(|z| z.name.clone()).collect(),
        nodes: nodes.iter().map(|n| n.name.clone()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(extra: serde_json::Value) -> Arc<Service> {
        let mut object = json!({
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "clusterIP": "10.96.0.7", "ports": [{ "name": "http", "port": 80, "nodePort": 30080 }] },
        });
        for (key, value) in extra.as_object().unwrap() {
            for (field, value) in value.as_object().unwrap() {
                object[key][field] = value.clone();
            }
        }
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn slice(endpoints: serde_json::Value) -> Arc<EndpointSlice> {
        let object = json!({
            "metadata": { "name": "web-1", "namespace": "default", "labels": { SERVICE_NAME_LABEL: "web" } },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }, { "name": "dns", "port": 53, "protocol": "UDP" }],
            "endpoints": endpoints,
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_service_should_find_its_endpoints_by_port_name() {
        let slices = [
            slice(
                json!([{ "addresses": ["10.244.0.5"], "nodeName": "n1" }, { "addresses": ["10.244.1.5"], "conditions": { "ready": false } }]),
            ),
            slice(json!([{ "addresses": ["10.244.1.5"], "conditions": { "ready": true } }])),
        ];
        let ports = gather(&[service(json!({}))], &slices, "n1");
        assert_eq!(ports.len(), 1);
        assert_eq!(ports[0].name, "default/web:http");
        assert_eq!(ports[0].node_port, Some(30080));
        let found: Vec<_> = ports[0]
            .endpoints
            .iter()
            .map(|e| (e.target.address.octets()[2], e.target.port, e.ready, e.local))
            .collect();
        assert_eq!(found, [(0, 8080, true, true), (1, 8080, true, false)]);
    }

    #[test]
    fn headless_named_and_foreign_services_should_be_left_alone() {
        for extra in [
            json!({ "spec": { "clusterIP": "None" } }),
            json!({ "spec": { "type": "ExternalName" } }),
            json!({ "metadata": { "labels": { PROXY_NAME_LABEL: "other" } } }),
        ] {
            assert!(gather(&[service(extra)], &[], "n1").is_empty());
        }
    }

    #[test]
    fn affinity_policies_and_balancers_should_be_read() {
        let extra = json!({
            "spec": { "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local", "externalIPs": ["1.2.3.4"], "loadBalancerSourceRanges": ["192.0.2.0/24"] },
            "status": { "loadBalancer": { "ingress": [{ "ip": "5.6.7.8" }, { "ip": "9.9.9.9", "ipMode": "Proxy" }] } },
        });
        let ports = gather(&[service(extra)], &[], "n1");
        assert_eq!(ports[0].affinity_seconds, Some(10_800));
        assert!(ports[0].external_local && !ports[0].internal_local);
        assert_eq!(ports[0].external_ips, [Ipv4Addr::new(1, 2, 3, 4)]);
        assert_eq!(ports[0].balancer_ips, [Ipv4Addr::new(5, 6, 7, 8)]);
        assert_eq!(ports[0].source_ranges, ["192.0.2.0/24".parse().unwrap()]);
    }
}
