//! The Endpoints object of a service: the same facts in the older shape. The decision is pure.

use std::sync::Arc;

use client::patch::update;
use client::{ErrorExt, Forgive, ObjectKey, Outcome};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use kube::api::{DeleteParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, ResourceExt};

use super::HEADLESS;
use super::backends::{
    address_of, address_types, hostname_of, is_headless, ports_of, publishes_not_ready, reference_to,
};
use crate::common::{Reconciled, pods};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const ADDRESSES_MAX: usize = 1000;

#[derive(Debug)]
pub(super) enum Action {
    Nothing,
    Create(Box<Endpoints>),
    Update(Arc<Endpoints>, Box<Endpoints>),
    Delete,
}

/// `pods` are those that the service selects; `None` when it has no selector.
pub(super) fn decide(
    service: Option<&Service>,
    pods: Option<&[Arc<Pod>]>,
    existing: Option<Arc<Endpoints>>,
) -> Action {
    let Some(service) = service else {
        // What people wrote without a service is theirs.
        return match existing.filter(|endpoints| endpoints.labels().contains_key(MANAGED_BY)) {
            Some(_) => Action::Delete,
            None => Action::Nothing,
        };
    };
    let Some(pods) = pods.filter(|_| service.metadata.deletion_timestamp.is_none()) else {
        return Action::Nothing;
    };
    let mut subsets = subsets_of(service, pods);
    let cut = cut_to_capacity(&mut subsets);
    let mut labels = service.labels().clone();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    let mut wanted = match &existing {
        Some(existing) => existing.as_ref().clone(),
        None => Endpoints {
            metadata: ObjectMeta {
                name: service.metadata.name.clone(),
                namespace: service.metadata.namespace.clone(),
                ..ObjectMeta::default()
            },
            subsets: None,
        },
    };
    wanted.metadata.labels = Some(labels);
    if cut {
        wanted.annotations_mut().insert(OVER_CAPACITY.into(), "truncated".into());
    } else if wanted.annotations().contains_key(OVER_CAPACITY) {
        wanted.annotations_mut().remove(OVER_CAPACITY);
    }
    wanted.subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    match existing {
        None => Action::Create(Box::new(wanted)),
        Some(existing) if *existing == wanted => Action::Nothing,
        Some(existing) => Action::Update(existing, Box::new(wanted)),
    }
}

fn subsets_of(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let publish_not_ready = publishes_not_ready(service);
    let family = address_types(service).first().copied().unwrap_or("IPv4");
    let mut subsets: Vec<EndpointSubset> = Vec::new();
    for pod in pods.iter().filter(|pod| !pods::is_finished(pod)) {
        let Some(ip) = address_of(pod, family) else { continue };
        if pods::is_terminating(pod) && !publish_not_ready {
            continue;
        }
        let ports: Vec<EndpointPort> = ports_of(service, pod)
            .into_iter()
            .map(|port| EndpointPort {
                name: port.name.filter(|name| !name.is_empty()),
                port: port.port.unwrap_or_default(),
                protocol: port.protocol,
                app_protocol: port.app_protocol,
            })
            .collect();
        let has_ports = service.spec.as_ref().is_some_and(|spec| !spec.ports.iter().flatten().count().eq(&0));
        if ports.is_empty() && has_ports {
            continue;
        }
        let address = EndpointAddress {
            ip,
            hostname: hostname_of(service, pod),
            node_name: Some(pods::node_name(pod).to_string()).filter(|name| !name.is_empty()),
            target_ref: Some(reference_to(pod)),
        };
        let ports = Some(ports).filter(|ports| !ports.is_empty());
        let index = match subsets.iter().position(|subset| subset.ports == ports) {
            Some(index) => index,
            None => {
                subsets.push(EndpointSubset { ports, ..EndpointSubset::default() });
                subsets.len() - 1
            }
        };
        if let Some(subset) = subsets.get_mut(index) {
            let ready = publish_not_ready || pods::is_ready(pod);
            let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
            list.get_or_insert_default().push(address);
        }
    }
    for subset in &mut subsets {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses].into_iter().flatten() {
            list.sort_by(|a, b| a.ip.cmp(&b.ip));
        }
    }
    subsets
}

/// Keeps the first thousand addresses, ready ones first. Returns whether any was cut.
fn cut_to_capacity(subsets: &mut Vec<EndpointSubset>) -> bool {
    let mut room = ADDRESSES_MAX;
    let mut cut = false;
    let mut take = |list: &mut Option<Vec<EndpointAddress>>| {
        let Some(addresses) = list else { return };
        cut |= addresses.len() > room;
        addresses.truncate(room);
        room -= addresses.len();
        if addresses.is_empty() {
            *list = None;
        }
    };
    for subset in subsets.iter_mut() {
        take(&mut subset.addresses);
    }
    for subset in subsets.iter_mut() {
        take(&mut subset.not_ready_addresses);
    }
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    cut
}

pub(super) async fn apply(api: &Api<Endpoints>, key: &ObjectKey, action: Action) -> Reconciled {
    match action {
        Action::Nothing => {}
        Action::Create(endpoints) => match api.create(&PostParams::default(), &endpoints).await {
            Ok(_) => {}
            Err(error) if error.is_namespace_terminating() => {}
            Err(error) if error.is_already_exists() => return Ok(Outcome::Retry),
            Err(error) => return Err(error.into()),
        },
        Action::Update(old, new) => {
            update(api, old.as_ref(), new.as_ref()).await?;
        }
        Action::Delete => {
            api.delete(&key.name, &DeleteParams::default()).await.if_found()?;
        }
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::testing::{at, ready_pod, running_pod};

    #[test]
    fn ready_and_unready_addresses_are_listed_apart_and_terminating_ones_not_at_all() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.9", "selector": {"app": "web"}, "ports": [{"port": 80}]}
        }))
        .unwrap();
        let with_address = |mut pod: Pod, address: &str| {
            pod.status.get_or_insert_default().pod_ip = Some(address.into());
            Arc::new(pod)
        };
        let mut leaving = ready_pod("leaving", "n", at(0));
        leaving.metadata.deletion_timestamp = Some(Time(at(1)));
        let pods = [
            with_address(running_pod("starting", "n"), "10.0.0.2"),
            with_address(ready_pod("ready", "n", at(0)), "10.0.0.1"),
            with_address(leaving, "10.0.0.3"),
        ];
        let Action::Create(endpoints) = decide(Some(&service), Some(&pods), None) else { panic!("creates") };
        let subset = &endpoints.subsets.as_ref().unwrap()[0];
        assert_eq!(subset.addresses.as_ref().unwrap()[0].ip, "10.0.0.1");
        assert_eq!(subset.not_ready_addresses.as_ref().unwrap()[0].ip, "10.0.0.2");
        assert_eq!(subset.ports.as_ref().unwrap()[0].port, 80);
        let existing = Arc::new(*endpoints);
        assert!(matches!(decide(Some(&service), Some(&pods), Some(existing.clone())), Action::Nothing));
        assert!(matches!(decide(None, None, Some(existing)), Action::Delete));
    }

    #[test]
    fn endpoints_that_people_wrote_are_left_alone() {
        let theirs = Arc::new(Endpoints::default());
        assert!(matches!(decide(None, None, Some(theirs.clone())), Action::Nothing));
        assert!(matches!(decide(Some(&Service::default()), None, Some(theirs)), Action::Nothing));
    }
}
