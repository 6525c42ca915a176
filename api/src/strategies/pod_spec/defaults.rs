//! What absent fields of a pod's spec become. Context-free defaults are filled in by the schema before; they are
//! repeated here only where another default depends on them.

use serde_json::{Value, json};

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
    spec.each_inside("volumes", set_volume);
    for list in CONTAINER_LISTS {
        spec.each_inside(list, set_container);
    }
    canonicalize_list(spec, "overhead");
    spec.inside("resources", canonicalize_requirements);
}

/// For pods only.
pub fn set_pod(spec: &mut Value) {
    let on_host = spec.flag("hostNetwork");
    for list in ["containers", "initContainers"] {
        spec.each_inside(list, |container| {
            container.inside("resources", fill_requests);
            if on_host {
                container.each_inside("ports", set_host_port);
            }
        });
    }
    // Deliberately simple: upstream prefers the sum of the containers' requests where there are any.
    spec.inside("resources", fill_requests);
    spec.default_to("enableServiceLinks", true);
}

fn set_host_port(port: &mut Value) {
    if port.int("hostPort").unwrap_or_default() == 0
        && let Some(number) = port.int("containerPort")
    {
        port.put("hostPort", number);
    }
}

fn set_container(container: &mut Value) {
    if container.text("imagePullPolicy").is_empty() {
        container.put("imagePullPolicy", pull_policy(container.text("image")));
    }
    container.default_text("terminationMessagePath", "/dev/termination-log");
    container.default_text("terminationMessagePolicy", "File");
    container.default_to("resources", json!({}));
    container.each_inside("ports", |port| port.default_text("protocol", "TCP"));
    container.inside("resources", canonicalize_requirements);
    container.each_inside("env", |variable| {
        variable.inside("valueFrom.fieldRef", |reference| reference.default_text("apiVersion", "v1"));
        variable.inside("valueFrom.resourceFieldRef", set_divisor);
        variable.inside("valueFrom.fileKeyRef", |reference| reference.default_to("optional", false));
    });
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        container.inside(name, set_probe);
    }
    container.inside("lifecycle.postStart", set_handler);
    container.inside("lifecycle.preStop", set_handler);
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
    handler.inside("httpGet", |get| {
        get.default_text("path", "/");
        get.default_text("scheme", "HTTP");
    });
    handler.inside("grpc", |grpc| grpc.default_to("service", ""));
}

fn set_volume(volume: &mut Value) {
    if volume.as_object().is_some_and(|fields| fields.iter().all(|(key, v)| key == "name" || v.is_null())) {
        volume.put("emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        volume.inside(source, |source| source.default_to("defaultMode", 0o644));
    }
    volume.inside("hostPath", |host_path| host_path.default_to("type", ""));
    volume.inside("emptyDir.sizeLimit", quantity::canonicalize);
    volume.inside("image", |image| {
        let policy = pull_policy(image.text("reference"));
        image.default_text("pullPolicy", policy);
    });
    volume.inside("projected", |projected| {
        projected.each_inside("sources", |source| {
            source.inside("serviceAccountToken", |token| token.default_to("expirationSeconds", 3600));
            source.inside("downwardAPI", set_downward_items);
        });
    });
    volume.inside("downwardAPI", set_downward_items);
    volume.inside("ephemeral.volumeClaimTemplate.spec", |spec| {
        spec.default_text("volumeMode", "Filesystem");
        spec.inside("resources", canonicalize_requirements);
    });
}

fn set_downward_items(downward: &mut Value) {
    downward.each_inside("items", |item| {
        item.inside("fieldRef", |reference| reference.default_text("apiVersion", "v1"));
        item.inside("resourceFieldRef", set_divisor);
    });
}

/// Upstream writes an absent divisor as nothing of something.
fn set_divisor(reference: &mut Value) {
    reference.default_to("divisor", "0");
    reference.inside("divisor", quantity::canonicalize);
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
