//! Checks of amounts of resources.

use crate::{at::At, field::Look, names, quantity::Quantity};

/// Resources of containers that need no domain.
const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage"];
/// What quotas and limit ranges know besides.
const STANDARD_ELSEWHERE: &[&str] = &["pods", "storage", "requests.cpu", "requests.memory", "limits.cpu"];
const HUGE_PAGES: &str = "hugepages-";
const NATIVE_DOMAIN: &str = "kubernetes.io/";

/// Checks `limits` and `requests` of a container.
pub fn check(requirements: &At) {
    let (limits, requests) = (requirements.field("limits"), requirements.field("requests"));
    check_list(&limits);
    check_list(&requests);
    for (name, request) in requests.members() {
        let Ok(request) = Quantity::from_json(&request) else { continue };
        let limit = limits.at(name).and_then(|limit| Quantity::from_json(limit).ok());
        match limit {
            Some(limit) if request != limit && !may_overcommit(name) => {
                let detail = format!("must be equal to {name} limit of {limit}");
                requests.invalid_value(request.to_string(), detail);
            }
            Some(limit) if request > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                requests.invalid_value(request.to_string(), detail);
            }
            None if !may_overcommit(name) => {
                limits.required("Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    let names = || [&limits, &requests].into_iter().flat_map(At::members).map(|(name, _)| name);
    if names().any(|n| n.starts_with(HUGE_PAGES)) && !names().any(|n| n == "cpu" || n == "memory") {
        requirements.forbidden("HugePages require cpu or memory");
    }
}

/// Checks the names and amounts of one map.
pub fn check_list(list: &At) {
    for (name, amount) in list.members() {
        check_container_resource(&amount, name);
        check_amount(&amount, name);
    }
}

/// Checks an amount of a named resource.
pub fn check_amount(amount: &At, name: &str) {
    match Quantity::from_json(amount) {
        Err(why) => amount.invalid(why.to_string()),
        Ok(quantity) if quantity.is_negative() => {
            amount.invalid_value(quantity.to_string(), "must be greater than or equal to 0");
        }
        Ok(quantity) if !is_divisible(name) && !quantity.is_whole() => {
            amount.invalid_value(quantity.to_string(), "must be an integer");
        }
        Ok(_) => {}
    }
}

fn check_container_resource(amount: &At, name: &str) {
    let faults = names::qualified_name(name);
    if !faults.is_empty() {
        amount.invalid_each(name, faults);
    } else if !name.contains('/') {
        if STANDARD.contains(&name) || name.starts_with(HUGE_PAGES) {
            return;
        }
        if !STANDARD_ELSEWHERE.contains(&name) {
            amount.invalid_value(name, "must be a standard resource type or fully qualified");
        }
        amount.invalid_value(name, "must be a standard resource for containers");
    } else if !is_native(name) && name.starts_with("requests.") {
        amount.invalid_value(name, "doesn't follow extended resource name standard");
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
