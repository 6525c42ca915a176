//! Pods, and the pod templates of workloads.

use serde_json::Value;

use super::containers;
use super::page::{Page, or_none, since, time};
use super::volumes;
use crate::tree::{fields, items, number, plain, shown, text};

/// The page of a pod, without its events.
pub fn write(pod: &Value, page: &mut Page) {
    head(pod, page);
    status(pod, page);
    if items(pod, "/spec/initContainers").next().is_some() {
        containers::write(
            "Init Containers",
            pod,
            "/spec/initContainers",
            "/status/initContainerStatuses",
            page,
        );
    }
    containers::write("Containers", pod, "/spec/containers", "/status/containerStatuses", page);
    if items(pod, "/spec/ephemeralContainers").next().is_some() {
        let statuses = "/status/ephemeralContainerStatuses";
        containers::write("Ephemeral Containers", pod, "/spec/ephemeralContainers", statuses, page);
    }
    if items(pod, "/status/conditions").next().is_some() {
        page.line(0, "Conditions:");
        page.line(1, "Type\tStatus");
        for condition in items(pod, "/status/conditions") {
            page.line(1, format!("{} \t{} ", text(condition, "/type"), text(condition, "/status")));
        }
    }
    volumes::write(pod, "/spec/volumes", "", page);
    page.field("QoS Class", or_none(text(pod, "/status/qosClass")));
    page.labels("Node-Selectors", pod, "/spec/nodeSelector");
    tolerations("Tolerations", pod, "/spec/tolerations", page);
    spreading(pod, "/spec/topologySpreadConstraints", "", page);
}

fn head(pod: &Value, page: &mut Page) {
    page.field("Name", text(pod, "/metadata/name"));
    page.field("Namespace", text(pod, "/metadata/namespace"));
    page.field_if("Priority", shown(pod, "/spec/priority"));
    page.field_if("Priority Class Name", text(pod, "/spec/priorityClassName"));
    page.field_if("Runtime Class Name", text(pod, "/spec/runtimeClassName"));
    page.field_if("Service Account", text(pod, "/spec/serviceAccountName"));
    match text(pod, "/spec/nodeName") {
        "" => page.field("Node", "<none>"),
        node => page.field("Node", format!("{node}/{}", text(pod, "/status/hostIP"))),
    }
    if let Some(start) = Some(text(pod, "/status/startTime")).filter(|start| !start.is_empty()) {
        page.field("Start Time", time(start));
    }
    page.marks(pod);
}

fn status(pod: &Value, page: &mut Page) {
    let phase = text(pod, "/status/phase");
    let deletion = text(pod, "/metadata/deletionTimestamp");
    if !deletion.is_empty() && phase != "Failed" && phase != "Succeeded" {
        page.field("Status", format!("Terminating (lasts {})", since(deletion)));
        let grace = number(pod, "/metadata/deletionGracePeriodSeconds");
        page.field("Termination Grace Period", format!("{grace}s"));
    } else {
        page.field("Status", phase);
    }
    page.field_if("Reason", text(pod, "/status/reason"));
    page.field_if("Message", text(pod, "/status/message"));
    page.field_if("SeccompProfile", text(pod, "/spec/securityContext/seccompProfile/type"));
    page.field("IP", text(pod, "/status/podIP"));
    let addresses: Vec<&str> = items(pod, "/status/podIPs").map(|entry| text(entry, "/ip")).collect();
    if addresses.is_empty() {
        page.field("IPs", "<none>");
    } else {
        page.line(0, "IPs:");
        for address in addresses {
            page.line(1, format!("IP:\t{address}"));
        }
    }
    page.field_if("Controlled By", controller(pod));
    page.field_if("NominatedNodeName", text(pod, "/status/nominatedNodeName"));
}

/// `ReplicaSet/web-1`, or nothing.
pub fn controller(object: &Value) -> String {
    items(object, "/metadata/ownerReferences")
        .find(|owner| owner["controller"] == true)
        .map(|owner| format!("{}/{}", text(owner, "/kind"), text(owner, "/name")))
        .unwrap_or_default()
}

/// What the pods of a workload are made from.
pub fn template(template: &Value, page: &mut Page) {
    page.line(0, "Pod Template:");
    page.labels("  Labels", template, "/metadata/labels");
    if !fields(template, "/metadata/annotations").is_empty() {
        page.annotations("  Annotations", template, "/metadata/annotations");
    }
    let account = text(template, "/spec/serviceAccountName");
    if !account.is_empty() {
        page.line(1, format!("Service Account:\t{account}"));
    }
    if items(template, "/spec/initContainers").next().is_some() {
        containers::write_of_template("Init Containers", template, "/spec/initContainers", page);
    }
    containers::write_of_template("Containers", template, "/spec/containers", page);
    volumes::write(template, "/spec/volumes", "  ", page);
    spreading(template, "/spec/topologySpreadConstraints", "  ", page);
    let priority = text(template, "/spec/priorityClassName");
    if !priority.is_empty() {
        page.line(1, format!("Priority Class Name:\t{priority}"));
    }
    page.labels("  Node-Selectors", template, "/spec/nodeSelector");
    tolerations("  Tolerations", template, "/spec/tolerations", page);
}

fn tolerations(title: &str, object: &Value, pointer: &str, page: &mut Page) {
    let mut all: Vec<&Value> = items(object, pointer).collect();
    all.sort_by_key(|toleration| text(toleration, "/key"));
    page.list(title, all.into_iter().map(toleration).collect());
}

fn toleration(toleration: &Value) -> String {
    let mut said = text(toleration, "/key").to_string();
    let (value, effect) = (text(toleration, "/value"), text(toleration, "/effect"));
    if !value.is_empty() {
        said.push_str(&format!("={value}"));
    }
    if !effect.is_empty() {
        said.push_str(&format!(":{effect}"));
    }
    if toleration["operator"] == "Exists" && value.is_empty() {
        said.push_str(if said.is_empty() { "op=Exists" } else { " op=Exists" });
    }
    if !toleration["tolerationSeconds"].is_null() {
        said.push_str(&format!(" for {}s", number(toleration, "/tolerationSeconds")));
    }
    said
}

fn spreading(object: &Value, pointer: &str, indent: &str, page: &mut Page) {
    let constraints: Vec<String> = items(object, pointer)
        .map(|constraint| {
            let mut said = format!(
                "{}:{} when max skew {} is exceeded",
                text(constraint, "/topologyKey"),
                text(constraint, "/whenUnsatisfiable"),
                number(constraint, "/maxSkew")
            );
            if !constraint["labelSelector"].is_null() {
                said.push_str(&format!(
                    " for selector {}",
                    crate::tree::selector(&constraint["labelSelector"])
                ));
            }
            said
        })
        .collect();
    if !constraints.is_empty() {
        page.list(&format!("{indent}Topology Spread Constraints"), constraints);
    }
}

/// Taints, one per line.
pub fn taints(title: &str, object: &Value, pointer: &str, page: &mut Page) {
    let mut all: Vec<String> = items(object, pointer)
        .map(|taint| {
            let value = plain(&taint["value"]);
            let value = if value.is_empty() { value } else { format!("={value}") };
            format!("{}{value}:{}", text(taint, "/key"), text(taint, "/effect"))
        })
        .collect();
    all.sort();
    page.list(title, all);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pods_page_tells_images_states_and_tolerations() {
        let pod = json!({"metadata": {"name": "web-1", "namespace": "default"},
            "spec": {"nodeName": "n1", "serviceAccountName": "default", "containers": [{"name": "web", "image": "web:v1", "ports": [{"containerPort": 80, "protocol": "TCP"}]}],
                "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
            "status": {"phase": "Running", "hostIP": "10.0.0.1", "podIP": "10.244.0.2", "podIPs": [{"ip": "10.244.0.2"}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "web", "ready": true, "restartCount": 2, "imageID": "sha", "containerID": "c",
                    "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}}]}});
        let mut page = Page::default();
        write(&pod, &mut page);
        let text = page.finish();
        for expected in [
            "Name:             web-1\n",
            "Node:             n1/10.0.0.1\n",
            "    Image:          web:v1\n",
            "    Port:           80/TCP\n",
            "      Started:      Fri, 02 Jan 2026 03:04:05 +0000\n",
            "    Restart Count:  2\n",
            "  Ready          True \n",
            "node.kubernetes.io/not-ready:NoExecute op=Exists for 300s\n",
        ] {
            assert!(text.contains(expected), "{expected:?} in\n{text}");
        }
    }
}
