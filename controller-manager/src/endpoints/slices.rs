//! Lays groups of endpoints out in slices of at most 100, changing as few slices as possible. The plan is pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use client::owner::controller_ref;
use client::patch::update;
use client::{ErrorExt, Forgive, Outcome};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, ResourceExt};

use super::backends::{Group, is_headless};
use super::{HEADLESS, MANAGED_BY, SERVICE_NAME};
use crate::common::Reconciled;
use crate::common::template::{Fnv1a, safe_encode};

pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
const ENDPOINTS_MAX: usize = 100;

/// What all slices of a service have in common.
pub(super) struct SliceMeta {
    pub service: String,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub owner: OwnerReference,
}

impl SliceMeta {
    pub fn of_service(service: &Service) -> Self {
        Self::managed_by(MANAGER, service, service.labels().clone(), controller_ref(service))
    }

    /// Labels of the source are passed on, but for those that mean something here.
    pub fn managed_by(
        manager: &str,
        service: &Service,
        mut labels: BTreeMap<String, String>,
        owner: OwnerReference,
    ) -> Self {
        labels.remove(HEADLESS);
        if is_headless(service) {
            labels.insert(HEADLESS.into(), String::new());
        }
        labels.insert(SERVICE_NAME.into(), service.name_any());
        labels.insert(MANAGED_BY.into(), manager.into());
        let namespace = service.namespace().unwrap_or_default();
        Self { service: service.name_any(), namespace, labels, owner }
    }
}

/// The writes that bring the slices up to date.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<(Arc<EndpointSlice>, EndpointSlice)>,
    pub delete: Vec<Arc<EndpointSlice>>,
}

/// Plans the slices for all groups; existing slices of no group are deleted.
pub(super) fn plan(meta: &SliceMeta, groups: Vec<Group>, existing: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let mut left: Vec<Arc<EndpointSlice>> =
        existing.iter().filter(|slice| slice.metadata.deletion_timestamp.is_none()).cloned().collect();
    let mut names: HashSet<String> = existing.iter().map(|slice| slice.name_any()).collect();
    for group in groups {
        let (ours, others) = left.into_iter().partition(|slice| {
            slice.address_type == group.address_type && slice.ports.clone().unwrap_or_default() == group.ports
        });
        left = others;
        plan_group(meta, group, ours, &mut names, &mut plan);
    }
    plan.delete.extend(left);
    plan
}

fn identity(endpoint: &Endpoint) -> (Vec<String>, Option<String>) {
    (endpoint.addresses.clone(), endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()))
}

fn plan_group(
    meta: &SliceMeta,
    group: Group,
    mut existing: Vec<Arc<EndpointSlice>>,
    names: &mut HashSet<String>,
    plan: &mut Plan,
) {
    existing.sort_by_key(|slice| slice.name_any());
    let mut order = Vec::new();
    let mut wanted: HashMap<_, Endpoint> = HashMap::new();
    for endpoint in group.endpoints {
        let identity = identity(&endpoint);
        if wanted.insert(identity.clone(), endpoint).is_none() {
            order.push(identity);
        }
    }
    // Endpoints stay where they are.
    let mut contents: Vec<Vec<Endpoint>> = Vec::with_capacity(existing.len());
    for slice in &existing {
        let kept = slice.endpoints.iter().flatten();
        contents.push(kept.filter_map(|endpoint| wanted.remove(&identity(endpoint))).collect());
    }
    // New ones fill the fullest slices first, so that the others can empty out.
    let mut new: Vec<Endpoint> = order.iter().filter_map(|identity| wanted.remove(identity)).collect();
    let mut by_size: Vec<usize> = (0..contents.len()).collect();
    by_size.sort_by_key(|index| std::cmp::Reverse(contents.get(*index).map_or(0, Vec::len)));
    for index in by_size {
        if let Some(content) = contents.get_mut(index) {
            let room = ENDPOINTS_MAX.saturating_sub(content.len()).min(new.len());
            content.extend(new.drain(..room));
        }
    }
    let nothing = new.is_empty() && contents.iter().all(Vec::is_empty);
    for (position, (slice, endpoints)) in existing.iter().zip(contents).enumerate() {
        // A service without endpoints keeps one empty slice, which says just that.
        if endpoints.is_empty() && !(nothing && position == 0) {
            plan.delete.push(slice.clone());
            continue;
        }
        let mut changed = slice.as_ref().clone();
        changed.endpoints = Some(endpoints);
        changed.metadata.labels = Some(meta.labels.clone());
        if changed != **slice {
            plan.update.push((slice.clone(), changed));
        }
    }
    while !new.is_empty() || (nothing && existing.is_empty()) {
        let endpoints: Vec<Endpoint> = new.drain(..new.len().min(ENDPOINTS_MAX)).collect();
        let placeholder = endpoints.is_empty();
        plan.create.push(new_slice(meta, group.address_type, &group.ports, endpoints, names));
        if placeholder {
            break;
        }
    }
}

fn new_slice(
    meta: &SliceMeta,
    address_type: &str,
    ports: &[k8s_openapi::api::discovery::v1::EndpointPort],
    endpoints: Vec<Endpoint>,
    names: &mut HashSet<String>,
) -> EndpointSlice {
    let mut number: u32 = 0;
    let name = loop {
        let mut hash = Fnv1a::default();
        hash.write(meta.owner.uid.as_bytes());
        hash.write(address_type.as_bytes());
        hash.write(&serde_json::to_vec(ports).unwrap_or_default());
        hash.write(&number.to_le_bytes());
        let mut prefix = meta.service.clone();
        prefix.truncate(240);
        let name = format!("{prefix}-{}", safe_encode(&hash.0.to_string()));
        if names.insert(name.clone()) {
            break name;
        }
        number += 1;
    };
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(meta.namespace.clone()),
            labels: Some(meta.labels.clone()),
            owner_references: Some(vec![meta.owner.clone()]),
            ..ObjectMeta::default()
        },
        address_type: address_type.into(),
        endpoints: Some(endpoints),
        ports: Some(ports.to_vec()),
    }
}

/// Carries a plan out.
pub(super) async fn apply(api: &Api<EndpointSlice>, plan: Plan) -> Reconciled {
    for slice in &plan.create {
        match api.create(&PostParams::default(), slice).await {
            Ok(_) => {}
            Err(error) if error.is_namespace_terminating() => return Ok(Outcome::Done),
            // The cache does not show it yet; when it does, this runs again.
            Err(error) if error.is_already_exists() => return Ok(Outcome::Retry),
            Err(error) => return Err(error.into()),
        }
    }
    for (old, new) in &plan.update {
        update(api, old.as_ref(), new).await?;
    }
    for slice in &plan.delete {
        api.delete(&slice.name_any(), &DeleteParams::default()).await.if_found()?;
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> SliceMeta {
        let mut service = Service::default();
        service.metadata.name = Some("web".into());
        service.metadata.uid = Some("s".into());
        SliceMeta::of_service(&service)
    }

    fn group(addresses: std::ops::Range<usize>) -> Vec<Group> {
        let endpoints = addresses
            .map(|number| Endpoint {
                addresses: vec![format!("10.0.{}.{}", number / 250, number % 250)],
                ..Endpoint::default()
            })
            .collect();
        vec![Group { address_type: "IPv4", ports: Vec::new(), endpoints }]
    }

    fn created(plan: Plan) -> Vec<Arc<EndpointSlice>> {
        plan.create.into_iter().map(Arc::new).collect()
    }

    fn sizes<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>) -> Vec<usize> {
        slices.into_iter().map(|slice| slice.endpoints.as_ref().unwrap().len()).collect()
    }

    #[test]
    fn slices_hold_at_most_a_hundred_and_only_those_that_change_are_written() {
        let slices = created(plan(&meta(), group(0..250), &[]));
        assert_eq!(sizes(slices.iter().map(AsRef::as_ref)), [100, 100, 50]);
        let none = plan(&meta(), group(0..250), &slices);
        assert!(none.create.is_empty() && none.update.is_empty() && none.delete.is_empty());
        let more = plan(&meta(), group(0..260), &slices);
        assert_eq!(sizes(more.update.iter().map(|(_, new)| new)), [60]);
        let fewer = plan(&meta(), group(0..100), &slices);
        assert_eq!((fewer.delete.len(), fewer.update.len()), (2, 0));
    }

    #[test]
    fn a_service_without_endpoints_keeps_one_empty_slice() {
        let empty = created(plan(&meta(), group(0..0), &[]));
        assert_eq!(sizes(empty.iter().map(AsRef::as_ref)), [0]);
        let kept = plan(&meta(), group(0..0), &empty);
        assert!(kept.create.is_empty() && kept.delete.is_empty() && kept.update.is_empty());
        let filled = plan(&meta(), group(0..1), &empty);
        assert_eq!((filled.update.len(), filled.create.len()), (1, 0));
    }

    #[test]
    fn names_depend_on_contents_alone_so_that_a_stale_cache_cannot_double_a_slice() {
        let first = created(plan(&meta(), group(0..1), &[]));
        let again = created(plan(&meta(), group(0..1), &[]));
        assert_eq!(first[0].name_any(), again[0].name_any());
    }
}
