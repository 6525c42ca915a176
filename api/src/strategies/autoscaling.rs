//! Horizontal pod autoscalers, in autoscaling/v2.

use serde_json::{Value, json};

use super::common::spec;
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch},
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
        let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
        spec.default_to("minReplicas", 1);
        if spec.items("metrics").is_empty() {
            let target = json!({"type": "Utilization", "averageUtilization": CPU_UTILIZATION});
            spec.put("metrics", json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
        }
        for metric in spec.items_mut("metrics") {
            for (_, source) in SOURCES {
                let Some(target) = metric.get_mut(source).and_then(|s| s.get_mut("target")) else { continue };
                for name in ["value", "averageValue"] {
                    if let Some(amount) = target.get_mut(name) {
                        quantity::canonicalize(amount);
                    }
                }
            }
        }
        if let Some(behavior) = spec.get_mut("behavior").filter(|b| b.is_object()) {
            fill_rules(
                behavior,
                "scaleUp",
                json!([
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                    {"type": "Percent", "value": 100, "periodSeconds": 15},
                ]),
            );
            if let Some(up) = behavior.get_mut("scaleUp") {
                up.default_to("stabilizationWindowSeconds", 0);
            }
            fill_rules(
                behavior,
                "scaleDown",
                json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]),
            );
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.put("status", json!({"desiredReplicas": 0}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        let most = spec.int("maxReplicas").unwrap_or_default();
        let least = spec.int("minReplicas");
        let most_path = path.field("maxReplicas");
        if let Some(least) = least.filter(|l| *l < 1) {
            errors.invalid(&path.field("minReplicas"), least, "must be greater than or equal to 1");
        }
        if most == 0 {
            errors.required(&most_path, "must be set and greater than 0");
        } else if most < 0 {
            errors.invalid(&most_path, most, "must be greater than or equal to 1");
        }
        if least.is_some_and(|least| most < least) {
            errors.invalid(&most_path, most, "must be greater than or equal to `minReplicas`");
        }
        let target = spec.get("scaleTargetRef").unwrap_or(&Value::Null);
        let target_path = path.field("scaleTargetRef");
        for name in ["kind", "name"] {
            let value = target.text(name);
            if value.is_empty() {
                errors.required(&target_path.field(name), "");
            }
            errors.invalid_each(&target_path.field(name), value, names::path_segment(value));
        }
        let metrics = path.field("metrics");
        for (index, metric) in spec.items("metrics").iter().enumerate() {
            validate_metric(&mut errors, &metrics.index(index), metric);
        }
        if let Some(behavior) = spec.at("behavior") {
            let path = path.field("behavior");
            for name in ["scaleUp", "scaleDown"] {
                if let Some(rules) = behavior.at(name) {
                    validate_rules(&mut errors, &path.field(name), rules);
                }
            }
        }
        errors.into_vec()
    }
}

fn fill_rules(behavior: &mut Value, name: &str, policies: Value) {
    let Some(rules) = behavior.object_mut(name) else { return };
    rules.default_text("selectPolicy", "Max");
    rules.default_to("policies", policies);
}

fn validate_metric(errors: &mut Errors, path: &Path, metric: &Value) {
    let kind = metric.text("type");
    if kind.is_empty() {
        errors.required(&path.field("type"), "must specify a metric source type");
    }
    let kinds = SOURCES.map(|(kind, _)| kind);
    let Some((_, expected)) = SOURCES.iter().find(|(known, _)| *known == kind) else {
        return errors.not_supported(&path.field("type"), kind, &kinds);
    };
    if metric.at(expected).is_none() {
        errors.required(&path.field(expected), "must populate information for the given metric source");
    }
    for (_, source) in SOURCES.iter().filter(|(_, s)| s != expected && metric.at(s).is_some()) {
        errors.forbidden(&path.field(source), "must populate the given metric source only");
    }
    let Some(source) = metric.at(expected) else { return };
    let path = path.field(expected);
    if kind.ends_with("Resource") && source.text("name").is_empty() {
        errors.required(&path.field("name"), "must specify a resource name");
    }
    let target = source.get("target").unwrap_or(&Value::Null);
    let path = path.field("target");
    let type_path = path.field("type");
    if target.text("type").is_empty() {
        errors.required(&type_path, "must specify a metric target type");
    }
    if !["Utilization", "Value", "AverageValue"].contains(&target.text("type")) {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.invalid(&type_path, target.text("type"), detail);
    }
    for name in ["value", "averageValue"] {
        if let Some(amount) = target.at(name).and_then(|a| Quantity::from_json(a).ok())
            && (amount.is_zero() || amount.is_negative())
        {
            errors.invalid(&path.field(name), amount.to_string(), "must be positive");
        }
    }
    if let Some(percent) = target.int("averageUtilization").filter(|p| *p < 1) {
        errors.invalid(&path.field("averageUtilization"), percent, "must be greater than 0");
    }
}

fn validate_rules(errors: &mut Errors, path: &Path, rules: &Value) {
    let window_path = path.field("stabilizationWindowSeconds");
    match rules.int("stabilizationWindowSeconds") {
        Some(seconds) if seconds < 0 => {
            errors.invalid(&window_path, seconds, "must be greater than or equal to zero");
        }
        Some(seconds) if seconds > WINDOW_SECONDS_MAX => {
            let detail = format!("must be less than or equal to {WINDOW_SECONDS_MAX}");
            errors.invalid(&window_path, seconds, detail);
        }
        _ => {}
    }
    let words = ["Disabled", "Max", "Min"];
    if !words.contains(&rules.text("selectPolicy")) {
        errors.not_supported(&path.field("selectPolicy"), rules.text("selectPolicy"), &words);
    }
    let policies_path = path.field("policies");
    if rules.items("policies").is_empty() {
        errors.required(&policies_path, "must specify at least one Policy");
    }
    for (index, policy) in rules.items("policies").iter().enumerate() {
        let path = policies_path.index(index);
        if !["Percent", "Pods"].contains(&policy.text("type")) {
            errors.not_supported(&path.field("type"), policy.text("type"), &["Percent", "Pods"]);
        }
        for name in ["value", "periodSeconds"] {
            let value = policy.int(name).unwrap_or_default();
            if value <= 0 {
                errors.invalid(&path.field(name), value, "must be greater than zero");
            }
        }
        if let Some(seconds) = policy.int("periodSeconds").filter(|s| *s > PERIOD_SECONDS_MAX) {
            let detail = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
            errors.invalid(&path.field("periodSeconds"), seconds, detail);
        }
    }
}
