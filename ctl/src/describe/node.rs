//! Nodes: their state, and what the pods on them take.

use api::quantity::{Format, Quantity};
use serde_json::Value;

use super::page::{Page, or_none, since, time};
use super::pod::taints;
use crate::session::Session;
use crate::tree::{fields, flag, items, joined, plain, text};

const ROLE: &str = "node-role.kubernetes.io/";

/// Writes a node.
pub async fn write(session: &Session, node: &Value, page: &mut Page) {
    let name = text(node, "/metadata/name");
    page.field("Name", name);
    let roles: Vec<&str> = fields(node, "/metadata/labels")
        .into_iter()
        .filter_map(|(key, value)| match key {
            "kubernetes.io/role" => value.as_str(),
            key => key.strip_prefix(ROLE),
        })
        .filter(|role| !role.is_empty())
        .collect();
    page.field("Roles", or_none(&roles.join(",")));
    page.marks(node);
    page.field("CreationTimestamp", time(text(node, "/metadata/creationTimestamp")));
    taints("Taints", node, "/spec/taints", page);
    page.field("Unschedulable", flag(node, "/spec/unschedulable").to_string());
    lease(session, name, page).await;
    conditions(node, page);
    page.line(0, "Addresses:");
    for address in items(node, "/status/addresses") {
        page.line(1, format!("{}:\t{}", text(address, "/type"), text(address, "/address")));
    }
    for (title, field) in [("Capacity", "/status/capacity"), ("Allocatable", "/status/allocatable")] {
        let amounts = fields(node, field);
        if !amounts.is_empty() {
            page.line(0, format!("{title}:"));
        }
        for (name, amount) in amounts {
            page.line(1, format!("{name}:\t{}", plain(amount)));
        }
    }
    system(node, page);
    page.field_if("PodCIDR", text(node, "/spec/podCIDR"));
    page.field_if("PodCIDRs", joined(node, "/spec/podCIDRs", ","));
    page.field_if("ProviderID", text(node, "/spec/providerID"));
    let selector = format!("spec.nodeName%3D{name},status.phase%21%3DSucceeded,status.phase%21%3DFailed");
    match session.api.get(&format!("/api/v1/pods?fieldSelector={selector}")).await {
        Ok(pods) => taken(node, items(&pods, "/items").collect(), page),
        Err(_) => page.field("Pods", "not authorized"),
    }
}

async fn lease(session: &Session, name: &str, page: &mut Page) {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}");
    let lease = match session.api.get(&path).await {
        Ok(lease) => lease,
        Err(error) => {
            let text = format!("{error}");
            let text = text.split_once(": ").map_or(text.as_str(), |(_, rest)| rest);
            return page.field("Lease", format!("Failed to get lease: {text}"));
        }
    };
    page.line(0, "Lease:");
    let holder = text(&lease, "/spec/holderIdentity");
    page.line(1, format!("HolderIdentity:\t{}", if holder.is_empty() { "<unset>" } else { holder }));
    page.line(1, format!("AcquireTime:\t{}", time(text(&lease, "/spec/acquireTime"))));
    page.line(1, format!("RenewTime:\t{}", time(text(&lease, "/spec/renewTime"))));
}

fn conditions(node: &Value, page: &mut Page) {
    if items(node, "/status/conditions").next().is_none() {
        return;
    }
    page.line(0, "Conditions:");
    page.heading(1, "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
    for condition in items(node, "/status/conditions") {
        let (heartbeat, transition) =
            (time(text(condition, "/lastHeartbeatTime")), time(text(condition, "/lastTransitionTime")));
        page.line(
            1,
            format!(
                "{} \t{} \t{heartbeat} \t{transition} \t{} \t{}",
                text(condition, "/type"),
                text(condition, "/status"),
                text(condition, "/reason"),
                text(condition, "/message")
            ),
        );
    }
}

fn system(node: &Value, page: &mut Page) {
    page.line(0, "System Info:");
    for (title, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ] {
        page.line(1, format!("{title}:\t{}", text(node, &format!("/status/nodeInfo/{field}"))));
    }
}

/// What the pods of a node ask for, one by one and in all.
fn taken(node: &Value, pods: Vec<&Value>, page: &mut Page) {
    let offered = if node.pointer("/status/allocatable").is_some() { "allocatable" } else { "capacity" };
    let offer = |resource: &str| amount(&node["status"][offered][resource]);
    page.field("Non-terminated Pods", format!("({} in total)", pods.len()));
    page.heading(1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    for pod in &pods {
        let cell = |resource: &str, field: &str| share(of_pod(pod, field, resource), offer(resource));
        page.line(
            1,
            format!(
                "{}\t{}\t\t{}\t{}\t{}\t{}\t{}",
                text(pod, "/metadata/namespace"),
                text(pod, "/metadata/name"),
                cell("cpu", "requests"),
                cell("cpu", "limits"),
                cell("memory", "requests"),
                cell("memory", "limits"),
                since(text(pod, "/metadata/creationTimestamp"))
            ),
        );
    }
    page.line(0, "Allocated resources:\n  (Total limits may be over 100 percent, i.e., overcommitted.)");
    page.heading(1, "Resource\tRequests\tLimits");
    let sum = |resource: &str, field: &str| {
        pods.iter().map(|pod| of_pod(pod, field, resource)).fold(nothing(), add)
    };
    let standard = ["cpu", "memory", "ephemeral-storage"];
    for resource in standard {
        let cell = |field: &str| share(sum(resource, field), offer(resource));
        page.line(1, format!("{resource}\t{}\t{}", cell("requests"), cell("limits")));
    }
    let all = fields(node, &format!("/status/{offered}"));
    for (resource, _) in all.iter().filter(|(name, _)| name.starts_with("hugepages-")) {
        let cell = |field: &str| share(sum(resource, field), offer(resource));
        page.line(1, format!("{resource}\t{}\t{}", cell("requests"), cell("limits")));
    }
    for (resource, _) in all {
        if !standard.contains(&resource) && resource != "pods" && !resource.starts_with("hugepages-") {
            page.line(1, format!("{resource}\t{}\t{}", sum(resource, "requests"), sum(resource, "limits")));
        }
    }
}

fn nothing() -> Quantity {
    Quantity::new(0, Format::DecimalSi)
}

fn amount(value: &Value) -> Quantity {
    Quantity::from_json(value).unwrap_or_else(|_| nothing())
}

/// A sum in the form of whichever is not zero.
fn add(one: Quantity, other: Quantity) -> Quantity {
    if one.is_zero() { other } else { one + other }
}

/// What a pod takes of a resource: its containers together, or more if one that runs before them does, and its overhead.
fn of_pod(pod: &Value, field: &str, resource: &str) -> Quantity {
    let of = |container: &Value| amount(&container["resources"][field][resource]);
    let own = &pod["spec"]["resources"][field][resource];
    let mut total = if own.is_null() {
        let mut running = items(pod, "/spec/containers").map(of).fold(nothing(), add);
        let mut sidecars = nothing();
        let mut before = nothing();
        for container in items(pod, "/spec/initContainers") {
            if text(container, "/restartPolicy") == "Always" {
                sidecars = add(sidecars, of(container));
                running = add(running, of(container));
                before = before.max(sidecars);
            } else {
                before = before.max(add(sidecars, of(container)));
            }
        }
        if before > running { before } else { running }
    } else {
        amount(own)
    };
    let overhead = amount(&pod["spec"]["overhead"][resource]);
    if !overhead.is_zero() && (field == "requests" || !total.is_zero()) {
        total = add(total, overhead);
    }
    total
}

/// `250m (12%)`
fn share(taken: Quantity, offered: Quantity) -> String {
    let (part, whole) = (i128::from(taken.milli_value()), i128::from(offered.milli_value()));
    let percent = if whole == 0 { 0 } else { part * 100 / whole };
    format!("{taken} ({percent}%)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_takes_what_its_containers_or_the_largest_before_them_take() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let pod = json!({"spec": {"containers": [container("100m"), container("200m")], "initContainers": [container("1")]}});
        assert_eq!(of_pod(&pod, "requests", "cpu").to_string(), "1");
        let pod = json!({"spec": {"containers": [container("100m"), container("200m")]}});
        assert_eq!(share(of_pod(&pod, "requests", "cpu"), amount(&json!("2"))), "300m (15%)");
        assert_eq!(share(of_pod(&pod, "limits", "memory"), amount(&json!("1Gi"))), "0 (0%)");
    }
}
