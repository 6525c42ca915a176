//! Horizontal pod autoscalers of autoscaling/v1 and v2.
//!
//! v1 knows one metric, the utilization of CPU. Whatever else v2 says is kept in annotations in v1, as JSON in v1's own
//! spelling of metrics, under upstream's keys.

use serde_json::{Map, Value, json};

use crate::field::{Look, Touch};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// The fields of each metric source that hold amounts: in v2, in v1's specs, in v1's statuses.
const UTILIZATION: (&str, &str, &str) =
    ("averageUtilization", "targetAverageUtilization", "currentAverageUtilization");

pub(super) fn to_v1(object: &mut Value) {
    let mut annotations = Map::new();
    if let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) {
        let mut others = Vec::new();
        for metric in spec.items("metrics").to_vec() {
            match cpu_utilization(&metric, "target") {
                Some(percent) if spec.at("targetCPUUtilizationPercentage").is_none() => {
                    spec.put("targetCPUUtilizationPercentage", percent);
                }
                _ => others.push(flattened(metric, "target")),
            }
        }
        spec.drop_field("metrics");
        keep(&mut annotations, METRICS, &others.into());
        keep(&mut annotations, BEHAVIOR, &spec.get("behavior").cloned().unwrap_or_default());
        spec.drop_field("behavior");
    }
    if let Some(status) = object.get_mut("status").filter(|s| s.is_object()) {
        let current = status.items("currentMetrics").to_vec();
        if let Some(percent) = current.iter().find_map(|metric| cpu_utilization(metric, "current")) {
            status.put("currentCPUUtilizationPercentage", percent);
        }
        let flat: Vec<Value> = current.into_iter().map(|metric| flattened(metric, "current")).collect();
        keep(&mut annotations, CURRENT_METRICS, &flat.into());
        keep(&mut annotations, CONDITIONS, &status.get("conditions").cloned().unwrap_or_default());
        status.drop_field("currentMetrics");
        status.drop_field("conditions");
    }
    if annotations.is_empty() {
        return;
    }
    if let Some(target) = object.object_mut("metadata").and_then(|m| m.object_mut("annotations"))
        && let Some(target) = target.as_object_mut()
    {
        target.extend(annotations);
    }
}

pub(super) fn to_v2(object: &mut Value) {
    let metrics = take(object, METRICS);
    let current = take(object, CURRENT_METRICS);
    let conditions = take(object, CONDITIONS);
    let behavior = take(object, BEHAVIOR);
    if let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) {
        let mut all = Vec::new();
        if let Some(percent) = spec.int("targetCPUUtilizationPercentage") {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            all.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        spec.drop_field("targetCPUUtilizationPercentage");
        all.extend(items(metrics).into_iter().map(|metric| nested(metric, "target")));
        if !all.is_empty() {
            spec.put("metrics", all);
        }
        if let Some(behavior) = behavior {
            spec.put("behavior", behavior);
        }
    }
    if let Some(status) = object.get_mut("status").filter(|s| s.is_object()) {
        let mut all: Vec<Value> =
            items(current).into_iter().map(|metric| nested(metric, "current")).collect();
        if let Some(percent) = status.int("currentCPUUtilizationPercentage")
            && all.iter().all(|metric| cpu_utilization(metric, "current").is_none())
        {
            let current = json!({"averageUtilization": percent});
            all.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "current": current}}));
        }
        status.drop_field("currentCPUUtilizationPercentage");
        if !all.is_empty() {
            status.put("currentMetrics", all);
        }
        if let Some(conditions) = conditions {
            status.put("conditions", conditions);
        }
    }
}

fn cpu_utilization(metric: &Value, part: &str) -> Option<i64> {
    let resource = metric.at("resource").filter(|r| r.text("name") == "cpu")?;
    resource.at(part)?.int("averageUtilization")
}

fn keep(annotations: &mut Map<String, Value>, key: &str, value: &Value) {
    let is_empty = match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    if !is_empty {
        annotations.insert(key.to_string(), value.to_string().into());
    }
}

fn take(object: &mut Value, key: &str) -> Option<Value> {
    let metadata = object.get_mut("metadata")?;
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(key)?;
    let is_empty = annotations.is_empty();
    if is_empty {
        metadata.drop_field("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn items(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// v2's `target: {averageUtilization}` as v1's `targetAverageUtilization`.
fn flattened(mut metric: Value, part: &str) -> Value {
    for source in sources(&mut metric) {
        let Some(Value::Object(amounts)) = source.as_object_mut().and_then(|fields| fields.remove(part))
        else {
            continue;
        };
        for (name, amount) in amounts {
            source.put(&flat_name(&name, part), amount);
        }
    }
    metric
}

/// The reverse of [`flattened`].
fn nested(mut metric: Value, part: &str) -> Value {
    for source in sources(&mut metric) {
        let mut amounts = Map::new();
        for name in ["averageUtilization", "averageValue", "value", "type"] {
            let flat = flat_name(name, part);
            if let Some(amount) = source.as_object_mut().and_then(|fields| fields.remove(&flat)) {
                amounts.insert(name.to_string(), amount);
            }
        }
        source.put(part, amounts);
    }
    metric
}

fn flat_name(name: &str, part: &str) -> String {
    if name == UTILIZATION.0 {
        return if part == "target" { UTILIZATION.1 } else { UTILIZATION.2 }.to_string();
    }
    let mut chars = name.chars();
    let first: String = chars.next().map(|c| c.to_ascii_uppercase()).into_iter().collect();
    format!("{part}{first}{}", chars.as_str())
}

fn sources(metric: &mut Value) -> impl Iterator<Item = &mut Value> {
    metric
        .as_object_mut()
        .into_iter()
        .flat_map(|fields| fields.values_mut())
        .filter(|value| value.is_object())
}
