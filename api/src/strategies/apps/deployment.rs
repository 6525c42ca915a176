//! Deployments.

use serde_json::{Value, json};

use super::super::{
    common::{default_template, endless_template, selector_of_template, spec, spec_mut},
    pod,
};
use super::replica_set::replica_counts;
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch, same_meaning},
    intstr,
};

const REVISION: &str = "deployment.kubernetes.io/revision";

/// What is special about deployments.
pub struct Deployment;

impl Strategy for Deployment {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = spec_mut(object) else { return };
        spec.default_to("replicas", 1);
        spec.default_to("revisionHistoryLimit", 10);
        spec.default_to("progressDeadlineSeconds", 600);
        if let Some(strategy) = spec.object_mut("strategy") {
            strategy.default_text("type", "RollingUpdate");
            if strategy.text("type") == "RollingUpdate"
                && let Some(rolling) = strategy.object_mut("rollingUpdate")
            {
                rolling.default_to("maxUnavailable", "25%");
                rolling.default_to("maxSurge", "25%");
            }
        }
        default_template(spec);
    }

    fn generation_grows(&self, new: &Value, old: &Value) -> bool {
        // The controller's own mark is no wish of a user.
        let annotations = |object: &Value| {
            let mut all = object.dig(&["metadata", "annotations"]).cloned().unwrap_or(json!({}));
            all.drop_field(REVISION);
            all
        };
        !same_meaning(new.get("spec"), old.get("spec")) || annotations(new) != annotations(old)
    }

    fn check(&self, object: &At) {
        let spec = object.field("spec");
        spec.non_negative(&[
            "replicas",
            "minReadySeconds",
            "revisionHistoryLimit",
            "progressDeadlineSeconds",
        ]);
        selector_of_template(&spec, "deployment");
        endless_template(&spec, "ReplicaSet");
        check_strategy(&spec.field("strategy"));
        spec.optional("progressDeadlineSeconds", |deadline| {
            if deadline.number() <= spec.field("minReadySeconds").number() {
                deadline.invalid("must be greater than minReadySeconds");
            }
        });
    }

    fn check_update(&self, new: &At, old: &Value, context: &WriteContext) {
        if context.subresource == Some("status") {
            let status = new.field("status");
            replica_counts(&status, &["updatedReplicas", "readyReplicas", "availableReplicas"]);
            status.non_negative(&["unavailableReplicas", "terminatingReplicas", "collisionCount"]);
        } else {
            new.field("spec").fixed(spec(old), &["selector"]);
        }
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        pod::warnings_of_template(new, old)
    }
}

fn check_strategy(strategy: &At) {
    let rolling = strategy.field("rollingUpdate");
    match (strategy.text("type"), rolling.is_given()) {
        ("Recreate", true) => rolling.forbidden("may not be specified when strategy `type` is 'Recreate'"),
        ("Recreate", false) => {}
        ("RollingUpdate", false) => rolling.required("this should be defaulted and never be nil"),
        ("RollingUpdate", true) => rolling_update(&rolling),
        _ => strategy.not_supported_value(strategy.value().clone(), &["Recreate", "RollingUpdate"]),
    }
}

fn rolling_update(rolling: &At) {
    let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
    intstr::check_amount(&unavailable);
    intstr::check_amount(&surge);
    if intstr::is_zero(&unavailable) && intstr::is_zero(&surge) {
        unavailable.invalid("may not be 0 when `maxSurge` is 0");
    }
    intstr::check_not_above_all(&unavailable);
}
