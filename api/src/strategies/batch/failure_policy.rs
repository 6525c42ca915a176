//! The rules of a job about pods that fail.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{at::At, field::Look, names};

const RULES_MAX: usize = 20;
const CONDITIONS_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

/// Checks `podFailurePolicy.rules` of a job's spec.
pub(super) fn check(spec: &At) {
    let rules = spec.field("podFailurePolicy.rules");
    rules.at_most(RULES_MAX);
    for rule in rules.elements() {
        let action = rule.field("action");
        if action.str() == "FailIndex" && spec.at("backoffLimitPerIndex").is_none() {
            action.invalid("requires the backoffLimitPerIndex to be set");
        }
        action.one_of(&ACTIONS);
        rule.optional("onExitCodes", |codes| check_exit_codes(codes, spec));
        let patterns = rule.field("onPodConditions");
        patterns.at_most(CONDITIONS_MAX);
        for pattern in patterns.elements() {
            pattern.field("type").form(names::qualified_name);
            pattern.field("status").one_of(&["False", "True", "Unknown"]);
        }
        match (rule.at("onExitCodes"), patterns.is_empty()) {
            (Some(_), false) => {
                rule.invalid_unnamed("specifying both OnExitCodes and OnPodConditions is not supported");
            }
            (None, true) => {
                rule.invalid_unnamed("specifying one of OnExitCodes and OnPodConditions is required");
            }
            _ => {}
        }
    }
}

fn check_exit_codes(codes: &At, spec: &At) {
    codes.field("operator").one_of(&["In", "NotIn"]);
    codes.optional("containerName", |name| {
        let has = |list| spec.field(list).list().iter().any(|container| container.text("name") == name.str());
        if !has("template.spec.containers") && !has("template.spec.initContainers") {
            name.invalid("must be one of the container or initContainer names in the pod template");
        }
    });
    let values = codes.field("values");
    if values.is_empty() {
        return values.invalid_value(values.list().to_vec(), "at least one value is required");
    }
    values.at_most(EXIT_CODES_MAX);
    let mut seen = BTreeSet::new();
    for value in values.elements() {
        if value.number() == 0 && codes.text("operator") == "In" {
            value.invalid("must not be 0 for the In operator");
        }
        if !seen.insert(value.number()) {
            value.duplicate();
        }
    }
    if !values.list().is_sorted_by_key(Value::as_i64) {
        values.invalid("must be ordered");
    }
}
