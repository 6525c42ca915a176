//! Deployments.

use serde_json::{Value, json};

use super::super::{
    common::{
        default_template, endless_template, immutable, non_negative, reset_status, selector_of_template, spec,
    },
    pod,
};
use super::replica_set::replica_counts;
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch, same_meaning},
    intstr,
};

const REVISION: &str = "deployment.kubernetes.io/revision";

/// What is special about deployments.
pub struct Deployment;

impl Strategy for Deployment {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
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

    fn tracks_generation(&self) -> bool {
        true
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

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        reset_status(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        non_negative(
            &mut errors,
            &path,
            spec,
            &["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"],
        );
        selector_of_template(&mut errors, &path, spec, "deployment");
        endless_template(&mut errors, &path, spec, "ReplicaSet");
        strategy(&mut errors, &path.field("strategy"), spec.get("strategy").unwrap_or(&Value::Null));
        if let Some(deadline) = spec.int("progressDeadlineSeconds")
            && deadline <= spec.int("minReadySeconds").unwrap_or_default()
        {
            let detail = "must be greater than minReadySeconds";
            errors.invalid(&path.field("progressDeadlineSeconds"), deadline, detail);
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if context.subresource == Some("status") {
            let status = new.get("status").unwrap_or(&Value::Null);
            replica_counts(&mut errors, status, &["updatedReplicas", "readyReplicas", "availableReplicas"]);
            let others = ["unavailableReplicas", "terminatingReplicas", "collisionCount"];
            non_negative(&mut errors, &Path::ROOT.field("status"), status, &others);
        } else {
            immutable(&mut errors, &Path::ROOT.field("spec"), spec(new), spec(old), &["selector"]);
        }
        errors.into_vec()
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        pod::warnings_of_template(new, old)
    }
}

fn strategy(errors: &mut Errors, path: &Path, strategy: &Value) {
    let rolling_path = path.field("rollingUpdate");
    match (strategy.text("type"), strategy.at("rollingUpdate")) {
        ("Recreate", Some(_)) => {
            errors.forbidden(&rolling_path, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            errors.required(&rolling_path, "this should be defaulted and never be nil");
        }
        ("RollingUpdate", Some(rolling)) => rolling_update(errors, &rolling_path, rolling),
        _ => errors.not_supported(path, strategy.clone(), &["Recreate", "RollingUpdate"]),
    }
}

fn rolling_update(errors: &mut Errors, path: &Path, rolling: &Value) {
    let zero = json!(0);
    let unavailable = rolling.at("maxUnavailable").unwrap_or(&zero);
    let surge = rolling.at("maxSurge").unwrap_or(&zero);
    intstr::validate_amount(errors, &path.field("maxUnavailable"), unavailable);
    intstr::validate_amount(errors, &path.field("maxSurge"), surge);
    if intstr::is_zero(unavailable) && intstr::is_zero(surge) {
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.invalid(&path.field("maxUnavailable"), unavailable.clone(), detail);
    }
    intstr::validate_not_above_all(errors, &path.field("maxUnavailable"), unavailable);
}
