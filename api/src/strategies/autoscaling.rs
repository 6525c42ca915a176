//! Horizontal pod autoscalers, in autoscaling/v2.

use serde_json::{Value, json};

use super::common::spec_mut;
use crate::{
    Strategy,
    at::At,
    field::{Look, Touch},
    names,
    quantity::{self, Quantity},
};

const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
const CPU_UTILIZATION: i64 = 80;
const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;

/// What is special about horizontal pod autoscalers.
pub struct HorizontalPodAutoscaler;

impl Strategy for HorizontalPodAutoscaler {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = spec_mut(object) else { return };
        spec.default_to("minReplicas", 1);
        if spec.items("metrics").is_empty() {
            let target = json!({"type": "Utilization", "averageUtilization": CPU_UTILIZATION});
            spec.put("metrics", json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
        }
        spec.each_inside("metrics", |metric| {
            for (_, source) in SOURCES {
                metric.inside(source, |source| {
                    source.inside("target.value", quantity::canonicalize);
                    source.inside("target.averageValue", quantity::canonicalize);
                });
            }
        });
        spec.inside("behavior", |behavior| {
            fill_rules(
                behavior,
                "scaleUp",
                json!([
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                    {"type": "Percent", "value": 100, "periodSeconds": 15},
                ]),
            );
            behavior.inside("scaleUp", |up| up.default_to("stabilizationWindowSeconds", 0));
            fill_rules(
                behavior,
                "scaleDown",
                json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]),
            );
        });
    }

    fn check(&self, object: &At) {
        let spec = object.field("spec");
        let (most, least) = (spec.field("maxReplicas"), spec.field("minReplicas"));
        least.within(1.., "must be greater than or equal to 1");
        if most.number() == 0 {
            most.required("must be set and greater than 0");
        } else {
            most.within(1.., "must be greater than or equal to 1");
        }
        if least.is_given() && most.number() < least.number() {
            most.invalid_value(most.number(), "must be greater than or equal to `minReplicas`");
        }
        for name in ["kind", "name"] {
            let target = spec.field("scaleTargetRef");
            target.field(name).filled("");
            target.field(name).form(names::path_segment);
        }
        spec.each("metrics", check_metric);
        for name in ["behavior.scaleUp", "behavior.scaleDown"] {
            spec.optional(name, check_rules);
        }
    }
}

fn fill_rules(behavior: &mut Value, name: &str, policies: Value) {
    let Some(rules) = behavior.object_mut(name) else { return };
    rules.default_text("selectPolicy", "Max");
    rules.default_to("policies", policies);
}

fn check_metric(metric: &At) {
    let kind = metric.field("type");
    kind.filled("must specify a metric source type");
    let Some((_, expected)) = SOURCES.iter().find(|(known, _)| *known == kind.str()) else {
        return kind.not_supported(&SOURCES.map(|(kind, _)| kind));
    };
    let source = metric.field(expected);
    if !source.is_given() {
        source.required("must populate information for the given metric source");
    }
    for (_, other) in SOURCES.iter().filter(|(_, other)| other != expected) {
        metric.optional(other, |other| other.forbidden("must populate the given metric source only"));
    }
    if !source.is_given() {
        return;
    }
    if kind.str().ends_with("Resource") {
        source.field("name").filled("must specify a resource name");
    }
    let target = source.field("target");
    let kind = target.field("type");
    kind.filled("must specify a metric target type");
    if !["Utilization", "Value", "AverageValue"].contains(&kind.str()) {
        kind.invalid_text("must be either Utilization, Value, or AverageValue");
    }
    for name in ["value", "averageValue"] {
        if let Some(amount) = target.at(name).and_then(|a| Quantity::from_json(a).ok())
            && (amount.is_zero() || amount.is_negative())
        {
            target.field(name).invalid_value(amount.to_string(), "must be positive");
        }
    }
    target.field("averageUtilization").within(1.., "must be greater than 0");
}

fn check_rules(rules: &At) {
    let window = rules.field("stabilizationWindowSeconds");
    window.within(0.., "must be greater than or equal to zero");
    window.within(..=WINDOW_SECONDS_MAX, &format!("must be less than or equal to {WINDOW_SECONDS_MAX}"));
    rules.field("selectPolicy").among(&["Disabled", "Max", "Min"]);
    rules.field("policies").filled("must specify at least one Policy");
    rules.each("policies", |policy| {
        policy.field("type").among(&["Percent", "Pods"]);
        policy.field("value").number_within(1.., "must be greater than zero");
        let period = policy.field("periodSeconds");
        period.number_within(1.., "must be greater than zero");
        period.within(..=PERIOD_SECONDS_MAX, &format!("must be less than or equal to {PERIOD_SECONDS_MAX}"));
    });
}
