//! Disruption budgets.

use crate::{Strategy, at::At, field::Look, intstr, selector};

/// What is special about disruption budgets.
pub struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
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
