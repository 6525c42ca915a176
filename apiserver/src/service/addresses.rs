//! Which addresses a service gets. Pure but for chance.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::field::{Look, Touch};
use api::net::AddressRange;
use api::strategies::core::service_addresses::{has_addresses, is_headless};
use serde_json::{Value, json};

use super::{Refusal, Taken, draw_between};

/// The addresses that a service has.
pub(super) fn of(service: &Value) -> BTreeSet<IpAddr> {
    let list = service.get("spec").unwrap_or(&Value::Null).items("clusterIPs");
    list.iter().filter_map(|address| address.as_str()?.parse().ok()).collect()
}

/// Gives the service an address of each of its families, unless it has one or names one that is free.
pub(super) fn fill(
    spec: &mut Value,
    before: &BTreeSet<IpAddr>,
    ranges: &[AddressRange],
    taken: &impl Taken,
) -> Result<(), Refusal> {
    if !has_addresses(spec) || is_headless(spec) {
        return Ok(());
    }
    let mut list = Vec::new();
    for (index, family) in spec.items("ipFamilies").iter().enumerate() {
        let family = family.as_str().unwrap_or_default();
        let asked = spec.items("clusterIPs").get(index).and_then(Value::as_str).unwrap_or_default();
        if asked.is_empty() {
            let of_family = ranges.iter().filter(|range| range.family() == family);
            let drawn = of_family.filter_map(|range| draw(*range, taken)).next();
            list.push(drawn.ok_or(Refusal::Full("serviceIP"))?.to_string());
        } else {
            check(asked, before, ranges, taken).map_err(|why| {
                let detail = format!("failed to allocate IP {asked}: {why}");
                Refusal::invalid("spec.clusterIPs", &json!(spec.items("clusterIPs")), &detail)
            })?;
            list.push(asked.to_string());
        }
    }
    spec.put("clusterIP", list.first().cloned().unwrap_or_default());
    spec.put("clusterIPs", list);
    Ok(())
}

fn check(
    asked: &str,
    before: &BTreeSet<IpAddr>,
    ranges: &[AddressRange],
    taken: &impl Taken,
) -> Result<(), String> {
    let address: IpAddr = asked.parse().map_err(|_| "not a valid IP address".to_string())?;
    if before.contains(&address) {
        return Ok(());
    }
    let covers =
        |range: &&AddressRange| range.offset(address).is_some_and(|at| (1..=last(**range)).contains(&at));
    if !ranges.iter().any(|range| covers(&range)) {
        let ranges = ranges.iter().filter(|range| range.family() == api::net::family(address));
        let ranges: Vec<String> = ranges.map(ToString::to_string).collect();
        return Err(format!(
            "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
            ranges.join(", ")
        ));
    }
    if taken.address(address) { Err("provided IP is already allocated".to_string()) } else { Ok(()) }
}

/// The offset of the last address that may be given: IPv4's very last is for broadcasts.
fn last(range: AddressRange) -> u128 {
    range.offset_max().saturating_sub(u128::from(range.family() == "IPv4"))
}

/// A free address. As upstream, the lower part of a range, at most 256 addresses, is left to those who ask for one, and
/// used only when all others are taken.
fn draw(range: AddressRange, taken: &impl Taken) -> Option<IpAddr> {
    let (size, last) = (range.offset_max().saturating_add(1), last(range));
    let band = if size <= 16 { 0 } else { (size / 16).clamp(16, 256) };
    // However large the range, one more than are taken are enough to find a free one.
    let steps = taken.addresses() as u128 + 1;
    let is_taken = |offset| taken.address(range.nth(offset));
    let drawn = draw_between(band + 1, last, steps, is_taken);
    drawn.or_else(|| draw_between(1, band, steps, is_taken)).map(|offset| range.nth(offset))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Others;
    use super::*;

    fn range(text: &str) -> AddressRange {
        AddressRange::parse(text).unwrap()
    }

    #[test]
    fn what_is_drawn_lies_above_the_band_for_explicit_addresses() {
        for (text, band) in [
            ("10.96.0.0/16", 256),
            ("10.96.0.0/24", 16),
            ("10.96.0.0/22", 64),
            ("10.96.0.0/28", 0),
            ("10.96.0.0/30", 0),
            ("fd00::/108", 256),
            ("fd00::/64", 256),
        ] {
            for _ in 0..200 {
                let range = range(text);
                let offset = range.offset(draw(range, &Others::default()).unwrap()).unwrap();
                assert!(offset > band && offset <= last(range), "{text}: {offset}");
            }
        }
    }

    #[test]
    fn a_range_is_used_to_its_last_address_and_then_full() {
        for (text, count) in
            [("10.96.0.0/27", 30), ("10.96.0.0/30", 2), ("10.96.0.0/32", 0), ("fd00::/124", 15)]
        {
            let mut others = Others::default();
            while let Some(address) = draw(range(text), &others) {
                assert!(others.addresses.insert(address), "{address} was given twice");
            }
            assert_eq!(others.addresses.len(), count, "{text}");
        }
    }

    #[test]
    fn the_next_range_is_used_when_one_is_full() {
        let ranges = [range("10.96.0.0/30"), range("fd00::/124"), range("10.97.0.0/24")];
        let mut others = Others::default();
        for index in 0..6 {
            let mut spec = json!({"type": "ClusterIP", "ipFamilies": ["IPv4"]});
            fill(&mut spec, &BTreeSet::new(), &ranges, &others).unwrap();
            let address: IpAddr = spec["clusterIP"].as_str().unwrap().parse().unwrap();
            assert_eq!(ranges[0].offset(address).is_some(), index < 2, "{address}");
            others.addresses.insert(address);
        }
    }
}
