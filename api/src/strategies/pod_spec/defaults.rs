//! What absent fields of a pod's spec become. Context-free defaults are filled in by the schema before; they are
//! repeated here only where another default depends on them.

use serde_json::{Map, Value, json};

use super::CONTAINER_LISTS;
use crate::{
    field::{Look, Touch},
    quantity,
};

/// For pods and templates alike.
pub fn set(spec: &mut Value) {
    spec.default_text("dnsPolicy", "ClusterFirst");
    spec.default_text("restartPolicy", "Always");
    spec.default_text("schedulerName", "default-scheduler");
    spec.default_to("terminationGracePeriodSeconds", 30);
    spec.default_to("securityContext", json!({}));
    // The two names of one field; the old one is still read by old clients.
    let account = match spec.text("serviceAccountName") {
        "" => spec.text("serviceAccount").to_string(),
        name => name.to_string(),
    };
    if !account.is_empty() {
        spec.put("serviceAccountName", account.as_str());
        spec.put("serviceAccount", account);
    }
    for volume in spec.items_mut("volumes") {
        set_volume(volume);
    }
    for list in CONTAINER_LISTS {
        for container in spec.items_mut(list) {
            set_container(container);
        }
    }
    canonicalize_list(spec, "overhead");
    if let Some(resources) = spec.get_mut("resources") {
        canonicalize_requirements(resources);
    }
}

/// For pods only.
pub fn set_pod(spec: &mut Value) {
    for list in ["containers", "initContainers"] {
        for container in spec.items_mut(list) {
            if let Some(resources) = container.get_mut("resources") {
                fill_requests(resources);
            }
        }
    }
    // Deliberately simple: upstream prefers the sum of the containers' requests where there are any.
    if let Some(resources) = spec.get_mut("resources") {
        fill_requests(resources);
    }
    spec.default_to("enableServiceLinks", true);
    if spec.flag("hostNetwork") {
        for list in ["containers", "initContainers"] {
            for container in spec.items_mut(list) {
                for port in container.items_mut("ports") {
                    if port.int("hostPort").unwrap_or_default() == 0
                        && let Some(number) = port.int("containerPort")
                    {
                        port.put("hostPort", number);
                    }
                }
            }
        }
    }
}

fn set_container(container: &mut Value) {
    if container.text("imagePullPolicy").is_empty() {
        container.put("imagePullPolicy", pull_policy(container.text("image")));
    }
    container.default_text("terminationMessagePath", "/dev/termination-log");
    container.default_text("terminationMessagePolicy", "File");
    container.default_to("resources", json!({}));
    for port in container.items_mut("ports") {
        port.default_text("protocol", "TCP");
    }
    if let Some(resources) = container.get_mut("resources") {
        canonicalize_requirements(resources);
    }
    for variable in container.items_mut("env") {
        if let Some(reference) = variable.get_mut("valueFrom").and_then(|from| from.get_mut("fieldRef")) {
            reference.default_text("apiVersion", "v1");
        }
        if let Some(reference) = variable.get_mut("valueFrom").and_then(|f| f.get_mut("resourceFieldRef")) {
            set_divisor(reference);
        }
        if let Some(reference) = variable.get_mut("valueFrom").and_then(|from| from.get_mut("fileKeyRef")) {
            reference.default_to("optional", false);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name) {
            set_probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = container.get_mut("lifecycle").and_then(|l| l.get_mut(hook)) {
            set_handler(handler);
        }
    }
}

fn set_probe(probe: &mut Value) {
    for (name, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if probe.int(name).unwrap_or_default() == 0 {
            probe.put(name, value);
        }
    }
    set_handler(probe);
}

fn set_handler(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet") {
        get.default_text("path", "/");
        get.default_text("scheme", "HTTP");
    }
    if let Some(grpc) = handler.get_mut("grpc") {
        grpc.default_to("service", "");
    }
}

fn set_volume(volume: &mut Value) {
    if volume.as_object().is_some_and(|fields| fields.iter().all(|(key, v)| key == "name" || v.is_null())) {
        volume.put("emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).filter(|s| s.is_object()) {
            source.default_to("defaultMode", 0o644);
        }
    }
    if let Some(host_path) = volume.get_mut("hostPath").filter(|s| s.is_object()) {
        host_path.default_to("type", "");
    }
    if let Some(limit) = volume.get_mut("emptyDir").and_then(|e| e.get_mut("sizeLimit")) {
        quantity::canonicalize(limit);
    }
    if let Some(image) = volume.get_mut("image").filter(|s| s.is_object())
        && image.text("pullPolicy").is_empty()
    {
        image.put("pullPolicy", pull_policy(image.text("reference")));
    }
    if let Some(projected) = volume.get_mut("projected") {
        for source in projected.items_mut("sources") {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                token.default_to("expirationSeconds", 3600);
            }
            if let Some(downward) = source.get_mut("downwardAPI") {
                set_downward_items(downward);
            }
        }
    }
    if let Some(downward) = volume.get_mut("downwardAPI") {
        set_downward_items(downward);
    }
    if let Some(claim) = volume.get_mut("ephemeral").and_then(|e| e.get_mut("volumeClaimTemplate"))
        && let Some(spec) = claim.get_mut("spec")
    {
        spec.default_text("volumeMode", "Filesystem");
        if let Some(resources) = spec.get_mut("resources") {
            canonicalize_requirements(resources);
        }
    }
}

fn set_downward_items(downward: &mut Value) {
    for item in downward.items_mut("items") {
        if let Some(reference) = item.get_mut("fieldRef") {
            reference.default_text("apiVersion", "v1");
        }
        if let Some(reference) = item.get_mut("resourceFieldRef") {
            set_divisor(reference);
        }
    }
}

/// Upstream writes an absent divisor as nothing of something.
fn set_divisor(reference: &mut Value) {
    reference.default_to("divisor", "0");
    if let Some(divisor) = reference.get_mut("divisor") {
        quantity::canonicalize(divisor);
    }
}

/// `Always` for what may change under its name, `IfNotPresent` for the rest.
fn pull_policy(image: &str) -> &'static str {
    if image_tag(image) == Some("latest") { "Always" } else { "IfNotPresent" }
}

/// The tag of an image, `latest` when it has neither tag nor digest.
fn image_tag(image: &str) -> Option<&str> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((_, tag)) => Some(tag),
        None if digest.is_some() => None,
        None => Some("latest"),
    }
}

/// Limits stand in for requests that are not given.
fn fill_requests(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    if limits.is_empty() {
        return;
    }
    let Some(requests) = resources.object_mut("requests").and_then(Value::as_object_mut) else { return };
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

/// Brings the amounts of `limits` and `requests` into their canonical form.
pub fn canonicalize_requirements(resources: &mut Value) {
    canonicalize_list(resources, "limits");
    canonicalize_list(resources, "requests");
}

/// Brings the amounts of a map into their canonical form, no finer than thousandths.
pub fn canonicalize_list(parent: &mut Value, name: &str) {
    let Some(list) = parent.get_mut(name).and_then(Value::as_object_mut) else { return };
    canonicalize_map(list);
}

fn canonicalize_map(list: &mut Map<String, Value>) {
    for amount in list.values_mut() {
        match quantity::Quantity::from_json(amount) {
            Ok(fine) if !fine.is_whole_milli() => {
                *amount = quantity::Quantity::from_milli(fine.milli_value()).to_string().into();
            }
            _ => quantity::canonicalize(amount),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_may_change_should_be_pulled_always() {
        for (image, policy) in [
            ("web", "Always"),
            ("web:latest", "Always"),
            ("web:v1", "IfNotPresent"),
            ("localhost:5000/web", "Always"),
            ("localhost:5000/web:v1", "IfNotPresent"),
            ("web@sha256:abc", "IfNotPresent"),
            ("web:latest@sha256:abc", "Always"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn defaults_should_be_complete_and_idempotent() {
        let mut spec = json!({
            "serviceAccountName": "sa",
            "hostNetwork": true,
            "volumes": [{"name": "a"}, {"name": "b", "secret": {"secretName": "s"}},
                        {"name": "c", "hostPath": {"path": "/"}}],
            "containers": [{"name": "c", "image": "web:v1", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
                "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 0},
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
        });
        set(&mut spec);
        set_pod(&mut spec);
        let once = spec.clone();
        set(&mut spec);
        set_pod(&mut spec);
        assert_eq!(spec, once);
        assert_eq!(
            spec,
            json!({
                "serviceAccountName": "sa", "serviceAccount": "sa", "hostNetwork": true,
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "terminationGracePeriodSeconds": 30, "securityContext": {}, "enableServiceLinks": true,
                "volumes": [{"name": "a", "emptyDir": {}},
                            {"name": "b", "secret": {"secretName": "s", "defaultMode": 420}},
                            {"name": "c", "hostPath": {"path": "/", "type": ""}}],
                "containers": [{"name": "c", "image": "web:v1", "imagePullPolicy": "IfNotPresent",
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "500m", "memory": "1Gi"},
                                  "requests": {"cpu": "500m", "memory": "1Gi"}},
                    "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "periodSeconds": 10,
                        "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3},
                    "env": [{"name": "N",
                        "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}]}],
            })
        );
    }
}
