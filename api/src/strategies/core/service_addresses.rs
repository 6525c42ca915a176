//! The rules of a service's cluster addresses and their families: what needs no knowledge of the cluster's ranges.

use serde_json::{Value, json};

use super::super::common::one_of;
use crate::{
    field::{Errors, Look, Path, PathExt, Touch},
    names, net,
};

const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];

/// Whether the service has no address of its own by its own wish.
pub fn is_headless(spec: &Value) -> bool {
    matches!(spec.items("clusterIPs"), [only] if only == "None") || spec.text("clusterIP") == "None"
}

/// Whether services of this type have addresses, or a word on having none.
pub fn has_addresses(spec: &Value) -> bool {
    spec.text("type") != "ExternalName"
}

/// An update that leaves out the addresses keeps them; one that names a single address speaks of the list's first.
pub(super) fn keep(spec: &mut Value, old: &Value) {
    let list_before = || json!(old.items("clusterIPs"));
    if has_addresses(spec) && has_addresses(old) {
        spec.default_text("clusterIP", old.text("clusterIP"));
        if spec.items("clusterIPs").is_empty() {
            spec.put("clusterIPs", list_before());
        }
    }
    let is_same_list = |spec: &Value| spec.items("clusterIPs") == old.items("clusterIPs");
    let (is, was) = (spec.text("clusterIP").to_string(), old.text("clusterIP"));
    if spec.items("clusterIPs").is_empty() && is == was {
        spec.put("clusterIPs", list_before());
    } else if is != was && is_same_list(spec) {
        let list = if is.is_empty() { json!([]) } else { json!([is]) };
        spec.put("clusterIPs", list);
    }
    for name in ["clusterIP", "clusterIPs"] {
        if spec.get(name).is_some_and(|value| value == "" || value == &json!([])) {
            spec.drop_field(name);
        }
    }
}

/// What is wrong with addresses, families and policy.
pub fn check(errors: &mut Errors, spec: &Value) {
    if !has_addresses(spec) {
        return;
    }
    let path = Path::ROOT.field("spec");
    let list_path = path.field("clusterIPs");
    let (single, list) = (spec.text("clusterIP"), spec.items("clusterIPs"));
    match (single, list.first()) {
        ("", Some(_)) => {
            errors.invalid(&list_path, list.to_vec(), "must be empty when `clusterIP` is not specified");
        }
        (single, Some(first)) if first != single => {
            errors.invalid(&list_path, list.to_vec(), "first value must match `clusterIP`");
        }
        _ => {}
    }
    let families = spec.items("ipFamilies");
    let families_path = path.field("ipFamilies");
    for (index, family) in families.iter().enumerate() {
        let name = family.as_str().unwrap_or_default();
        if !FAMILIES.contains(&name) {
            errors.not_supported(&families_path.index(index), name, FAMILIES);
        }
        if families.iter().take(index).any(|f| f == family) {
            errors.duplicate(&families_path.index(index), name);
        }
    }
    if spec.at("ipFamilyPolicy").is_some() {
        one_of(errors, &path.field("ipFamilyPolicy"), spec, POLICIES);
    }
    check_list(errors, &list_path, list, families);
}

fn check_list(errors: &mut Errors, path: &Path, list: &[Value], families: &[Value]) {
    let before = errors.len();
    for (index, ip) in list.iter().filter_map(Value::as_str).enumerate() {
        if index > 0 || ip != "None" {
            errors.invalid_each(&path.index(index), ip, names::ip_address(ip));
        } else if list.len() > 1 {
            errors.invalid(path, list.to_vec(), "'None' must be the first and only value");
        }
    }
    let are_valid = errors.len() == before;
    if list.len() > 2 {
        errors.invalid(path, list.to_vec(), "may only hold up to 2 values");
    }
    if !are_valid {
        return;
    }
    let of = |ip: &Value| ip.as_str().and_then(|ip| ip.parse().ok()).map(net::family);
    if let [one, more @ ..] = list
        && !more.is_empty()
        && more.iter().all(|ip| of(ip) == of(one))
    {
        errors.invalid(path, list.to_vec(), "may specify no more than one IP for each IP family");
    }
    for (index, (ip, family)) in list.iter().zip(families).enumerate() {
        if let Some(is) = of(ip)
            && FAMILIES.contains(&family.as_str().unwrap_or_default())
            && family != is
        {
            let family = family.as_str().unwrap_or_default();
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.invalid(&path.index(index), ip.clone(), detail);
        }
    }
}

/// What is wrong with a change: a second address or family may come, and go with the policy that says so; the first one
/// stays for as long as the service has any.
pub(super) fn check_change(errors: &mut Errors, new: &Value, old: &Value) {
    if !has_addresses(new) || !has_addresses(old) {
        return;
    }
    let releases = [
        (
            "clusterIPs",
            "primary clusterIP can not be unset",
            "clusterIP",
            is_headless(new) && is_headless(old),
        ),
        ("ipFamilies", "primary ipFamily can not be unset", "ipFamily", is_headless(new) || is_headless(old)),
    ];
    for (field, unset, one, is_free) in releases {
        if is_free {
            continue;
        }
        let (spec, is, was) = (Path::ROOT.field("spec"), new.items(field), old.items(field));
        let path = spec.field(field);
        if is.is_empty() && !was.is_empty() {
            errors.invalid(&path.index(0), json!(is), unset);
        }
        // Where one came or went, the first one counts.
        let compared = if is.len() == was.len() { is.len() } else { 1 };
        for (index, (now, before)) in is.iter().zip(was).take(compared).enumerate() {
            if now != before {
                errors.invalid(&path.index(index), json!(is), "may not change once set");
            }
        }
        if is.len() == 1 && was.len() > 1 && new.text("ipFamilyPolicy") != "SingleStack" {
            let detail = format!("must be set to 'SingleStack' when releasing the secondary {one}");
            errors.invalid(&Path::ROOT.field("spec.ipFamilyPolicy"), new.text("ipFamilyPolicy"), detail);
        }
    }
}
