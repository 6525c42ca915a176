//! Resource quotas.

use serde_json::Value;

use super::super::{
    common::spec,
    pod_spec::{defaults::canonicalize_list, resources},
};
use crate::{Strategy, WriteContext, at::At, field::Touch, names};

/// What may be limited beside qualified names.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// What is special about resource quotas.
pub struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn set_defaults(&self, object: &mut Value) {
        object.inside("spec", |spec| canonicalize_list(spec, "hard"));
        object.inside("status", |status| {
            canonicalize_list(status, "hard");
            canonicalize_list(status, "used");
        });
    }

    fn check(&self, object: &At) {
        let spec = object.field("spec");
        let hard = spec.field("hard");
        for (name, amount) in hard.members() {
            let faults = names::qualified_name(name);
            if !faults.is_empty() {
                amount.invalid_each(name, faults);
            } else if !name.contains('/') && !STANDARD.contains(&name) && !name.contains("hugepages-") {
                amount.invalid_value(name, "must be a standard resource type or fully qualified");
            }
            resources::check_amount(&amount, name);
        }
        let scopes = spec.field("scopes");
        for scope in scopes.elements() {
            if !SCOPES.contains(&scope.str()) {
                scopes.invalid("unsupported scope");
            }
            for _ in hard.members().filter(|(name, _)| !counts(scope.str(), name)) {
                scopes.invalid("unsupported scope applied to resource");
            }
        }
        spec.field("scopeSelector.matchExpressions").list().iter().for_each(|requirement| {
            // Upstream names the list, not the element.
            check_scope(&spec.field("scopeSelector.matchExpressions").with(requirement));
        });
        for [one, other] in [["Terminating", "NotTerminating"], ["BestEffort", "NotBestEffort"]] {
            if [one, other].iter().all(|scope| scopes.list().iter().any(|s| s == scope)) {
                scopes.invalid("conflicting scopes");
            }
        }
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        new.field("spec").fixed(spec(old), &["scopes"]);
    }
}

/// Whether a quota of that scope can count a resource; extended ones are everybody's.
fn counts(scope: &str, resource: &str) -> bool {
    let of_pods = resource == "pods";
    let computed = matches!(resource.rsplit('.').next(), Some("cpu" | "memory"));
    match scope {
        _ if !STANDARD.contains(&resource) => true,
        "BestEffort" => of_pods,
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ if SCOPES.contains(&scope) => of_pods || computed,
        _ => true,
    }
}

fn check_scope(requirement: &At) {
    let (scope, operator) = (requirement.field("scopeName"), requirement.field("operator"));
    let values = requirement.field("values");
    if !SCOPES.contains(&scope.str()) {
        scope.invalid_text("unsupported scope");
    }
    if !["PriorityClass", "VolumeAttributesClass"].contains(&scope.str()) && operator.str() != "Exists" {
        operator.invalid_text(
            "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
             ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
             ResourceQuotaScopeCrossNamespacePodAffinity",
        );
    }
    match operator.str() {
        "In" | "NotIn" => {
            values.filled("must be at least one value when `operator` is 'In' or 'NotIn' for scope selector");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            values.invalid("must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector")
        }
        "Exists" | "DoesNotExist" => {}
        _ => operator.invalid_text("not a valid selector operator"),
    }
}
