//! Disruption budgets.

use serde_json::{Value, json};

use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch},
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
        let none =
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
        object.put("status", none);
    }

    fn check(&self, object: &At) {
        let spec = object.field("spec");
        if spec.at("minAvailable").is_some() && spec.at("maxUnavailable").is_some() {
            spec.invalid("minAvailable and maxUnavailable cannot be both set");
        }
        for name in ["minAvailable", "maxUnavailable"] {
            spec.optional(name, |amount| {
                intstr::check_amount(amount);
                intstr::check_not_above_all(amount);
            });
        }
        spec.optional("selector", selector::check);
        spec.optional("unhealthyPodEvictionPolicy", |policy| {
            policy.among(&["AlwaysAllow", "IfHealthyBudget"]);
        });
    }
}
