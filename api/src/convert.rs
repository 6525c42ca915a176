//! From one served version of a kind to another.
//!
//! Guarantees: what the older version cannot say is kept in it as annotations, as upstream keeps it, so that a round
//! trip loses nothing. Kinds other than events and horizontal pod autoscalers are alike in all their versions.
//! Custom resources only change their API version: those with a converter of their own are none of this module's business.

mod autoscaler;
mod event;

use serde_json::Value;

use crate::{Row, ServedVersion, field::Touch};

/// Turns an object of the row from one version into another, where it stands.
pub fn convert(row: &Row, object: &mut Value, from: &ServedVersion, to: &ServedVersion) {
    if from == to {
        return;
    }
    if row.custom.is_none() {
        match (
            row.kind.as_str(),
            from.group.as_str(),
            from.version.as_str(),
            to.group.as_str(),
            to.version.as_str(),
        ) {
            ("HorizontalPodAutoscaler", _, "v1", _, "v2") => autoscaler::to_v2(object),
            ("HorizontalPodAutoscaler", _, "v2", _, "v1") => autoscaler::to_v1(object),
            ("Event", "", _, "events.k8s.io", _) => event::to_events_group(object),
            ("Event", "events.k8s.io", _, "", _) => event::to_core(object),
            _ => {}
        }
    }
    object.put("apiVersion", to.api_version().into_owned());
}

/// What a field by which a version's objects are selected is called in the stored version; `None` where it has none.
pub fn stored_field(version: &ServedVersion, field: &str) -> Option<String> {
    if version.group != "events.k8s.io" {
        return Some(field.to_string());
    }
    match (field, field.strip_prefix("regarding.")) {
        ("reason" | "type" | "metadata.name" | "metadata.namespace", _) => Some(field.to_string()),
        ("reportingController", _) => Some("reportingComponent".to_string()),
        (_, Some(part)) => Some(format!("involvedObject.{part}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ResourceTable;

    #[test]
    fn events_should_survive_the_round_trip() {
        let table = ResourceTable::built_in();
        let row = table.resource("", "v1", "events").unwrap();
        let [core, group] = row.served.as_slice() else { panic!("two versions") };
        let original = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"},
            "involvedObject": {"kind": "Pod", "name": "p"}, "related": {"kind": "Node", "name": "n"},
            "message": "m", "reason": "r", "type": "Normal", "source": {"component": "c", "host": "h"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:01Z", "count": 2,
            "reportingComponent": "rc", "reportingInstance": "ri", "action": "a",
            "eventTime": null, "series": {"count": 3, "lastObservedTime": "2026-01-01T00:00:02.000000Z"}});
        let mut object = original.clone();
        convert(row, &mut object, core, group);
        assert_eq!(object["apiVersion"], "events.k8s.io/v1");
        assert_eq!(object["regarding"]["name"], "p");
        assert_eq!(object["note"], "m");
        assert_eq!(object["reportingController"], "rc");
        assert_eq!(object["deprecatedCount"], 2);
        assert!(object.get("involvedObject").is_none());
        convert(row, &mut object, group, core);
        assert_eq!(object, original);
    }

    #[test]
    fn autoscalers_should_survive_the_round_trip() {
        let table = ResourceTable::built_in();
        let row = table.resource("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        let v1 = ServedVersion::new("autoscaling", "v1");
        let v2 = ServedVersion::new("autoscaling", "v2");
        let cpu = |percent: i64| {
            json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": percent}}})
        };
        let memory = json!({"type": "Resource", "resource": {"name": "memory",
            "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
        let original = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h"},
            "spec": {"maxReplicas": 5, "metrics": [memory, cpu(60)], "behavior": {"scaleDown": {"selectPolicy": "Max"}}},
            "status": {"currentReplicas": 1, "desiredReplicas": 2,
                "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 30, "averageValue": "300m"}}}]}});
        let mut object = original.clone();
        convert(row, &mut object, &v2, &v1);
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 60);
        assert_eq!(object["status"]["currentCPUUtilizationPercentage"], 30);
        assert!(object["spec"].get("metrics").is_none());
        convert(row, &mut object, &v1, &v2);
        let mut expected = original;
        // The order of metrics is not kept: CPU comes first.
        expected["spec"]["metrics"] = json!([cpu(60), memory]);
        assert_eq!(object, expected);
    }
}
