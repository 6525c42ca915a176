//! Which node ports a service gets. Pure but for chance.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use api::field::{Look, Touch};
use serde_json::{Value, json};

use super::{Refusal, Taken, draw_between};

/// The node ports that a service has.
pub(super) fn of(service: &Value) -> BTreeSet<u16> {
    let spec = service.get("spec").unwrap_or(&Value::Null);
    if !may_have(spec) {
        return BTreeSet::new();
    }
    let ports = spec.items("ports").iter().filter_map(|port| port.int("nodePort"));
    let all = ports.chain(spec.int("healthCheckNodePort"));
    all.filter_map(|port| u16::try_from(port).ok()).filter(|port| *port > 0).collect()
}

fn may_have(spec: &Value) -> bool {
    ["NodePort", "LoadBalancer"].contains(&spec.text("type"))
}

/// Gives the service the node ports that it needs, and checks those that it names.
pub(super) fn fill(
    spec: &mut Value,
    before: &BTreeSet<u16>,
    range: &RangeInclusive<u16>,
    taken: &impl Taken,
) -> Result<(), Refusal> {
    if !may_have(spec) {
        return Ok(());
    }
    let draws =
        spec.text("type") == "NodePort" || spec.at("allocateLoadBalancerNodePorts") != Some(&json!(false));
    // The protocols of one port share a number. What the writer names comes first.
    let named = spec.items("ports").iter().filter(|port| node_port(port) != 0);
    let mut shared: BTreeMap<Option<i64>, i64> =
        named.map(|port| (port.int("port"), node_port(port))).rev().collect();
    let mut own = BTreeSet::new();
    for (index, port) in spec.items_mut("ports").iter_mut().enumerate() {
        let asked = match node_port(port) {
            0 if !draws => continue,
            0 => shared.get(&port.int("port")).copied().unwrap_or(0),
            asked => asked,
        };
        let given = if asked == 0 {
            draw(range, |port| taken.port(port) || own.contains(&port)).ok_or(Refusal::Full("nodePort"))?
        } else {
            check(asked, range, |port| taken.port(port) && !own.contains(&port) && !before.contains(&port))
                .map_err(|why| {
                    Refusal::invalid(&format!("spec.ports[{index}].nodePort"), &json!(asked), &why)
                })?
        };
        own.insert(given);
        shared.entry(port.int("port")).or_insert(i64::from(given));
        port.put("nodePort", given);
    }
    fill_health_check(spec, before, &own, range, taken)
}

fn node_port(port: &Value) -> i64 {
    port.int("nodePort").unwrap_or(0)
}

/// The port on which a balancer asks a node whether it has endpoints: no protocol shares it.
fn fill_health_check(
    spec: &mut Value,
    before: &BTreeSet<u16>,
    own: &BTreeSet<u16>,
    range: &RangeInclusive<u16>,
    taken: &impl Taken,
) -> Result<(), Refusal> {
    if spec.text("type") != "LoadBalancer" || spec.text("externalTrafficPolicy") != "Local" {
        return Ok(());
    }
    let asked = spec.int("healthCheckNodePort").unwrap_or(0);
    if asked == 0 {
        let drawn = draw(range, |port| taken.port(port) || own.contains(&port));
        spec.put("healthCheckNodePort", drawn.ok_or(Refusal::Full("nodePort"))?);
        return Ok(());
    }
    let is_taken = |port| own.contains(&port) || taken.port(port) && !before.contains(&port);
    check(asked, range, is_taken).map(|_| ()).map_err(|why| {
        let detail = format!("failed to allocate requested HealthCheck NodePort {asked}: {why}");
        Refusal::invalid("spec.healthCheckNodePort", &json!(asked), &detail)
    })
}

fn check(asked: i64, range: &RangeInclusive<u16>, taken: impl Fn(u16) -> bool) -> Result<u16, String> {
    let port = u16::try_from(asked).ok().filter(|port| range.contains(port)).ok_or_else(|| {
        let (low, high) = (range.start(), range.end());
        format!("provided port is not in the valid range. The range of valid ports is {low}-{high}")
    })?;
    if taken(port) { Err("provided port is already allocated".to_string()) } else { Ok(port) }
}

/// A free port. As upstream, the lower part of the range, at most 128 ports, is left to those who ask for one, and used
/// only when all others are taken.
fn draw(range: &RangeInclusive<u16>, taken: impl Fn(u16) -> bool) -> Option<u16> {
    let (low, high) = (u128::from(*range.start()), u128::from(*range.end()));
    let size = high.checked_sub(low)? + 1;
    let band = if size <= 16 { 0 } else { (size / 32).clamp(16, 128) };
    let is_taken = |port| u16::try_from(port).is_ok_and(&taken);
    let drawn = draw_between(low + band, high, size, is_taken);
    drawn.or_else(|| draw_between(low, (low + band).checked_sub(1)?, size, is_taken))?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::Others;
    use super::*;

    const RANGE: RangeInclusive<u16> = 30000..=30099;

    fn filled(mut spec: Value, before: &[u16], taken: &[u16]) -> Result<Value, String> {
        let others = Others { ports: taken.iter().copied().collect(), ..Others::default() };
        let before = before.iter().copied().collect();
        fill(&mut spec, &before, &RANGE, &others).map(|()| spec).map_err(|refusal| match refusal {
            Refusal::Invalid(faults) => format!("{}: {}", faults[0].field, faults[0].message),
            Refusal::Full(what) => format!("no {what}"),
        })
    }

    fn ports(spec: &Value) -> Vec<u64> {
        spec["ports"].as_array().unwrap().iter().map(|port| port["nodePort"].as_u64().unwrap_or(0)).collect()
    }

    #[test]
    fn what_is_drawn_lies_above_the_band_for_explicit_ports_until_that_is_full() {
        let mut taken = BTreeSet::new();
        while let Some(port) = draw(&RANGE, |port| taken.contains(&port)) {
            assert_eq!(port >= 30016, taken.len() < 84, "{port} as number {}", taken.len());
            assert!(taken.insert(port));
        }
        assert_eq!(taken.len(), 100);
        assert_eq!(draw(&(30000..=30007), |port| port != 30000), Some(30000));
    }

    #[test]
    fn protocols_of_a_port_share_a_number() {
        let both = |port: u16, first: u16| {
            json!({"type": "NodePort", "ports": [
                {"port": 53, "protocol": "UDP", "nodePort": first}, {"port": port, "protocol": "TCP"}]})
        };
        let given = ports(&filled(both(53, 0), &[], &[]).unwrap());
        assert_eq!(given[0], given[1]);
        let given = ports(&filled(both(54, 0), &[], &[]).unwrap());
        assert_ne!(given[0], given[1]);
        assert_eq!(ports(&filled(both(53, 30001), &[], &[]).unwrap()), [30001, 30001]);
        let later = json!({"type": "NodePort", "ports": [{"port": 53}, {"port": 53, "nodePort": 30002}]});
        assert_eq!(ports(&filled(later, &[], &[]).unwrap()), [30002, 30002]);
    }

    #[test]
    fn ports_are_refused_that_others_have_or_nobody_may_have() {
        let asks = |port: u32| json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
        assert_eq!(
            filled(asks(30001), &[], &[30001]).unwrap_err(),
            "spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"
        );
        assert_eq!(
            filled(asks(80), &[], &[]).unwrap_err(),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid \
             ports is 30000-30099"
        );
        assert!(filled(asks(30001), &[30001], &[30001]).is_ok(), "its own");
        let all: Vec<u16> = RANGE.collect();
        assert_eq!(
            filled(json!({"type": "NodePort", "ports": [{"port": 80}]}), &[], &all).unwrap_err(),
            "no nodePort"
        );
    }

    #[test]
    fn balancers_without_node_ports_get_only_those_they_name() {
        let spec = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
            "ports": [{"port": 80}, {"port": 81, "nodePort": 30001}]});
        assert_eq!(ports(&filled(spec, &[], &[]).unwrap()), [0, 30001]);
    }

    #[test]
    fn the_port_of_the_health_check_is_nobody_elses() {
        let balancer = |port: u16| {
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": port,
                "ports": [{"port": 80, "nodePort": 30001}]})
        };
        let drawn = filled(balancer(0), &[], &[]).unwrap();
        assert_eq!(of(&json!({"spec": drawn})).len(), 2);
        assert!(filled(balancer(30002), &[], &[]).is_ok());
        assert!(filled(balancer(30002), &[30002], &[30002]).is_ok());
        for port in [30001, 30003] {
            let refused = filled(balancer(port), &[], &[30003]).unwrap_err();
            assert!(refused.starts_with("spec.healthCheckNodePort: Invalid value"), "{refused}");
        }
    }
}
