//! Resource quotas.

use serde_json::Value;

use super::super::{
    common::{reset_status, spec},
    pod_spec::{defaults::canonicalize_list, resources},
};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt},
    names,
};

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
        if let Some(spec) = object.get_mut("spec") {
            canonicalize_list(spec, "hard");
        }
        if let Some(status) = object.get_mut("status") {
            canonicalize_list(status, "hard");
            canonicalize_list(status, "used");
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        reset_status(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let hard = path.field("hard");
        for (name, amount) in spec(object).entries("hard") {
            let path = hard.key(name);
            let faults = names::qualified_name(name);
            if !faults.is_empty() {
                errors.invalid_each(&path, name, faults);
            } else if !name.contains('/')
                && !STANDARD.contains(&name.as_str())
                && !name.contains("hugepages-")
            {
                errors.invalid(&path, name.as_str(), "must be a standard resource type or fully qualified");
            }
            resources::validate_amount(&mut errors, &path, name, amount);
        }
        let scopes = spec(object).items("scopes");
        for scope in scopes.iter().filter_map(Value::as_str) {
            if !SCOPES.contains(&scope) {
                errors.invalid(&path.field("scopes"), scopes.to_vec(), "unsupported scope");
            }
            for _ in spec(object).entries("hard").filter(|(name, _)| !counts(scope, name)) {
                errors.invalid(
                    &path.field("scopes"),
                    scopes.to_vec(),
                    "unsupported scope applied to resource",
                );
            }
        }
        if let Some(selector) = spec(object).at("scopeSelector") {
            scope_selector(&mut errors, &path.field("scopeSelector.matchExpressions"), selector);
        }
        for [one, other] in [["Terminating", "NotTerminating"], ["BestEffort", "NotBestEffort"]] {
            if [one, other].iter().all(|scope| scopes.iter().any(|s| s == scope)) {
                errors.invalid(&path.field("scopes"), scopes.to_vec(), "conflicting scopes");
            }
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        super::super::common::immutable(&mut errors, &path, spec(new), spec(old), &["scopes"]);
        errors.into_vec()
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

fn scope_selector(errors: &mut Errors, path: &Path, selector: &Value) {
    for requirement in selector.items("matchExpressions") {
        let (scope, operator) = (requirement.text("scopeName"), requirement.text("operator"));
        let values = requirement.items("values");
        if !SCOPES.contains(&scope) {
            errors.invalid(&path.field("scopeName"), scope, "unsupported scope");
        }
        if !["PriorityClass", "VolumeAttributesClass"].contains(&scope) && operator != "Exists" {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                          ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                          ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(&path.field("operator"), operator, detail);
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => errors.required(
                &path.field("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.invalid(
                &path.field("values"),
                values.to_vec(),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.field("operator"), other, "not a valid selector operator"),
        }
    }
}
