//! Which addresses and ports a service gets. Pure but for chance.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use api::FieldError;
use api::field::{Look, Touch};
use rand::Rng;
use serde_json::{Value, json};

use crate::config::{Config, ServiceRange};

/// How often chance is tried before the range is walked through.
const DRAWS: usize = 32;

/// What others have.
pub(super) trait Taken {
    /// Whether an address is in use.
    fn address(&self, address: Ipv4Addr) -> bool;
    /// Whether a port is in use.
    fn port(&self, port: u16) -> bool;
}

/// What a service has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Allocations {
    pub addresses: BTreeSet<Ipv4Addr>,
    pub ports: BTreeSet<u16>,
}

impl Allocations {
    /// Read from the object.
    pub fn of(service: &Value) -> Self {
        let spec = service.get("spec").unwrap_or(&Value::Null);
        let addresses = spec.items("clusterIPs").iter().filter_map(Value::as_str);
        let port = |value: Option<i64>| value.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0);
        let mut ports: BTreeSet<u16> =
            spec.items("ports").iter().filter_map(|p| port(p.int("nodePort"))).collect();
        ports.extend(port(spec.int("healthCheckNodePort")));
        Self { addresses: addresses.filter_map(|a| a.parse().ok()).collect(), ports }
    }
}

/// Fills in addresses and ports.
pub(super) fn fill(
    new: &mut Value,
    live: Option<&Value>,
    config: &Config,
    taken: &impl Taken,
) -> Result<(), FieldError> {
    let before = live.map(Allocations::of).unwrap_or_default();
    let old_spec = live.and_then(|l| l.get("spec")).cloned().unwrap_or(Value::Null);
    let Some(spec) = new.object_mut("spec") else { return Ok(()) };
    fill_addresses(spec, &old_spec, &before, &config.service_range, taken)?;
    fill_ports(spec, &old_spec, &before, &config.node_ports, taken)
}

fn fill_addresses(
    spec: &mut Value,
    old: &Value,
    before: &Allocations,
    range: &ServiceRange,
    taken: &impl Taken,
) -> Result<(), FieldError> {
    if spec.text("type") == "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.drop_field(field);
        }
        return Ok(());
    }
    let listed = spec.items("clusterIPs").first().and_then(Value::as_str).unwrap_or_default().to_string();
    let mut address = spec.text("clusterIP").to_string();
    // An update that leaves the address out keeps it; an emptied one on a change of type gets a new one.
    if address.is_empty() {
        address = if listed.is_empty() { old.text("clusterIP").to_string() } else { listed };
    }
    if address.is_empty() {
        address = draw_address(range, taken)?.to_string();
    } else if address != "None" {
        check_address(&address, before, range, taken)?;
    }
    spec.put("clusterIP", address.as_str());
    spec.put("clusterIPs", json!([address]));
    if spec.items("ipFamilies").is_empty() {
        spec.put("ipFamilies", json!(["IPv4"]));
    }
    spec.default_text("ipFamilyPolicy", "SingleStack");
    Ok(())
}

fn check_address(
    text: &str,
    before: &Allocations,
    range: &ServiceRange,
    taken: &impl Taken,
) -> Result<(), FieldError> {
    let fault = |why: &str| FieldError {
        reason: "FieldValueInvalid",
        field: "spec.clusterIPs".to_string(),
        message: format!("Invalid value: [\"{text}\"]: failed to allocate IP {text}: {why}"),
    };
    let Ok(address) = text.parse::<Ipv4Addr>() else { return Err(fault("not a valid IPv4 address")) };
    if before.addresses.contains(&address) {
        return Ok(());
    }
    if range.offset(address).is_none() {
        let why = format!("the provided IP is not in the valid range. The range of valid IPs is {range}");
        return Err(fault(&why));
    }
    if taken.address(address) { Err(fault("provided IP is already allocated")) } else { Ok(()) }
}

fn draw_address(range: &ServiceRange, taken: &impl Taken) -> Result<Ipv4Addr, FieldError> {
    let last = range.size() - 2;
    // As upstream: the lower part, at most 256 addresses, is left to those who ask for one.
    let band = (range.size() / 16).clamp(16, 256).min(last);
    let mut random = rand::rng();
    for _ in 0..DRAWS {
        let address = range.address(random.random_range(band..=last));
        if !taken.address(address) {
            return Ok(address);
        }
    }
    let walk = (band..=last).chain(1..band).map(|offset| range.address(offset));
    walk.into_iter().find(|address| !taken.address(*address)).ok_or_else(|| FieldError {
        reason: "FieldValueInvalid",
        field: "spec.clusterIPs".to_string(),
        message: format!("Internal error: failed to allocate a serviceIP: range {range} is full"),
    })
}

fn fill_ports(
    spec: &mut Value,
    old: &Value,
    before: &Allocations,
    range: &RangeInclusive<u16>,
    taken: &impl Taken,
) -> Result<(), FieldError> {
    let wants = wants_node_ports(spec);
    if !wants && wants_node_ports(old) {
        // The type has changed: ports that the client has not set anew go back.
        let had = Allocations::of(&json!({"spec": {"ports": old.get("ports")}}));
        for port in spec.items_mut("ports") {
            if port
                .int("nodePort")
                .and_then(|p| u16::try_from(p).ok())
                .is_some_and(|p| had.ports.contains(&p))
            {
                port.drop_field("nodePort");
            }
        }
    }
    // One number may serve several protocols of one service.
    let mut own: BTreeSet<u16> = BTreeSet::new();
    let mut by_port: Vec<(i64, String, u16)> = Vec::new();
    let old_ports = old.items("ports").to_vec();
    for (index, port) in spec.items_mut("ports").iter_mut().enumerate() {
        let (number, protocol) = (port.int("port").unwrap_or(0), port.text("protocol").to_string());
        let mut asked = port.int("nodePort").unwrap_or(0);
        if asked == 0 && wants {
            let same = |p: &&Value| p.int("port") == Some(number) && p.text("protocol") == protocol;
            asked = old_ports.iter().find(same).and_then(|p| p.int("nodePort")).unwrap_or(0);
        }
        if asked == 0 && !wants {
            port.drop_field("nodePort");
            continue;
        }
        let given = if asked == 0 {
            let sibling = by_port.iter().find(|(n, p, _)| *n == number && *p != protocol);
            match sibling {
                Some((_, _, given)) => *given,
                None => draw_port(range, |p| taken.port(p) || own.contains(&p), index)?,
            }
        } else {
            check_port(asked, index, before, &own, range, taken)?
        };
        own.insert(given);
        by_port.push((number, protocol, given));
        port.put("nodePort", given);
    }
    fill_health_check(spec, old, range, |p| taken.port(p) || own.contains(&p))
}

fn fill_health_check(
    spec: &mut Value,
    old: &Value,
    range: &RangeInclusive<u16>,
    taken: impl Fn(u16) -> bool,
) -> Result<(), FieldError> {
    let wants = spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local";
    if !wants {
        spec.drop_field("healthCheckNodePort");
    } else if spec.int("healthCheckNodePort").unwrap_or(0) == 0 {
        let kept = old.int("healthCheckNodePort").filter(|p| *p > 0);
        let port = match kept.and_then(|p| u16::try_from(p).ok()) {
            Some(port) => port,
            None => draw_port(range, taken, 0)?,
        };
        spec.put("healthCheckNodePort", port);
    }
    Ok(())
}

fn wants_node_ports(spec: &Value) -> bool {
    match spec.text("type") {
        "NodePort" => true,
        "LoadBalancer" => spec.get("allocateLoadBalancerNodePorts").and_then(Value::as_bool) != Some(false),
        _ => false,
    }
}

fn check_port(
    asked: i64,
    index: usize,
    before: &Allocations,
    own: &BTreeSet<u16>,
    range: &RangeInclusive<u16>,
    taken: &impl Taken,
) -> Result<u16, FieldError> {
    let fault = |why: &str| FieldError {
        reason: "FieldValueInvalid",
        field: format!("spec.ports[{index}].nodePort"),
        message: format!("Invalid value: {asked}: {why}"),
    };
    let port = u16::try_from(asked).ok().filter(|p| range.contains(p)).ok_or_else(|| {
        let (low, high) = (range.start(), range.end());
        fault(&format!("provided port is not in the valid range. The range of valid ports is {low}-{high}"))
    })?;
    if before.ports.contains(&port) || own.contains(&port) || !taken.port(port) {
        return Ok(port);
    }
    Err(fault("provided port is already allocated"))
}

fn draw_port(
    range: &RangeInclusive<u16>,
    taken: impl Fn(u16) -> bool,
    index: usize,
) -> Result<u16, FieldError> {
    let (low, high) = (*range.start(), *range.end());
    let size = u32::from(high.saturating_sub(low)) + 1;
    let band = low.saturating_add(u16::try_from((size / 32).clamp(16, 128)).unwrap_or(16)).min(high);
    let mut random = rand::rng();
    for _ in 0..DRAWS {
        let port = random.random_range(band..=high);
        if !taken(port) {
            return Ok(port);
        }
    }
    (band..=high).chain(low..band).find(|port| !taken(*port)).ok_or_else(|| FieldError {
        reason: "FieldValueInvalid",
        field: format!("spec.ports[{index}].nodePort"),
        message: format!("Internal error: failed to allocate a nodePort: range {low}-{high} is full"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Taken for Nothing {
        fn address(&self, _: Ipv4Addr) -> bool {
            false
        }
        fn port(&self, port: u16) -> bool {
            port == 30080
        }
    }

    fn filled(spec: Value, old: Value) -> Result<Value, FieldError> {
        let range = ServiceRange::parse("10.96.0.0/16").unwrap();
        let before = Allocations::of(&json!({"spec": old}));
        let mut spec = spec;
        fill_addresses(&mut spec, &old, &before, &range, &Nothing)?;
        fill_ports(&mut spec, &old, &before, &(30000..=32767), &Nothing)?;
        Ok(spec)
    }

    #[test]
    fn a_service_should_get_an_address_above_the_reserved_band() {
        let spec = filled(json!({"type": "ClusterIP", "ports": [{"port": 80}]}), Value::Null).unwrap();
        let address: Ipv4Addr = spec["clusterIP"].as_str().unwrap().parse().unwrap();
        assert!(ServiceRange::parse("10.96.0.0/16").unwrap().offset(address).unwrap() >= 256);
        assert_eq!(spec["clusterIPs"], json!([spec["clusterIP"]]));
        assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
        assert_eq!(spec["ports"][0].get("nodePort"), None);
    }

    #[test]
    fn an_update_should_keep_what_it_leaves_out() {
        let old = json!({"type": "NodePort", "clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 31000}]});
        let spec =
            filled(json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}), old).unwrap();
        assert_eq!(spec["clusterIP"], "10.96.7.7");
        assert_eq!(spec["ports"][0]["nodePort"], 31000);
    }

    #[test]
    fn ports_should_go_back_when_the_type_no_longer_needs_them() {
        let old = json!({"type": "NodePort", "clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 31000}]});
        let mut spec = old.clone();
        spec["type"] = "ClusterIP".into();
        assert_eq!(filled(spec, old).unwrap()["ports"][0].get("nodePort"), None);
    }

    #[test]
    fn what_others_have_should_be_refused() {
        let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
        assert!(filled(spec, Value::Null).unwrap_err().message.contains("already allocated"));
        let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]});
        assert!(filled(spec, Value::Null).unwrap_err().message.contains("30000-32767"));
        let spec = json!({"type": "ClusterIP", "clusterIP": "10.0.0.1"});
        assert!(filled(spec, Value::Null).unwrap_err().message.contains("10.96.0.0/16"));
    }

    #[test]
    fn two_protocols_of_a_port_should_share_a_number() {
        let spec = json!({"type": "NodePort", "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]});
        let spec = filled(spec, Value::Null).unwrap();
        assert_eq!(spec["ports"][0]["nodePort"], spec["ports"][1]["nodePort"]);
    }
}
