//! The rules of a service's cluster addresses and their families: what needs no knowledge of the cluster's ranges.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    at::At,
    field::{Look, Touch},
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

/// Checks addresses, families and policy of a service's spec.
pub fn check(spec: &At) {
    if !has_addresses(spec) {
        return;
    }
    let (single, list) = (spec.text("clusterIP"), spec.field("clusterIPs"));
    match (single, list.list().first()) {
        ("", Some(_)) => list.invalid("must be empty when `clusterIP` is not specified"),
        (single, Some(first)) if first != single => list.invalid("first value must match `clusterIP`"),
        _ => {}
    }
    let mut seen = BTreeSet::new();
    spec.each("ipFamilies", |family| {
        family.among(FAMILIES);
        family.unique(&mut seen);
    });
    spec.optional("ipFamilyPolicy", |policy| policy.one_of(POLICIES));
    check_list(&list, spec.items("ipFamilies"));
}

fn check_list(list: &At, families: &[Value]) {
    let ips = list.list();
    let before = list.count_of_errors();
    for (index, ip) in list.elements().enumerate() {
        if index > 0 || ip.str() != "None" {
            ip.form(names::ip_address);
        } else if ips.len() > 1 {
            list.invalid("'None' must be the first and only value");
        }
    }
    let are_valid = list.count_of_errors() == before;
    if ips.len() > 2 {
        list.invalid("may only hold up to 2 values");
    }
    if !are_valid {
        return;
    }
    let of = |ip: &Value| ip.as_str().and_then(|ip| ip.parse().ok()).map(net::family);
    if let [one, more @ ..] = ips
        && !more.is_empty()
        && more.iter().all(|ip| of(ip) == of(one))
    {
        list.invalid("may specify no more than one IP for each IP family");
    }
    for (index, (ip, family)) in list.elements().zip(families).enumerate() {
        let family = family.as_str().unwrap_or_default();
        if of(ip.value()).is_some_and(|is| is != family) && FAMILIES.contains(&family) {
            ip.invalid(format!("expected an {family} value as indicated by `ipFamilies[{index}]`"));
        }
    }
}

/// Checks a change: a second address or family may come, and go with the policy that says so; the first one stays for
/// as long as the service has any.
pub(super) fn check_change(new: &At, old: &Value) {
    if !has_addresses(new) || !has_addresses(old) {
        return;
    }
    let (is_headless, was_headless) = (is_headless(new), is_headless(old));
    for (field, one, is_free) in [
        ("clusterIPs", "clusterIP", is_headless && was_headless),
        ("ipFamilies", "ipFamily", is_headless || was_headless),
    ] {
        if is_free {
            continue;
        }
        let (list, was) = (new.field(field), old.items(field));
        let is = list.list();
        if is.is_empty() && !was.is_empty() {
            list.index(0).invalid_value(is.to_vec(), format!("primary {one} can not be unset"));
        }
        // Where one came or went, the first one counts.
        let compared = if is.len() == was.len() { is.len() } else { 1 };
        for (now, before) in list.elements().zip(was).take(compared) {
            if now.value() != before {
                now.invalid_value(is.to_vec(), "may not change once set");
            }
        }
        let policy = new.field("ipFamilyPolicy");
        if is.len() == 1 && was.len() > 1 && policy.str() != "SingleStack" {
            let detail = format!("must be set to 'SingleStack' when releasing the secondary {one}");
            policy.invalid_text(detail);
        }
    }
}
