//! What a pod may learn of itself: fieldRef and resourceFieldRef.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use super::spec::{PodExt, amount};
use crate::quantity;

/// What the node knows and the pod's object does not (yet).
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The node's address.
    pub host_ip: String,
    /// The pod's addresses.
    pub pod_ips: Vec<String>,
    /// The node's allocatable CPU, thousandths: the limit of a container without one.
    pub node_cpu_millis: i64,
    /// The node's allocatable memory, bytes.
    pub node_memory_bytes: i64,
}

/// The value of a fieldRef; an error names the path.
pub fn field(pod: &Pod, path: &str, around: &Surroundings) -> Result<String, String> {
    let spec = pod.spec();
    let subscript = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
    let entry = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    if let Some(key) = subscript("metadata.labels['") {
        return Ok(entry(&pod.metadata.labels, key));
    }
    if let Some(key) = subscript("metadata.annotations['") {
        return Ok(entry(&pod.metadata.annotations, key));
    }
    Ok(match path {
        "metadata.name" => pod.name().to_string(),
        "metadata.namespace" => pod.namespace().to_string(),
        "metadata.uid" => pod.uid().to_string(),
        "metadata.labels" => lines(pod.metadata.labels.as_ref()),
        "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => around.host_ip.clone(),
        "status.podIP" => around.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => around.pod_ips.join(","),
        other => return Err(format!("unsupported fieldPath: {other}")),
    })
}

/// `key="value"` lines, values quoted as upstream quotes them.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let mut text = String::new();
    for (key, value) in map.into_iter().flatten() {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("{key}={value:?}"));
    }
    text
}

/// The value of a resourceFieldRef of a container, rounded up in its divisor.
pub fn resource(
    container: &Container,
    selector: &ResourceFieldSelector,
    around: &Surroundings,
) -> Result<String, String> {
    let (kind, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let limit = match kind {
        "limits" => true,
        "requests" => false,
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let is_cpu = name == "cpu";
    let read = if is_cpu { quantity::millis } else { quantity::units };
    let set = amount(container.resources.as_ref(), limit, name).map(read);
    let value = match (set, limit, name) {
        (Some(value), ..) => value,
        (None, true, "cpu") => around.node_cpu_millis,
        (None, true, "memory") => around.node_memory_bytes,
        _ => 0,
    };
    let divisor = selector.divisor.as_ref().filter(|divisor| !divisor.0.is_empty()).map(read).unwrap_or(0);
    let divisor = if divisor > 0 {
        divisor
    } else if is_cpu {
        1000
    } else {
        1
    };
    Ok(((value + divisor - 1) / divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    #[test]
    fn a_missing_limit_is_the_nodes_and_divisors_round_up() {
        let container: Container = serde_json::from_value(
            serde_json::json!({"name": "a", "resources": {"limits": {"cpu": "1500m"}}}),
        )
        .unwrap();
        let around = Surroundings { node_memory_bytes: (3 << 20) + 1, ..Surroundings::default() };
        let ask = |resource: &str, divisor: &str| {
            let divisor = Some(Quantity(divisor.to_string()));
            let selector =
                ResourceFieldSelector { resource: resource.to_string(), divisor, container_name: None };
            super::resource(&container, &selector, &around).unwrap()
        };
        assert_eq!(ask("limits.cpu", ""), "2");
        assert_eq!(ask("limits.cpu", "1m"), "1500");
        assert_eq!(ask("limits.memory", "1Mi"), "4");
        assert_eq!(ask("requests.memory", "1"), "0");
    }
}
