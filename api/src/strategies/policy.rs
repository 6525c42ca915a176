//! Disruption budgets.

use serde_json::Value;

use super::common::{reset_status, spec};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch},
    intstr, selector,
};

/// What is special about disruption budgets.
pub struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
    fn tracks_generation(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        reset_status(object);
        let counts = ["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"];
        if let Some(status) = object.get_mut("status") {
            counts.iter().for_each(|name| status.put(name, 0));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        if spec.at("minAvailable").is_some() && spec.at("maxUnavailable").is_some() {
            let detail = "minAvailable and maxUnavailable cannot be both set";
            errors.invalid(&path, spec.clone(), detail);
        }
        for name in ["minAvailable", "maxUnavailable"] {
            if let Some(amount) = spec.at(name) {
                intstr::validate_amount(&mut errors, &path.field(name), amount);
                intstr::validate_not_above_all(&mut errors, &path.field(name), amount);
            }
        }
        if let Some(selector) = spec.at("selector") {
            selector::validate_object(&mut errors, &path.field("selector"), selector);
        }
        let policy = spec.text("unhealthyPodEvictionPolicy");
        let known = ["AlwaysAllow", "IfHealthyBudget"];
        if spec.at("unhealthyPodEvictionPolicy").is_some() && !known.contains(&policy) {
            errors.not_supported(&path.field("unhealthyPodEvictionPolicy"), policy, &known);
        }
        errors.into_vec()
    }
}
