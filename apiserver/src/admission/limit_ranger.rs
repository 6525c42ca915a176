//! Limit ranges: what containers get that say nothing, and how much a container, a pod or a claim may have.
//!
//! As upstream: defaults are filled in when a pod is made and told in an annotation; a pod's sum counts its containers and
//! sidecars together, or its largest init container if that is more.

use api::ApiError;
use api::quantity::Quantity;
use api::quota::{Amounts, amounts, pod_amounts};
use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Admission, AdmissionRequest, Operation};
use crate::objects::Objects;

const RANGES: &str = "core/limitranges";
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The plugin.
pub struct LimitRanger {
    objects: Objects,
}

impl LimitRanger {
    /// Looks limit ranges up in the cache.
    pub fn new(objects: Objects) -> Self {
        Self { objects }
    }

    /// The limits that hold in the namespace, when the request is about something that they can limit.
    fn limits(&self, request: &AdmissionRequest<'_>) -> Vec<Value> {
        let new_pod = request.is("", "pods") && request.operation == Operation::Create;
        let resized = request.row.plural == "pods" && request.subresource == "resize";
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        if !(new_pod || resized || writes && request.is("", "persistentvolumeclaims")) {
            return Vec::new();
        }
        let ranges = self.objects.look_up_all(RANGES, request.namespace).into_iter();
        ranges.flat_map(|range| items(&range, "/spec/limits").cloned().collect::<Vec<_>>()).collect()
    }
}

#[async_trait]
impl Admission for LimitRanger {
    async fn mutate(&self, request: &AdmissionRequest<'_>, pod: &mut Value) -> Result<(), ApiError> {
        if !request.is("", "pods") || request.operation != Operation::Create {
            return Ok(());
        }
        let limits = self.limits(request);
        let mut said = Vec::new();
        for limit in limits.iter().filter(|limit| kind(limit) == "Container") {
            for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
                let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
                containers
                    .into_iter()
                    .flatten()
                    .for_each(|container| fill(container, limit, what, &mut said));
            }
        }
        if !said.is_empty() {
            let text = format!("LimitRanger plugin set: {}", said.join("; "));
            crate::tree::set(pod, &["metadata", "annotations", ANNOTATION], text);
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, object: Option<&Value>) -> Result<(), ApiError> {
        let Some(object) = object else { return Ok(()) };
        let mut faults = Vec::new();
        for limit in &self.limits(request) {
            match (kind(limit), request.row.plural.as_str()) {
                ("Container", "pods") => {
                    for container in all_containers(object) {
                        let has = |field| amounts(container.pointer(&format!("/resources/{field}")));
                        check(limit, &has("requests"), Some(&has("limits")), &mut faults);
                    }
                }
                ("Pod", "pods") => {
                    let spec = object.get("spec").unwrap_or(&Value::Null);
                    let sum = |field| pod_amounts(spec, field, false);
                    let (requests, limits) = (sum("requests"), sum("limits"));
                    check(limit, &requests, Some(&limits), &mut faults);
                }
                ("PersistentVolumeClaim", "persistentvolumeclaims") => {
                    check(limit, &amounts(object.pointer("/spec/resources/requests")), None, &mut faults);
                }
                _ => {}
            }
        }
        match faults.as_slice() {
            [] => Ok(()),
            [one] => Err(request.forbidden(one)),
            many => Err(request.forbidden(&format!("[{}]", many.join(", ")))),
        }
    }
}

fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn all_containers(pod: &Value) -> impl Iterator<Item = &Value> {
    items(pod, "/spec/containers").chain(items(pod, "/spec/initContainers"))
}

fn kind(limit: &Value) -> &str {
    limit.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// Gives a container what it does not say, and notes what.
fn fill(container: &mut Value, limit: &Value, what: &str, said: &mut Vec<String>) {
    let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_string();
    for (defaults, field, word) in [("defaultRequest", "requests", "request"), ("default", "limits", "limit")]
    {
        let Some(defaults) = limit.get(defaults).and_then(Value::as_object) else { continue };
        let Some(map) = container.as_object_mut() else { continue };
        let resources = map.entry("resources").or_insert_with(|| json!({}));
        let Some(resources) = resources.as_object_mut() else { continue };
        let has = resources.entry(field).or_insert_with(|| Value::Object(Map::new()));
        let Some(has) = has.as_object_mut() else { continue };
        let missing: Vec<&String> = defaults.keys().filter(|resource| !has.contains_key(*resource)).collect();
        for resource in &missing {
            has.insert((*resource).clone(), defaults.get(*resource).cloned().unwrap_or_default());
        }
        if !missing.is_empty() {
            let list = missing.iter().map(|text| text.as_str()).collect::<Vec<_>>().join(", ");
            said.push(format!("{list} {word} for {what} {name}"));
        }
    }
}

/// Compares what is asked with one item of a limit range. Claims have no limits of their own.
fn check(limit: &Value, requests: &Amounts, limits: Option<&Amounts>, faults: &mut Vec<String>) {
    let place = kind(limit);
    let (none, nothing) = (Amounts::new(), Quantity::from_milli(0));
    let asked = limits.unwrap_or(&none);
    for (resource, least) in amounts(limit.get("min")) {
        let bound = format!("minimum {resource} usage per {place} is {least}");
        match (requests.get(&resource), asked.get(&resource)) {
            (None, _) => faults.push(format!("{bound}.  No request is specified")),
            (Some(request), _) if *request < least => {
                faults.push(format!("{bound}, but request is {request}"));
            }
            (_, Some(limit)) if *limit < least => {
                faults.push(format!("{bound}, but limit is {limit}"));
            }
            _ => {}
        }
    }
    for (resource, most) in amounts(limit.get("max")) {
        let bound = format!("maximum {resource} usage per {place} is {most}");
        match (requests.get(&resource), asked.get(&resource)) {
            (None, _) if limits.is_none() => faults.push(format!("{bound}.  No request is specified")),
            (_, None) if limits.is_some() => faults.push(format!("{bound}.  No limit is specified")),
            (_, Some(limit)) if *limit > most => {
                faults.push(format!("{bound}, but limit is {limit}"));
            }
            (Some(request), _) if *request > most => {
                faults.push(format!("{bound}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (resource, ratio) in amounts(limit.get("maxLimitRequestRatio")) {
        let bound = format!("{resource} max limit to request ratio per {place} is {ratio}");
        match (
            requests.get(&resource).filter(|request| **request > nothing),
            asked.get(&resource).filter(|limit| **limit > nothing),
        ) {
            (None, _) => faults.push(format!("{bound}, but no request is specified or request is 0")),
            (_, None) => faults.push(format!("{bound}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let provided = limit.milli_value() as f64 / request.milli_value() as f64;
                if provided > ratio.milli_value() as f64 / 1000.0 {
                    faults.push(format!("{bound}, but provided ratio is {provided:.6}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_ratios_are_told_in_upstreams_words() {
        let limit = json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"memory": "1Gi"}, "maxLimitRequestRatio": {"cpu": "2"}});
        let asks = |list: Value| amounts(Some(&list));
        let mut faults = Vec::new();
        check(
            &limit,
            &asks(json!({"cpu": "50m"})),
            Some(&asks(json!({"cpu": "200m", "memory": "2Gi"}))),
            &mut faults,
        );
        assert_eq!(
            faults,
            [
                "minimum cpu usage per Container is 100m, but request is 50m",
                "maximum memory usage per Container is 1Gi, but limit is 2Gi",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000",
            ]
        );
    }
}
