//! Limit ranges.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::super::pod_spec::defaults::canonicalize_list;
use crate::{
    Strategy,
    at::At,
    field::{Look, Touch},
    names,
    quantity::Quantity,
};

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

/// What is special about limit ranges.
pub struct LimitRange;

impl Strategy for LimitRange {
    fn set_defaults(&self, object: &mut Value) {
        object.inside("spec", |spec| spec.each_inside("limits", set_limit));
    }

    fn check(&self, object: &At) {
        let mut types = BTreeSet::new();
        for limit in object.field("spec.limits").elements() {
            let kind = limit.field("type");
            kind.form(names::qualified_name);
            kind.unique(&mut types);
            if kind.str() == "Pod" {
                for list in ["default", "defaultRequest"].map(|list| limit.field(list)) {
                    if !list.is_empty() {
                        list.forbidden("may not be specified when `type` is 'Pod'");
                    }
                }
            }
            if kind.str() == "PersistentVolumeClaim"
                && ["min", "max"].iter().all(|list| limit.dig(&[list, "storage"]).is_none())
            {
                limit.field("limits").required(
                    "either minimum or maximum storage value is required, but neither was provided",
                );
            }
            check_amounts(&limit);
        }
    }
}

fn set_limit(limit: &mut Value) {
    for list in LISTS {
        canonicalize_list(limit, list);
    }
    if limit.text("type") != "Container" {
        return;
    }
    // A limit not given is the largest one, a request not given is the limit, or else the smallest one.
    for (target, source) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
        let amounts = limit.at(source).and_then(Value::as_object).cloned().unwrap_or_default();
        fill(limit, target, amounts);
    }
}

fn fill(limit: &mut Value, list: &str, amounts: Map<String, Value>) {
    if amounts.is_empty() {
        return;
    }
    let Some(target) = limit.object_mut(list) else { return };
    for (name, amount) in amounts {
        target.default_to(&name, amount);
    }
}

/// Which amount may not be above which other one, and of which of the two that is said.
const ORDER: [(&str, &str, &str, &str); 6] = [
    ("min", "max", "min", "min value {a} is greater than max value {b}"),
    ("min", "defaultRequest", "defaultRequest", "min value {a} is greater than default request value {b}"),
    ("defaultRequest", "max", "defaultRequest", "default request value {a} is greater than max value {b}"),
    (
        "defaultRequest",
        "default",
        "defaultRequest",
        "default request value {a} is greater than default limit value {b}",
    ),
    ("min", "default", "default", "min value {a} is greater than default value {b}"),
    ("default", "max", "default", "default value {a} is greater than max value {b}"),
];

fn check_amounts(limit: &At) {
    let names: BTreeSet<&String> =
        LISTS.iter().flat_map(|list| limit.entries(list)).map(|(name, _)| name).collect();
    for name in names {
        let amount = |list: &str| limit.dig(&[list, name]).and_then(|a| Quantity::from_json(a).ok());
        let blame = |list: &str, value: &Quantity, detail: String| {
            limit.field(list).key(name).invalid_value(value.to_string(), detail);
        };
        for (low, high, blamed, said) in ORDER {
            let (Some(low), Some(high), Some(value)) = (amount(low), amount(high), amount(blamed)) else {
                continue;
            };
            if low > high {
                blame(
                    blamed,
                    &value,
                    said.replace("{a}", &low.to_string()).replace("{b}", &high.to_string()),
                );
            }
        }
        if let Some(ratio) = amount("maxLimitRequestRatio").filter(|r| r.milli_value() < 1000) {
            blame("maxLimitRequestRatio", &ratio, format!("ratio {ratio} is less than 1"));
        }
    }
}
