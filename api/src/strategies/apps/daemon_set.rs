//! Daemon sets.

use serde_json::{Value, json};

use super::super::{
    common::{default_template, endless_template, immutable, non_negative, selector_of_template, spec},
    pod,
};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch},
    intstr,
};

/// What is special about daemon sets.
pub struct DaemonSet;

const COUNTS: [&str; 4] =
    ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"];

impl Strategy for DaemonSet {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
        spec.default_to("revisionHistoryLimit", 10);
        if let Some(strategy) = spec.object_mut("updateStrategy") {
            strategy.default_text("type", "RollingUpdate");
            if strategy.text("type") == "RollingUpdate"
                && let Some(rolling) = strategy.object_mut("rollingUpdate")
            {
                rolling.default_to("maxUnavailable", 1);
                rolling.default_to("maxSurge", 0);
            }
        }
        default_template(spec);
    }

    fn tracks_generation(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.put("status", COUNTS.iter().map(|name| ((*name).to_string(), json!(0))).collect::<Value>());
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        selector_of_template(&mut errors, &path, spec, "daemonset");
        endless_template(&mut errors, &path, spec, "DaemonSet");
        non_negative(&mut errors, &path, spec, &["minReadySeconds", "revisionHistoryLimit"]);
        let strategy_path = path.field("updateStrategy");
        let strategy = spec.get("updateStrategy").unwrap_or(&Value::Null);
        match (strategy.text("type"), strategy.at("rollingUpdate")) {
            ("OnDelete", _) => {}
            ("RollingUpdate", None) => errors.required(&strategy_path.field("rollingUpdate"), ""),
            ("RollingUpdate", Some(rolling)) => {
                rolling_update(&mut errors, &strategy_path.field("rollingUpdate"), rolling);
            }
            _ => errors.not_supported(&strategy_path, strategy.clone(), &["RollingUpdate", "OnDelete"]),
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if context.subresource == Some("status") {
            let path = Path::ROOT.field("status");
            non_negative(&mut errors, &path, new.get("status").unwrap_or(&Value::Null), &COUNTS);
        } else {
            immutable(&mut errors, &Path::ROOT.field("spec"), spec(new), spec(old), &["selector"]);
        }
        errors.into_vec()
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        pod::warnings_of_template(new, old)
    }
}

fn rolling_update(errors: &mut Errors, path: &Path, rolling: &Value) {
    let zero = json!(0);
    let unavailable = rolling.at("maxUnavailable").unwrap_or(&zero);
    let surge = rolling.at("maxSurge").unwrap_or(&zero);
    for (name, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
        intstr::validate_amount(errors, &path.field(name), value);
        intstr::validate_not_above_all(errors, &path.field(name), value);
    }
    match (intstr::is_zero(unavailable), intstr::is_zero(surge)) {
        (false, false) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.invalid(&path.field("maxSurge"), surge.clone(), detail);
        }
        (true, true) => {
            errors.required(&path.field("maxUnavailable"), "cannot be 0 when maxSurge is 0");
        }
        _ => {}
    }
}
