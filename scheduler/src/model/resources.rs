//! Amounts of resources: what nodes have and what pods request.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What a container without a CPU request counts as when nodes are compared (not when they are filled).
const SCORED_CPU_MILLI: i64 = 100;
/// The same for memory.
const SCORED_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// Amounts of resources, the number of pods apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu_milli: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of local storage.
    pub ephemeral_storage_bytes: i64,
    /// Everything else by name: extended resources, huge pages.
    pub other: BTreeMap<String, i64>,
}

impl Resources {
    /// The amounts in a resource list; the number of pods is left out.
    pub fn from_list(list: &BTreeMap<String, Quantity>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list {
            match name.as_str() {
                "cpu" => resources.cpu_milli = milli(quantity),
                "memory" => resources.memory_bytes = whole(quantity),
                "ephemeral-storage" => resources.ephemeral_storage_bytes = whole(quantity),
                "pods" => {}
                other => {
                    resources.other.insert(other.to_owned(), whole(quantity));
                }
            }
        }
        resources
    }

    /// Whether nothing is asked for.
    pub fn is_zero(&self) -> bool {
        self.cpu_milli == 0
            && self.memory_bytes == 0
            && self.ephemeral_storage_bytes == 0
            && self.other.values().all(|amount| *amount == 0)
    }

    /// Adds amounts.
    pub fn add(&mut self, more: &Self) {
        self.combine(more, i64::saturating_add);
    }

    /// Takes amounts away.
    pub fn subtract(&mut self, less: &Self) {
        self.combine(less, i64::saturating_sub);
        self.other.retain(|_, amount| *amount != 0);
    }

    /// Raises every amount to at least the other's.
    pub fn raise_to(&mut self, floor: &Self) {
        self.combine(floor, i64::max);
    }

    fn combine(&mut self, other: &Self, operation: impl Fn(i64, i64) -> i64) {
        self.cpu_milli = operation(self.cpu_milli, other.cpu_milli);
        self.memory_bytes = operation(self.memory_bytes, other.memory_bytes);
        self.ephemeral_storage_bytes = operation(self.ephemeral_storage_bytes, other.ephemeral_storage_bytes);
        for (name, amount) in &other.other {
            match self.other.get_mut(name) {
                Some(own) => *own = operation(*own, *amount),
                None => {
                    self.other.insert(name.clone(), operation(0, *amount));
                }
            }
        }
    }
}

/// Text that is no quantity counts as zero: the API server lets none in.
fn parsed(quantity: &Quantity) -> Option<api::quantity::Quantity> {
    quantity.0.parse().ok()
}

fn milli(quantity: &Quantity) -> i64 {
    parsed(quantity).map_or(0, |quantity| quantity.milli_value())
}

fn whole(quantity: &Quantity) -> i64 {
    parsed(quantity).map_or(0, |quantity| quantity.value())
}

/// How many pods a resource list allows.
pub(super) fn pod_count(list: &BTreeMap<String, Quantity>) -> usize {
    list.get("pods").map_or(0, |quantity| usize::try_from(whole(quantity)).unwrap_or(0))
}

/// What a pod needs on its node: the largest of what runs at one time, and the overhead.
///
/// Containers run together with all sidecars (init containers that restart always); an init container runs together
/// with the sidecars started before it. Requests of the pod as a whole replace the sum of its containers.
pub(super) fn requests_of(pod: &Pod) -> Resources {
    requests_by(pod, |container| container_requests(pod, container))
}

/// What a pod counts as when nodes are compared: as [`requests_of`], with a small default for what is not stated.
pub(super) fn scored_requests_of(pod: &Pod) -> Resources {
    let spec = pod.spec.as_ref();
    let pod_level = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    let states = |name: &str| pod_level.is_some_and(|requests| requests.contains_key(name));
    let (states_cpu, states_memory) = (states("cpu"), states("memory"));
    requests_by(pod, |container| {
        let mut requests = container_requests(pod, container);
        let stated = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let missing = |name: &str| stated.is_none_or(|requests| !requests.contains_key(name));
        if missing("cpu") && !states_cpu {
            requests.cpu_milli = SCORED_CPU_MILLI;
        }
        if missing("memory") && !states_memory {
            requests.memory_bytes = SCORED_MEMORY_BYTES;
        }
        requests
    })
}

fn requests_by(pod: &Pod, requests: impl Fn(&Container) -> Resources) -> Resources {
    let mut total = Resources::default();
    let Some(spec) = &pod.spec else { return total };
    for container in &spec.containers {
        total.add(&requests(container));
    }
    let (mut sidecars, mut starting) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let own = requests(container);
        let mut together = sidecars.clone();
        together.add(&own);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&own);
        }
        starting.raise_to(&together);
    }
    total.add(&sidecars);
    total.raise_to(&starting);
    if let Some(stated) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        replace_stated(&mut total, stated);
    }
    if let Some(list) = &spec.overhead {
        total.add(&Resources::from_list(list));
    }
    total
}

fn replace_stated(total: &mut Resources, stated: &BTreeMap<String, Quantity>) {
    let amounts = Resources::from_list(stated);
    if stated.contains_key("cpu") {
        total.cpu_milli = amounts.cpu_milli;
    }
    if stated.contains_key("memory") {
        total.memory_bytes = amounts.memory_bytes;
    }
    total.other.extend(amounts.other);
}

/// The most of what a container asks for, was granted and has: while it is resized its node has to have room for all of
/// them. What its node can never grant does not count.
fn container_requests(pod: &Pod, container: &Container) -> Resources {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let asked = requests.map(Resources::from_list).unwrap_or_default();
    let Some(status) = pod.status.as_ref() else { return asked };
    let sidecars = status.init_container_statuses.iter().flatten();
    let mut told = status.container_statuses.iter().flatten().chain(sidecars);
    let Some(told) = told.find(|told| told.name == container.name) else { return asked };
    let Some(has) = &told.resources else { return asked };
    let is_infeasible = status.conditions.iter().flatten().any(|condition| {
        condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible")
    });
    let mut most = if is_infeasible { Resources::default() } else { asked };
    for list in [&has.requests, &told.allocated_resources].into_iter().flatten() {
        most.raise_to(&Resources::from_list(list));
    }
    most
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
    use serde_json::json;

    use super::*;

    fn container(cpu: &str, restart: Option<&str>) -> Container {
        let requests = BTreeMap::from([("cpu".to_owned(), Quantity(cpu.into()))]);
        Container {
            resources: Some(ResourceRequirements { requests: Some(requests), ..Default::default() }),
            restart_policy: restart.map(Into::into),
            ..Default::default()
        }
    }

    fn pod(spec: &PodSpec) -> Pod {
        Pod { spec: Some(spec.clone()), ..Pod::default() }
    }

    #[test]
    fn a_pod_needs_the_most_of_what_runs_together() {
        let spec = PodSpec {
            containers: vec![container("1", None), container("500m", None)],
            init_containers: Some(vec![
                container("3", None),
                container("200m", Some("Always")),
                container("4", None),
            ]),
            overhead: Some(BTreeMap::from([("cpu".to_owned(), Quantity("10m".into()))])),
            ..Default::default()
        };
        assert_eq!(requests_of(&pod(&spec)).cpu_milli, 4210);
        let small = PodSpec { init_containers: Some(vec![container("200m", Some("Always"))]), ..spec };
        assert_eq!(requests_of(&pod(&small)).cpu_milli, 1710);
    }

    #[test]
    fn a_pod_that_is_resized_should_count_as_the_most_of_what_it_asks_for_was_granted_and_has() {
        let counts = |asks: &str, granted: &str, has: &str, reason: &str| {
            let pod = serde_json::from_value(json!({
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": asks}}}]},
                "status": {
                    "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                    "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                        "allocatedResources": {"cpu": granted}, "resources": {"requests": {"cpu": has}}}],
                },
            }));
            requests_of(&pod.unwrap()).cpu_milli
        };
        assert_eq!(counts("3", "2", "1", "Deferred"), 3000);
        assert_eq!(counts("1", "2", "3", "Deferred"), 3000);
        assert_eq!(counts("1", "3", "2", "Deferred"), 3000);
        assert_eq!(counts("9", "2", "1", "Infeasible"), 2000);
    }

    #[test]
    fn a_container_that_states_nothing_counts_a_little_when_nodes_are_compared() {
        let spec = PodSpec { containers: vec![Container::default()], ..Default::default() };
        assert!(requests_of(&pod(&spec)).is_zero());
        let scored = scored_requests_of(&pod(&spec));
        assert_eq!((scored.cpu_milli, scored.memory_bytes), (SCORED_CPU_MILLI, SCORED_MEMORY_BYTES));
    }
}
