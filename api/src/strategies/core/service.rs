//! Services.
//!
//! Cluster addresses and node ports are given out by whoever stores services; here is what needs no knowledge of
//! other services: what belongs to which type, and what an update that leaves them out keeps. `service_addresses` has
//! the rules of addresses and families.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    super::common::{spec, spec_mut},
    endpoints::endpoint_ip,
    service_addresses::{self, has_addresses, is_headless},
};
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{IMMUTABLE, Look, Touch},
    intstr, names,
};

const AFFINITY_SECONDS: i64 = 10_800;
const AFFINITY_SECONDS_MAX: i64 = 86_400;
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// What is special about services.
pub struct Service;

impl Strategy for Service {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = spec_mut(object) else { return };
        spec.default_text("sessionAffinity", "None");
        spec.default_text("type", "ClusterIP");
        if spec.text("sessionAffinity") == "None" {
            spec.drop_field("sessionAffinityConfig");
        } else if spec.dig(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).is_none() {
            spec.put("sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}));
        }
        for port in spec.items_mut("ports") {
            port.default_text("protocol", "TCP");
            let has_target = port.at("targetPort").is_some_and(|t| t != &json!(0) && t != &json!(""));
            if !has_target && let Some(number) = port.at("port").cloned() {
                port.put("targetPort", number);
            }
        }
        // Whoever turns a service into one of another type takes the name away so.
        if spec.text("externalName").is_empty() {
            spec.drop_field("externalName");
        }
        let kind = spec.text("type").to_string();
        if is_external(spec) {
            spec.default_text("externalTrafficPolicy", "Cluster");
        }
        if kind != "ExternalName" {
            spec.default_text("internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            spec.default_to("allocateLoadBalancerNodePorts", true);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        if let Some(spec) = spec_mut(object) {
            // Clients that know of one address say it once.
            if spec.items("clusterIPs").is_empty() && !spec.text("clusterIP").is_empty() {
                spec.put("clusterIPs", json!([spec.text("clusterIP")]));
            }
            drop_foreign(spec);
        }
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value, context: &WriteContext) {
        if context.subresource.is_some() {
            return;
        }
        let old = spec(old);
        let Some(spec) = spec_mut(new) else { return };
        service_addresses::keep(spec, old);
        keep_node_ports(spec, old);
        drop_with_type(spec, old);
        drop_foreign(spec);
        if spec.text("type") != "LoadBalancer" {
            new.put("status", json!({"loadBalancer": {}}));
        }
    }

    fn check(&self, object: &At) {
        let spec = object.field("spec");
        check_type(&spec);
        check_ports(&spec);
        spec.field("selector").labels();
        check_affinity(&spec);
        service_addresses::check(&spec);
        spec.each("externalIPs", |ip| {
            ip.form(names::ip_address);
            endpoint_ip(ip);
        });
        spec.field("type").one_of(TYPES);
        check_load_balancer(&spec);
        check_traffic_policies(&spec);
    }

    fn check_update(&self, new: &At, old: &Value, context: &WriteContext) {
        if context.subresource.is_some() {
            return;
        }
        let (new, old) = (new.field("spec"), spec(old));
        service_addresses::check_change(&new, old);
        let check = new.field("healthCheckNodePort");
        if needs_health_check(&new)
            && needs_health_check(old)
            && check.as_i64() != old.int("healthCheckNodePort")
        {
            check.forbidden(IMMUTABLE);
        }
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let spec = spec(new);
        let is_external_name = spec.text("type") == "ExternalName";
        let is_headless = is_headless(spec);
        [
            (
                is_external_name && !spec.items("externalIPs").is_empty(),
                "spec.externalIPs is ignored when spec.type is \"ExternalName\"",
            ),
            (
                !is_external_name && !spec.text("externalName").is_empty(),
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            ),
            (
                is_headless && !spec.text("loadBalancerIP").is_empty(),
                "spec.loadBalancerIP is ignored for headless services",
            ),
            (
                is_headless && !spec.items("externalIPs").is_empty(),
                "spec.externalIPs is ignored for headless services",
            ),
            (
                is_headless && spec.text("sessionAffinity") == "ClientIP",
                "spec.SessionAffinity is ignored for headless services",
            ),
        ]
        .into_iter()
        .filter(|(applies, _)| *applies)
        .map(|(_, said)| said.to_string())
        .collect()
    }
}

/// Whether the service answers from outside of the cluster.
fn is_external(spec: &Value) -> bool {
    ["NodePort", "LoadBalancer"].contains(&spec.text("type"))
        || spec.text("type") == "ClusterIP" && !spec.items("externalIPs").is_empty()
}

fn has_node_ports(spec: &Value) -> bool {
    match spec.text("type") {
        "NodePort" => true,
        "LoadBalancer" => spec.at("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

fn needs_health_check(spec: &Value) -> bool {
    spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local"
}

/// An update that leaves out the ports that were given to the service keeps them.
fn keep_node_ports(spec: &mut Value, old: &Value) {
    if needs_health_check(spec)
        && needs_health_check(old)
        && spec.int("healthCheckNodePort").unwrap_or_default() == 0
        && let Some(port) = old.at("healthCheckNodePort")
    {
        spec.put("healthCheckNodePort", port.clone());
    }
    if !has_node_ports(spec) || !has_node_ports(old) {
        return;
    }
    let taken: Vec<i64> = spec.items("ports").iter().filter_map(|p| p.int("nodePort")).collect();
    for port in spec.items_mut("ports") {
        if port.int("nodePort").unwrap_or_default() != 0 {
            continue;
        }
        let before = old.items("ports").iter().find(|before| before.text("name") == port.text("name"));
        if let Some(number) = before.and_then(|b| b.int("nodePort")).filter(|n| *n != 0 && !taken.contains(n))
        {
            port.put("nodePort", number);
        }
    }
}

/// A service that changes its type loses what only the old type had, unless the writer set it anew.
fn drop_with_type(spec: &mut Value, old: &Value) {
    if has_addresses(old) && !has_addresses(spec) {
        for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            if spec.at(name) == old.at(name) {
                spec.drop_field(name);
            }
        }
    }
    let may_have_node_ports = |spec: &Value| ["NodePort", "LoadBalancer"].contains(&spec.text("type"));
    if may_have_node_ports(old) && !may_have_node_ports(spec) {
        let before: Vec<Option<i64>> = old.items("ports").iter().map(|p| p.int("nodePort")).collect();
        for port in spec.items_mut("ports") {
            if before.contains(&port.int("nodePort")) {
                port.drop_field("nodePort");
            }
        }
    }
    if needs_health_check(old)
        && !needs_health_check(spec)
        && spec.at("healthCheckNodePort") == old.at("healthCheckNodePort")
    {
        spec.drop_field("healthCheckNodePort");
    }
    if is_external(old)
        && !is_external(spec)
        && spec.at("externalTrafficPolicy") == old.at("externalTrafficPolicy")
    {
        spec.drop_field("externalTrafficPolicy");
    }
    for name in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if spec.text("type") != "LoadBalancer" && spec.at(name) == old.at(name) {
            spec.drop_field(name);
        }
    }
}

fn drop_foreign(spec: &mut Value) {
    for port in spec.items_mut("ports") {
        if port.int("nodePort") == Some(0) {
            port.drop_field("nodePort");
        }
    }
    if spec.int("healthCheckNodePort") == Some(0) {
        spec.drop_field("healthCheckNodePort");
    }
}

fn check_type(spec: &At) {
    let kind = spec.text("type");
    if !is_headless(spec) && kind != "ExternalName" {
        spec.field("ports").filled("");
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            spec.field("clusterIPs").index(0).invalid_value("None", detail);
        }
        "ExternalName" => {
            for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if spec.at(name).is_some_and(|v| v != &json!([])) {
                    spec.field(name).forbidden("may not be set for ExternalName services");
                }
            }
            let name = spec.field("externalName");
            let host = name.str().strip_suffix('.').unwrap_or(name.str());
            if host.is_empty() {
                name.required("");
            } else {
                name.invalid_each(host, names::dns1123_subdomain(host));
            }
        }
        _ => {}
    }
}

fn check_ports(spec: &At) {
    let ports = spec.field("ports");
    let mut seen = BTreeSet::new();
    for (index, port) in ports.elements().enumerate() {
        let name = port.field("name");
        if !name.is_empty() {
            name.form(names::dns1123_label);
            name.unique(&mut seen);
        } else if ports.list().len() > 1 {
            name.required("");
        }
        let number = port.field("port");
        number.port_number();
        port.field("protocol").one_of(&["SCTP", "TCP", "UDP"]);
        port.optional("targetPort", intstr::check_port);
        port.field("appProtocol").name_or_none(names::qualified_name);
        let node_port = port.field("nodePort");
        if node_port.number() != 0 && spec.text("type") == "ClusterIP" {
            node_port.forbidden("may not be used when `type` is 'ClusterIP'");
        }
        let before = ports.list().iter().take(index);
        let before = || before.clone().filter(|p| p.text("protocol") == port.text("protocol"));
        if node_port.number() != 0 && before().any(|p| p.int("nodePort") == node_port.as_i64()) {
            node_port.duplicate();
        }
        if before().any(|p| p.int("port") == Some(number.number())) {
            port.duplicate_value(json!({"port": number.number(), "protocol": port.text("protocol")}));
        }
    }
}

fn check_affinity(spec: &At) {
    let affinity = spec.field("sessionAffinity");
    affinity.one_of(&["ClientIP", "None"]);
    if affinity.str() == "ClientIP" {
        let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
        spec.field("sessionAffinityConfig.clientIP.timeoutSeconds").within(1..=AFFINITY_SECONDS_MAX, &detail);
    }
}

fn check_load_balancer(spec: &At) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let is_balancer = spec.text("type") == "LoadBalancer";
    // Upstream writes the name of its internal field.
    let ranges = spec.field("loadBalancerSourceRanges");
    let said = spec.field("LoadBalancerSourceRanges");
    let said = said.with(ranges.value());
    if !said.is_empty() && !is_balancer {
        said.forbidden(ONLY);
    }
    for range in said.elements() {
        range.invalid_each(range.str().trim(), names::cidr(range.str().trim()));
    }
    for name in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if spec.at(name).is_some() && !is_balancer {
            spec.field(name).forbidden(ONLY);
        }
    }
}

fn check_traffic_policies(spec: &At) {
    let policies = ["Cluster", "Local"];
    let external = spec.field("externalTrafficPolicy");
    if is_external(spec) {
        external.one_of(&policies);
    } else if !external.is_empty() {
        external.invalid("may only be set for externally-accessible services");
    }
    if !needs_health_check(spec) {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        spec.field("healthCheckNodePort").within(0..=0, detail);
    }
    spec.field("internalTrafficPolicy").among_or_none(&policies);
    spec.optional("trafficDistribution", |distribution| {
        distribution.among(&["PreferClose", "PreferSameZone", "PreferSameNode"]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_that_leave_out_what_was_given_should_keep_it() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
            "ipFamilies": ["IPv4"], "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
        Service.set_defaults(&mut new);
        Service.prepare_for_update(&mut new, &old, &WriteContext::default());
        // Whoever gives addresses fills in the families.
        new["spec"]["ipFamilies"] = json!(["IPv4"]);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.5"]));
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);
        assert!(Service.validate_update(&new, &old, &WriteContext::default()).is_empty());
    }

    #[test]
    fn a_change_of_type_should_take_node_ports_away() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
            "externalTrafficPolicy": "Cluster", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}});
        let mut new = old.clone();
        new["spec"]["type"] = "ClusterIP".into();
        Service.set_defaults(&mut new);
        Service.prepare_for_update(&mut new, &old, &WriteContext::default());
        assert!(new["spec"]["ports"][0].get("nodePort").is_none());
        assert_eq!(Service.validate(&new), []);
    }
}
