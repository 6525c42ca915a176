//! Services.
//!
//! Cluster addresses and node ports are given out by whoever stores services; here is what needs no knowledge of
//! other services: what belongs to which type, and what an update that leaves them out keeps. `service_addresses` has
//! the rules of addresses and families.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{
    super::common::{Seen, one_of, spec},
    endpoints::endpoint_ip,
    service_addresses::{self, has_addresses, is_headless},
};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, IMMUTABLE, Look, Path, PathExt, Touch},
    intstr, names,
    names::NameRule,
};

const AFFINITY_SECONDS: i64 = 10_800;
const AFFINITY_SECONDS_MAX: i64 = 86_400;
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// What is special about services.
pub struct Service;

impl Strategy for Service {
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
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

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.put("status", json!({"loadBalancer": {}}));
        if let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) {
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
        let Some(spec) = new.get_mut("spec").filter(|s| s.is_object()) else { return };
        service_addresses::keep(spec, old);
        keep_node_ports(spec, old);
        drop_with_type(spec, old);
        drop_foreign(spec);
        if spec.text("type") != "LoadBalancer" {
            new.put("status", json!({"loadBalancer": {}}));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        type_rules(&mut errors, &path, spec);
        ports(&mut errors, &path.field("ports"), spec);
        let selector = path.field("selector");
        for (key, value) in spec.entries("selector") {
            errors.invalid_each(&selector, key, names::qualified_name(key));
            let value = value.as_str().unwrap_or_default();
            errors.invalid_each(&selector, value, names::label_value(value));
        }
        affinity(&mut errors, &path, spec);
        service_addresses::check(&mut errors, spec);
        external_addresses(&mut errors, &path.field("externalIPs"), spec);
        one_of(&mut errors, &path.field("type"), spec, TYPES);
        load_balancer(&mut errors, &path, spec);
        traffic_policies(&mut errors, &path, spec);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if context.subresource.is_some() {
            return errors.into_vec();
        }
        let (new, old) = (spec(new), spec(old));
        service_addresses::check_change(&mut errors, new, old);
        let check = new.int("healthCheckNodePort");
        if needs_health_check(new) && needs_health_check(old) && check != old.int("healthCheckNodePort") {
            errors.forbidden(&Path::ROOT.field("spec.healthCheckNodePort"), IMMUTABLE);
        }
        errors.into_vec()
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        if !spec(new).items("externalIPs").is_empty() && spec(new).text("type") == "ExternalName" {
            warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_string());
        }
        if spec(new).text("type") != "ExternalName" && !spec(new).text("externalName").is_empty() {
            warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_string());
        }
        if is_headless(spec(new)) {
            for (name, said) in [
                ("loadBalancerIP", "spec.loadBalancerIP is ignored for headless services"),
                ("externalIPs", "spec.externalIPs is ignored for headless services"),
            ] {
                if spec(new).at(name).is_some_and(|v| v != &json!("") && v != &json!([])) {
                    warnings.push(said.to_string());
                }
            }
            if spec(new).text("sessionAffinity") == "ClientIP" {
                warnings.push("spec.SessionAffinity is ignored for headless services".to_string());
            }
        }
        warnings
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(Cow<'static, str>, String)> {
        let spec = spec(object);
        vec![
            ("spec.clusterIP".into(), spec.text("clusterIP").to_string()),
            ("spec.type".into(), spec.text("type").to_string()),
        ]
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

fn type_rules(errors: &mut Errors, path: &Path, spec: &Value) {
    let kind = spec.text("type");
    if spec.items("ports").is_empty() && !is_headless(spec) && kind != "ExternalName" {
        errors.required(&path.field("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.invalid(&path.field("clusterIPs").index(0), "None", detail);
        }
        "ExternalName" => {
            for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if spec.at(name).is_some_and(|v| v != &json!([])) {
                    errors.forbidden(&path.field(name), "may not be set for ExternalName services");
                }
            }
            let name = spec.text("externalName");
            let name = name.strip_suffix('.').unwrap_or(name);
            let path = path.field("externalName");
            if name.is_empty() {
                errors.required(&path, "");
            } else {
                errors.invalid_each(&path, name, names::dns1123_subdomain(name));
            }
        }
        _ => {}
    }
}

fn ports(errors: &mut Errors, path: &Path, spec: &Value) {
    let ports = spec.items("ports");
    let mut seen = Seen::default();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.text("name");
        if !name.is_empty() {
            errors.invalid_each(&path.field("name"), name, names::dns1123_label(name));
            if !seen.is_new(name) {
                errors.duplicate(&path.field("name"), name);
            }
        } else if ports.len() > 1 {
            errors.required(&path.field("name"), "");
        }
        let number = port.int("port").unwrap_or_default();
        if let Some(fault) = names::port_number(number) {
            errors.invalid(&path.field("port"), number, fault);
        }
        one_of(errors, &path.field("protocol"), port, &["SCTP", "TCP", "UDP"]);
        if let Some(target) = port.at("targetPort") {
            intstr::validate_port(errors, &path.field("targetPort"), target);
        }
        let protocol = port.text("appProtocol");
        if !protocol.is_empty() {
            errors.invalid_each(&path.field("appProtocol"), protocol, names::qualified_name(protocol));
        }
        let node_port = port.int("nodePort").unwrap_or_default();
        if node_port != 0 && spec.text("type") == "ClusterIP" {
            errors.forbidden(&path.field("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        let before = || ports.iter().take(index).filter(|p| p.text("protocol") == port.text("protocol"));
        if node_port != 0 && before().any(|p| p.int("nodePort") == Some(node_port)) {
            errors.duplicate(&path.field("nodePort"), node_port);
        }
        if before().any(|p| p.int("port") == Some(number)) {
            errors.duplicate(&path, json!({"port": number, "protocol": port.text("protocol")}));
        }
    }
}

fn affinity(errors: &mut Errors, path: &Path, spec: &Value) {
    one_of(errors, &path.field("sessionAffinity"), spec, &["ClientIP", "None"]);
    if spec.text("sessionAffinity") != "ClientIP" {
        return;
    }
    let seconds = spec.dig(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).and_then(Value::as_i64);
    if let Some(seconds) = seconds.filter(|s| !(1..=AFFINITY_SECONDS_MAX).contains(s)) {
        let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
        errors.invalid(&path.field("sessionAffinityConfig.clientIP.timeoutSeconds"), seconds, detail);
    }
}

fn external_addresses(errors: &mut Errors, path: &Path, spec: &Value) {
    for (index, ip) in spec.items("externalIPs").iter().filter_map(Value::as_str).enumerate() {
        let path = path.index(index);
        errors.invalid_each(&path, ip, names::ip_address(ip));
        endpoint_ip(errors, &path, ip);
    }
}

fn load_balancer(errors: &mut Errors, path: &Path, spec: &Value) {
    let is_balancer = spec.text("type") == "LoadBalancer";
    let ranges = spec.items("loadBalancerSourceRanges");
    let ranges_path = path.field("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !is_balancer {
        errors.forbidden(&ranges_path, "may only be used when `type` is 'LoadBalancer'");
    }
    for (index, range) in ranges.iter().filter_map(Value::as_str).enumerate() {
        errors.invalid_each(&ranges_path.index(index), range.trim(), names::cidr(range.trim()));
    }
    for name in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if spec.at(name).is_some() && !is_balancer {
            errors.forbidden(&path.field(name), "may only be used when `type` is 'LoadBalancer'");
        }
    }
}

fn traffic_policies(errors: &mut Errors, path: &Path, spec: &Value) {
    let external = spec.text("externalTrafficPolicy");
    let external_path = path.field("externalTrafficPolicy");
    if is_external(spec) {
        one_of(errors, &external_path, spec, &["Cluster", "Local"]);
    } else if !external.is_empty() {
        errors.invalid(&external_path, external, "may only be set for externally-accessible services");
    }
    let check = spec.int("healthCheckNodePort").unwrap_or_default();
    if check != 0 && !needs_health_check(spec) {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&path.field("healthCheckNodePort"), check, detail);
    }
    let internal = spec.text("internalTrafficPolicy");
    if !internal.is_empty() && !["Cluster", "Local"].contains(&internal) {
        errors.not_supported(&path.field("internalTrafficPolicy"), internal, &["Cluster", "Local"]);
    }
    let distribution = spec.text("trafficDistribution");
    let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    if spec.at("trafficDistribution").is_some() && !known.contains(&distribution) {
        errors.not_supported(&path.field("trafficDistribution"), distribution, &known);
    }
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
