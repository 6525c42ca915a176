//! Checks of amounts of resources.

use serde_json::Value;

use crate::{
    field::{Errors, Look, Path, PathExt},
    names,
    quantity::Quantity,
};

/// Resources of containers that need no domain.
const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage"];
/// What quotas and limit ranges know besides.
const STANDARD_ELSEWHERE: &[&str] = &["pods", "storage", "requests.cpu", "requests.memory", "limits.cpu"];
const HUGE_PAGES: &str = "hugepages-";
const NATIVE_DOMAIN: &str = "kubernetes.io/";

/// Checks `limits` and `requests` of a container.
pub fn validate(errors: &mut Errors, path: &Path, requirements: &Value) {
    let limits_path = path.field("limits");
    let requests_path = path.field("requests");
    validate_list(errors, &limits_path, requirements, "limits");
    validate_list(errors, &requests_path, requirements, "requests");
    let limits = requirements.get("limits").unwrap_or(&Value::Null);
    for (name, request) in requirements.entries("requests") {
        let Ok(request) = Quantity::from_json(request) else { continue };
        let limit = limits.at(name).and_then(|limit| Quantity::from_json(limit).ok());
        match limit {
            Some(limit) if request != limit && !may_overcommit(name) => {
                let detail = format!("must be equal to {name} limit of {limit}");
                errors.invalid(&requests_path, request.to_string(), detail);
            }
            Some(limit) if request > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.invalid(&requests_path, request.to_string(), detail);
            }
            None if !may_overcommit(name) => {
                errors.required(&limits_path, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    let names = || ["limits", "requests"].into_iter().flat_map(|l| requirements.entries(l)).map(|(n, _)| n);
    if names().any(|n| n.starts_with(HUGE_PAGES)) && !names().any(|n| n == "cpu" || n == "memory") {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

/// Checks the names and amounts of one map; `path` is the map's own.
pub fn validate_list(errors: &mut Errors, path: &Path, parent: &Value, list: &str) {
    for (name, amount) in parent.entries(list) {
        let path = path.key(name);
        container_resource_name(errors, &path, name);
        validate_amount(errors, &path, name, amount);
    }
}

/// Checks an amount of a named resource.
pub fn validate_amount(errors: &mut Errors, path: &Path, name: &str, amount: &Value) {
    match Quantity::from_json(amount) {
        Err(why) => errors.invalid(path, amount.clone(), why.to_string()),
        Ok(quantity) if quantity.is_negative() => {
            errors.invalid(path, quantity.to_string(), "must be greater than or equal to 0");
        }
        Ok(quantity) if !is_divisible(name) && !quantity.is_whole() => {
            errors.invalid(path, quantity.to_string(), "must be an integer");
        }
        Ok(_) => {}
    }
}

fn container_resource_name(errors: &mut Errors, path: &Path, name: &str) {
    let faults = names::qualified_name(name);
    if !faults.is_empty() {
        errors.invalid_each(path, name, faults);
    } else if !name.contains('/') {
        if STANDARD.contains(&name) || name.starts_with(HUGE_PAGES) {
            return;
        }
        if !STANDARD_ELSEWHERE.contains(&name) {
            errors.invalid(path, name, "must be a standard resource type or fully qualified");
        }
        errors.invalid(path, name, "must be a standard resource for containers");
    } else if !is_native(name) && name.starts_with("requests.") {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains(NATIVE_DOMAIN)
}

/// Whether less may be requested than the limit: not of huge pages and devices.
fn may_overcommit(name: &str) -> bool {
    is_native(name) && !name.starts_with(HUGE_PAGES)
}

/// Whether a fraction of it makes sense: not of devices.
fn is_divisible(name: &str) -> bool {
    is_native(name) && !["pods", "services", "secrets", "configmaps"].contains(&name)
}
