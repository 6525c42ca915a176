//! Daemon sets.

use serde_json::Value;

use super::super::{
    common::{default_template, endless_template, selector_of_template, spec, spec_mut},
    pod,
};
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch},
    intstr,
};

/// What is special about daemon sets.
pub struct DaemonSet;

const COUNTS: [&str; 4] =
    ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"];

impl Strategy for DaemonSet {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = spec_mut(object) else { return };
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

    fn check(&self, object: &At) {
        let spec = object.field("spec");
        selector_of_template(&spec, "daemonset");
        endless_template(&spec, "DaemonSet");
        spec.non_negative(&["minReadySeconds", "revisionHistoryLimit"]);
        let strategy = spec.field("updateStrategy");
        match (strategy.text("type"), strategy.given("rollingUpdate")) {
            ("OnDelete", _) => {}
            ("RollingUpdate", None) => strategy.field("rollingUpdate").required(""),
            ("RollingUpdate", Some(rolling)) => rolling_update(&rolling),
            _ => strategy.not_supported_value(strategy.value().clone(), &["RollingUpdate", "OnDelete"]),
        }
    }

    fn check_update(&self, new: &At, old: &Value, context: &WriteContext) {
        if context.subresource == Some("status") {
            new.field("status").non_negative(&COUNTS);
        } else {
            new.field("spec").fixed(spec(old), &["selector"]);
        }
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        pod::warnings_of_template(new, old)
    }
}

fn rolling_update(rolling: &At) {
    let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
    for amount in [&unavailable, &surge] {
        intstr::check_amount(amount);
        intstr::check_not_above_all(amount);
    }
    match (intstr::is_zero(&unavailable), intstr::is_zero(&surge)) {
        (false, false) => surge.invalid("may not be set when maxUnavailable is non-zero"),
        (true, true) => unavailable.required("cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}
