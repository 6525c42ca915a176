//! Which pods stand behind a service, at which addresses and ports. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::common::pods;

/// Endpoints that share an address family and ports, and so may share slices.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    pub address_type: &'static str,
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
}

/// Whether a change of a pod can change any endpoint.
pub(super) fn matters(old: &Pod, new: &Pod) -> bool {
    let facts = |pod: &Pod| {
        let status = pod.status.as_ref();
        (
            status.and_then(|status| status.pod_ip.clone()),
            status.and_then(|status| status.pod_ips.clone()),
            pods::is_ready(pod),
            pods::is_finished(pod),
            pods::is_terminating(pod),
            pods::node_name(pod).to_string(),
            pod.uid(),
        )
    };
    old.metadata.labels != new.metadata.labels || facts(old) != facts(new)
}

/// The address families of a service, the primary first.
pub(super) fn address_types(service: &Service) -> Vec<&'static str> {
    let spec = service.spec.as_ref();
    let families: Vec<&'static str> = spec
        .iter()
        .flat_map(|spec| spec.ip_families.iter().flatten())
        .map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" })
        .collect();
    if !families.is_empty() {
        return families;
    }
    let address = spec.and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    vec![if address.contains(':') { "IPv6" } else { "IPv4" }]
}

pub(super) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

pub(super) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// The endpoints of a service, grouped. Every family has at least one group, if only an empty one.
pub(super) fn groups(
    service: &Service,
    pods: &[Arc<Pod>],
    zone_of: impl Fn(&str) -> Option<String>,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for address_type in address_types(service) {
        let before = groups.len();
        for pod in pods.iter().filter(|pod| !pods::is_finished(pod)) {
            let Some(address) = address_of(pod, address_type) else { continue };
            let ports = ports_of(service, pod);
            let mut endpoint = endpoint_of(service, pod, address);
            endpoint.zone = endpoint.node_name.as_deref().and_then(&zone_of);
            let known = groups
                .iter_mut()
                .skip(before)
                .find(|group| group.address_type == address_type && group.ports == ports);
            match known {
                Some(group) => group.endpoints.push(endpoint),
                None => groups.push(Group { address_type, ports, endpoints: vec![endpoint] }),
            }
        }
        if groups.len() == before {
            groups.push(Group { address_type, ports: Vec::new(), endpoints: Vec::new() });
        }
    }
    groups
}

/// The pod's address of a family.
pub(super) fn address_of(pod: &Pod, address_type: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let listed = status.pod_ips.iter().flatten().map(|entry| entry.ip.as_str());
    let wants_v6 = address_type == "IPv6";
    listed
        .chain(status.pod_ip.as_deref())
        .find(|address| !address.is_empty() && address.contains(':') == wants_v6)
        .map(Into::into)
}

fn endpoint_of(service: &Service, pod: &Pod, address: String) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = pods::is_terminating(pod);
    let ready = publishes_not_ready(service) || (serving && !terminating);
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname_of(service, pod),
        node_name: Some(pods::node_name(pod).to_string()).filter(|name| !name.is_empty()),
        target_ref: Some(reference_to(pod)),
        ..Endpoint::default()
    }
}

/// A pod that names the service as its subdomain gets a DNS name of its own.
pub(super) fn hostname_of(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let subdomain = spec.subdomain.as_deref().unwrap_or_default();
    spec.hostname.clone().filter(|name| !name.is_empty() && subdomain == service.name_any())
}

pub(super) fn reference_to(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The service's ports as this pod serves them; a named port that the pod lacks is left out.
pub(super) fn ports_of(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target_port(port, pod)?),
                protocol: Some(protocol(port.protocol.as_deref()).into()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn protocol(text: Option<&str>) -> &str {
    text.unwrap_or("TCP")
}

fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let named = |container: &Container| {
        let ports = container.ports.iter().flatten();
        ports
            .filter(|known| known.name.as_deref() == Some(name))
            .find(|known| protocol(known.protocol.as_deref()) == protocol(port.protocol.as_deref()))
            .map(|known| known.container_port)
    };
    spec.containers.iter().chain(sidecars).find_map(named)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::testing::{at, ready_pod, running_pod};

    fn service(target: serde_json::Value) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.9", "selector": {"app": "web"},
                     "ports": [{"name": "http", "port": 80, "targetPort": target}]}
        }))
        .unwrap()
    }

    fn with_address(mut pod: Pod, address: &str) -> Arc<Pod> {
        pod.status.get_or_insert_default().pod_ip = Some(address.into());
        Arc::new(pod)
    }

    fn conditions(endpoint: &Endpoint) -> (bool, bool, bool) {
        let conditions = endpoint.conditions.as_ref().unwrap();
        (conditions.ready.unwrap(), conditions.serving.unwrap(), conditions.terminating.unwrap())
    }

    #[test]
    fn a_terminating_pod_serves_on_but_is_not_ready() {
        let mut leaving = ready_pod("leaving", "n", at(0));
        leaving.metadata.deletion_timestamp = Some(Time(at(1)));
        let pods = [
            with_address(ready_pod("ready", "n", at(0)), "10.0.0.1"),
            with_address(running_pod("starting", "n"), "10.0.0.2"),
            with_address(leaving, "10.0.0.3"),
            Arc::new(running_pod("no-address", "n")),
        ];
        let mut web = service(json!(8080));
        let groups_now = groups(&web, &pods, |_| None);
        let states: Vec<_> = groups_now[0].endpoints.iter().map(conditions).collect();
        assert_eq!(states, [(true, true, false), (false, false, false), (false, true, true)]);
        web.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        let published = groups(&web, &pods, |_| None);
        assert!(published[0].endpoints.iter().all(|endpoint| conditions(endpoint).0));
    }

    #[test]
    fn pods_that_name_different_ports_fall_into_different_groups() {
        let named = |name: &str, address: &str, port: i32| {
            let mut pod = ready_pod(name, "n", at(0));
            let container = json!({"name": "c", "ports": [{"name": "http", "containerPort": port}]});
            pod.spec.as_mut().unwrap().containers = vec![serde_json::from_value(container).unwrap()];
            with_address(pod, address)
        };
        let pods = [named("a", "10.0.0.1", 80), named("b", "10.0.0.2", 8080), named("c", "10.0.0.3", 80)];
        let groups = groups(&service(json!("http")), &pods, |_| None);
        let sizes: Vec<_> =
            groups.iter().map(|group| (group.ports[0].port.unwrap(), group.endpoints.len())).collect();
        assert_eq!(sizes, [(80, 2), (8080, 1)]);
    }

    #[test]
    fn hostnames_appear_only_under_the_services_own_subdomain() {
        let mut pod = ready_pod("web-0", "n", at(0));
        let spec = pod.spec.as_mut().unwrap();
        spec.hostname = Some("web-0".into());
        spec.subdomain = Some("web".into());
        assert_eq!(hostname_of(&service(json!(1)), &pod).as_deref(), Some("web-0"));
        pod.spec.as_mut().unwrap().subdomain = Some("other".into());
        assert_eq!(hostname_of(&service(json!(1)), &pod), None);
    }
}
