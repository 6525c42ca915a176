//! Limit ranges.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::super::{
    common::{Seen, spec},
    pod_spec::defaults::canonicalize_list,
};
use crate::{
    FieldError, Strategy,
    field::{Errors, Look, Path, PathExt, Touch},
    names,
    quantity::Quantity,
};

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

/// What is special about limit ranges.
pub struct LimitRange;

impl Strategy for LimitRange {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec") else { return };
        for limit in spec.items_mut("limits") {
            for list in LISTS {
                canonicalize_list(limit, list);
            }
            if limit.text("type") != "Container" {
                continue;
            }
            // A limit not given is the largest one, a request not given is the limit, or else the smallest one.
            for (target, source) in
                [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")]
            {
                let amounts = limit.at(source).and_then(Value::as_object).cloned().unwrap_or_default();
                fill(limit, target, amounts);
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec.limits");
        let mut types = Seen::default();
        for (index, limit) in spec(object).items("limits").iter().enumerate() {
            let path = path.index(index);
            let kind = limit.text("type");
            errors.invalid_each(&path.field("type"), kind, names::qualified_name(kind));
            if !types.is_new(kind) {
                errors.duplicate(&path.field("type"), kind);
            }
            if kind == "Pod" {
                for list in ["default", "defaultRequest"] {
                    if limit.entries(list).next().is_some() {
                        errors.forbidden(&path.field(list), "may not be specified when `type` is 'Pod'");
                    }
                }
            }
            if kind == "PersistentVolumeClaim"
                && ["min", "max"].iter().all(|list| limit.dig(&[list, "storage"]).is_none())
            {
                let detail = "either minimum or maximum storage value is required, but neither was provided";
                errors.required(&path.field("limits"), detail);
            }
            amounts(&mut errors, &path, limit);
        }
        errors.into_vec()
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

fn amounts(errors: &mut Errors, path: &Path, limit: &Value) {
    let names: BTreeSet<&String> =
        LISTS.iter().flat_map(|list| limit.entries(list)).map(|(name, _)| name).collect();
    let order = [
        ("min", "max", "min", "min value {a} is greater than max value {b}"),
        (
            "min",
            "defaultRequest",
            "defaultRequest",
            "min value {a} is greater than default request value {b}",
        ),
        (
            "defaultRequest",
            "max",
            "defaultRequest",
            "default request value {a} is greater than max value {b}",
        ),
        (
            "defaultRequest",
            "default",
            "defaultRequest",
            "default request value {a} is greater than default limit value {b}",
        ),
        ("min", "default", "default", "min value {a} is greater than default value {b}"),
        ("default", "max", "default", "default value {a} is greater than max value {b}"),
    ];
    for name in names {
        let amount = |list: &str| limit.dig(&[list, name]).and_then(|a| Quantity::from_json(a).ok());
        for (low, high, blamed, said) in order {
            let (Some(low), Some(high), Some(value)) = (amount(low), amount(high), amount(blamed)) else {
                continue;
            };
            if low > high {
                let detail = said.replace("{a}", &low.to_string()).replace("{b}", &high.to_string());
                errors.invalid(&path.field(blamed).key(name), value.to_string(), detail);
            }
        }
        if let Some(ratio) = amount("maxLimitRequestRatio").filter(|r| r.milli_value() < 1000) {
            let detail = format!("ratio {ratio} is less than 1");
            errors.invalid(&path.field("maxLimitRequestRatio").key(name), ratio.to_string(), detail);
        }
    }
}
