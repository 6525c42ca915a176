//! How well a pod is cared for when a node runs out of something.

use serde_json::Value;

use crate::{field::Look, quantity::Quantity};

/// `Guaranteed`, `Burstable` or `BestEffort`, from what the containers ask for.
pub fn class_of(spec: &Value) -> &'static str {
    let amount = |requirements: &Value, list: &str, name: &str| {
        requirements
            .at(list)
            .and_then(|l| l.at(name))
            .and_then(|a| Quantity::from_json(a).ok())
            .filter(|q| !q.is_zero())
    };
    let null = Value::Null;
    let pod_level = spec.at("resources").filter(|r| r.at("limits").or(r.at("requests")).is_some());
    let requirements: Vec<&Value> = match pod_level {
        Some(resources) => vec![resources],
        None => ["containers", "initContainers"]
            .iter()
            .flat_map(|list| spec.items(list))
            .map(|container| container.get("resources").unwrap_or(&null))
            .collect(),
    };
    let (mut asks_nothing, mut is_guaranteed) = (true, !requirements.is_empty());
    for requirements in requirements {
        for name in ["cpu", "memory"] {
            let limit = amount(requirements, "limits", name);
            let request = amount(requirements, "requests", name).or(limit);
            asks_nothing &= limit.is_none() && request.is_none();
            is_guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (asks_nothing, is_guaranteed) {
        (true, _) => "BestEffort",
        (_, true) => "Guaranteed",
        _ => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes_should_follow_requests_and_limits() {
        let spec = |resources: Value| json!({"containers": [{"name": "a", "resources": resources}]});
        for (resources, class) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}),
                "Guaranteed",
            ),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
                "Burstable",
            ),
        ] {
            assert_eq!(class_of(&spec(resources.clone())), class, "{resources}");
        }
    }
}
