//! Of which families a service's addresses are. Pure.
//!
//! A service is never made single or dual by itself: only its policy, or addresses and families that its writer adds or
//! takes away, change what it has.

use api::FieldError;
use api::at;
use api::field::{Errors, Look, Path, PathExt, Touch};
use api::net;
use api::strategies::core::service_addresses::{check, has_addresses, is_headless};
use serde_json::{Value, json};

const SINGLE: &str = "SingleStack";
const REQUIRED: &str = "RequireDualStack";

/// Fills in policy and families; `configured` are those of the cluster, its default first.
pub(super) fn fill(
    spec: &mut Value,
    old: Option<&Value>,
    configured: &[&'static str],
) -> Result<(), Vec<FieldError>> {
    if !has_addresses(spec) || old.is_some_and(|old| prefers_what_it_has(spec, old)) {
        return Ok(());
    }
    // Whatever stands behind a service without a selector is not known to the cluster, so it may be of any family.
    let is_unmanaged = is_headless(spec) && spec.entries("selector").next().is_none();
    if spec.text("ipFamilyPolicy").is_empty() {
        let policy = match old.map(|old| old.text("ipFamilyPolicy")).unwrap_or_default() {
            "" if is_unmanaged => REQUIRED,
            "" => SINGLE,
            before => before,
        };
        spec.put("ipFamilyPolicy", policy);
    }
    let faults = at::check_at(&Path::ROOT.field("spec"), spec, check);
    if !faults.is_empty() {
        return Err(faults);
    }
    let policy = spec.text("ipFamilyPolicy").to_string();
    let mut errors = Errors::new();
    if let Some(old) = old {
        shrink(&mut errors, spec, old, &policy);
    }
    check_policy(&mut errors, spec, &policy);
    infer(&mut errors, spec, configured);
    done(errors)?;
    if !is_unmanaged {
        check_configured(spec, &policy, configured)?;
    }
    let default = configured.first().copied().unwrap_or("IPv4");
    let mut families = spec.items("ipFamilies").to_vec();
    if families.is_empty() {
        families.push(default.into());
    }
    if families.len() == 1 && policy != SINGLE && (is_unmanaged || configured.len() == 2) {
        families.push(if families.first() == Some(&json!("IPv4")) { "IPv6" } else { "IPv4" }.into());
    }
    spec.put("ipFamilies", families);
    Ok(())
}

fn done(errors: Errors) -> Result<(), Vec<FieldError>> {
    if errors.is_empty() { Ok(()) } else { Err(errors.into_vec()) }
}

/// A service that prefers two families keeps what it has while nobody says otherwise, whatever the cluster has become.
fn prefers_what_it_has(spec: &Value, old: &Value) -> bool {
    [spec, old].iter().all(|spec| spec.text("ipFamilyPolicy") == "PreferDualStack")
        && spec.text("type") == old.text("type")
        && spec.items("clusterIPs") == old.items("clusterIPs")
        && spec.items("ipFamilies") == old.items("ipFamilies")
}

/// With the policy `SingleStack`, what is left as it was loses its second; with others it must not get shorter.
fn shrink(errors: &mut Errors, spec: &mut Value, old: &Value, policy: &str) {
    for (field, what) in [("clusterIPs", "secondary cluster IP"), ("ipFamilies", "secondary IP family")] {
        let (is, was) = (spec.items(field), old.items(field));
        if policy == SINGLE {
            if let [first, _, ..] = is
                && is == was
            {
                spec.put(field, json!([first]));
            }
        } else if !is.is_empty() && is.len() < was.len() {
            let detail = format!("must be 'SingleStack' to release the {what}");
            errors.invalid(&Path::ROOT.field("spec.ipFamilyPolicy"), policy, detail);
        }
    }
}

fn check_policy(errors: &mut Errors, spec: &Value, policy: &str) {
    for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if policy == SINGLE && spec.items(field).len() == 2 {
            let detail =
                format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.invalid(&Path::ROOT.field("spec.ipFamilyPolicy"), policy, detail);
        }
    }
}

/// Families that are not named are those of the addresses.
fn infer(errors: &mut Errors, spec: &mut Value, configured: &[&'static str]) {
    let mut families = spec.items("ipFamilies").to_vec();
    for (index, address) in spec.items("clusterIPs").iter().enumerate().skip(families.len()) {
        let Some(family) = address.as_str().and_then(|ip| ip.parse().ok()).map(net::family) else { break };
        if !configured.contains(&family) {
            let path = Path::ROOT.field("spec");
            let detail = format!("{family} is not configured on this cluster");
            errors.invalid(&path.field("clusterIPs").index(index), json!(spec.items("clusterIPs")), detail);
        } else {
            families.push(family.into());
        }
    }
    spec.put("ipFamilies", families);
}

fn check_configured(spec: &Value, policy: &str, configured: &[&'static str]) -> Result<(), Vec<FieldError>> {
    let mut errors = Errors::new();
    let path = Path::ROOT.field("spec");
    if policy == REQUIRED && configured.len() < 2 {
        let detail = "this cluster is not configured for dual-stack services";
        errors.invalid(&path.field("ipFamilyPolicy"), policy, detail);
    }
    let families = path.field("ipFamilies");
    for (index, family) in spec.items("ipFamilies").iter().enumerate() {
        if !configured.contains(&family.as_str().unwrap_or_default()) {
            errors.invalid(&families.index(index), family.clone(), "not configured on this cluster");
        }
    }
    done(errors)
}
