//! The rules of a job about pods that fail.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::common::one_of;
use crate::{
    field::{Errors, Look, Path, PathExt},
    names,
};

const RULES_MAX: usize = 20;
const CONDITIONS_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

/// Checks `podFailurePolicy.rules` of a job's spec.
pub(super) fn validate(errors: &mut Errors, path: &Path, spec: &Value) {
    let rules = spec.at("podFailurePolicy").map(|policy| policy.items("rules")).unwrap_or_default();
    if rules.len() > RULES_MAX {
        errors.too_many(path, rules.len(), RULES_MAX);
    }
    let pod = spec.dig(&["template", "spec"]).unwrap_or(&Value::Null);
    let containers: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| pod.items(list))
        .map(|container| container.text("name"))
        .collect();
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        let action_path = path.field("action");
        if rule.text("action") == "FailIndex" && spec.at("backoffLimitPerIndex").is_none() {
            errors.invalid(&action_path, "FailIndex", "requires the backoffLimitPerIndex to be set");
        }
        one_of(errors, &action_path, rule, &ACTIONS);
        if let Some(codes) = rule.at("onExitCodes") {
            exit_codes(errors, &path.field("onExitCodes"), codes, &containers);
        }
        conditions(errors, &path.field("onPodConditions"), rule.items("onPodConditions"));
        match (rule.at("onExitCodes"), rule.items("onPodConditions").is_empty()) {
            (Some(_), false) => errors
                .invalid_unnamed(&path, "specifying both OnExitCodes and OnPodConditions is not supported"),
            (None, true) => {
                errors
                    .invalid_unnamed(&path, "specifying one of OnExitCodes and OnPodConditions is required");
            }
            _ => {}
        }
    }
}

fn conditions(errors: &mut Errors, path: &Path, patterns: &[Value]) {
    if patterns.len() > CONDITIONS_MAX {
        errors.too_many(path, patterns.len(), CONDITIONS_MAX);
    }
    for (index, pattern) in patterns.iter().enumerate() {
        let path = path.index(index);
        let kind = pattern.text("type");
        errors.invalid_each(&path.field("type"), kind, names::qualified_name(kind));
        one_of(errors, &path.field("status"), pattern, &["False", "True", "Unknown"]);
    }
}

fn exit_codes(errors: &mut Errors, path: &Path, codes: &Value, containers: &BTreeSet<&str>) {
    one_of(errors, &path.field("operator"), codes, &["In", "NotIn"]);
    if let Some(name) = codes.at("containerName").and_then(Value::as_str).filter(|n| !containers.contains(n))
    {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&path.field("containerName"), name, detail);
    }
    let path = path.field("values");
    let values: Vec<i64> = codes.items("values").iter().filter_map(Value::as_i64).collect();
    if values.is_empty() {
        errors.invalid(&path, values, "at least one value is required");
        return;
    }
    if values.len() > EXIT_CODES_MAX {
        errors.too_many(&path, values.len(), EXIT_CODES_MAX);
    }
    let mut seen = BTreeSet::new();
    for (index, value) in values.iter().enumerate() {
        if *value == 0 && codes.text("operator") == "In" {
            errors.invalid(&path.index(index), *value, "must not be 0 for the In operator");
        }
        if !seen.insert(value) {
            errors.duplicate(&path.index(index), *value);
        }
    }
    if !values.is_sorted() {
        errors.invalid(&path, values, "must be ordered");
    }
}
