//! Network policies, ingresses and their classes, address ranges.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::common::{domain_prefixed_path, one_of, reset_status, spec};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch},
    names::{self, NameRule},
    net::AddressRange,
    selector,
};

/// What is special about network policies.
pub struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
        spec.default_to("podSelector", json!({}));
        for list in ["ingress", "egress"] {
            for rule in spec.items_mut(list) {
                for port in rule.items_mut("ports") {
                    port.default_text("protocol", "TCP");
                }
            }
        }
        if spec.items("policyTypes").is_empty() {
            // A policy is about what comes in; about what goes out only when it says something of it.
            let mut types = vec!["Ingress"];
            if !spec.items("egress").is_empty() {
                types.push("Egress");
            }
            spec.put("policyTypes", types);
        }
    }

    fn tracks_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        if let Some(selector) = spec.at("podSelector") {
            selector::validate_object(&mut errors, &path.field("podSelector"), selector);
        }
        for (list, peers) in [("ingress", "from"), ("egress", "to")] {
            let list_path = path.field(list);
            for (index, rule) in spec.items(list).iter().enumerate() {
                policy_rule(&mut errors, &list_path.index(index), rule, peers);
            }
        }
        let types = spec.items("policyTypes");
        let types_path = path.field("policyTypes");
        if types.len() > 2 {
            errors.invalid(&types_path, types.to_vec(), "may not specify more than two policyTypes");
        } else {
            for (index, kind) in types.iter().filter_map(Value::as_str).enumerate() {
                if !["Egress", "Ingress"].contains(&kind) {
                    errors.not_supported(&types_path.index(index), kind, &["Ingress", "Egress"]);
                }
            }
        }
        errors.into_vec()
    }
}

fn policy_rule(errors: &mut Errors, path: &Path, rule: &Value, peers: &str) {
    let ports = path.field("ports");
    for (index, port) in rule.items("ports").iter().enumerate() {
        policy_port(errors, &ports.index(index), port);
    }
    let peers_path = path.field(peers);
    for (index, peer) in rule.items(peers).iter().enumerate() {
        let path = peers_path.index(index);
        let mut count = 0;
        for name in ["podSelector", "namespaceSelector"] {
            if let Some(selector) = peer.at(name) {
                count += 1;
                selector::validate_object(errors, &path.field(name), selector);
            }
        }
        if let Some(block) = peer.at("ipBlock") {
            if count > 0 {
                errors.forbidden(&path, "may not specify both ipBlock and another peer");
            }
            count += 1;
            address_block(errors, &path.field("ipBlock"), block);
        }
        if count == 0 {
            errors.required(&path, "must specify a peer");
        }
    }
}

fn policy_port(errors: &mut Errors, path: &Path, port: &Value) {
    let protocols = ["SCTP", "TCP", "UDP"];
    let protocol = port.text("protocol");
    if !protocol.is_empty() && !protocols.contains(&protocol) {
        errors.not_supported(&path.field("protocol"), protocol, &protocols);
    }
    let end_path = path.field("endPort");
    let end = port.int("endPort");
    match (port.at("port"), end) {
        (None, Some(end)) => {
            errors.invalid(&end_path, end, "may not be specified when `port` is not specified")
        }
        (None, None) => {}
        (Some(Value::String(name)), end) => {
            if let Some(end) = end {
                errors.invalid(&end_path, end, "may not be specified when `port` is non-numeric");
            }
            errors.invalid_each(&path.field("port"), name, names::port_name(name));
        }
        (Some(number), end) => {
            let number = number.as_i64().unwrap_or_default();
            if let Some(fault) = names::port_number(number) {
                errors.invalid(&path.field("port"), number, fault);
            }
            let Some(end) = end else { return };
            if end < number {
                errors.invalid(&end_path, number, "must be greater than or equal to `port`");
            }
            if let Some(fault) = names::port_number(end) {
                errors.invalid(&end_path, end, fault);
            }
        }
    }
}

fn address_block(errors: &mut Errors, path: &Path, block: &Value) {
    let range = block.text("cidr");
    if range.is_empty() {
        return errors.required(&path.field("cidr"), "");
    }
    errors.invalid_each(&path.field("cidr"), range, names::cidr(range));
    let except_path = path.field("except");
    for (index, except) in block.items("except").iter().filter_map(Value::as_str).enumerate() {
        let path = except_path.index(index);
        errors.invalid_each(&path, except, names::cidr(except));
        if let (Some(outer), Some(inner)) = (AddressRange::parse(range), AddressRange::parse(except))
            && (outer == inner || !outer.contains(inner))
        {
            errors.invalid(&path, except, "must be a strict subset of `cidr`");
        }
    }
}

/// What is special about ingresses.
pub struct Ingress;

impl Strategy for Ingress {
    fn tracks_generation(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.put("status", json!({"loadBalancer": {}}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        let rules = spec.items("rules");
        if rules.is_empty() && spec.at("defaultBackend").is_none() {
            let value = spec.at("rules").cloned().unwrap_or_default();
            errors.invalid(&path, value, "either `defaultBackend` or `rules` must be specified");
        }
        if let Some(backend) = spec.at("defaultBackend") {
            ingress_backend(&mut errors, &path.field("defaultBackend"), backend);
        }
        let rules_path = path.field("rules");
        for (index, rule) in rules.iter().enumerate() {
            ingress_rule(&mut errors, &rules_path.index(index), rule);
        }
        let tls_path = path.field("tls");
        for (index, tls) in spec.items("tls").iter().enumerate() {
            let path = tls_path.index(index);
            let hosts = path.field("hosts");
            for (index, host) in tls.items("hosts").iter().filter_map(Value::as_str).enumerate() {
                host_name(&mut errors, &hosts.index(index), host);
            }
            let secret = tls.text("secretName");
            if !secret.is_empty() {
                errors.invalid_each(&path.field("secretName"), secret, names::dns1123_subdomain(secret));
            }
        }
        let class = spec.text("ingressClassName");
        if spec.at("ingressClassName").is_some() {
            errors.invalid_each(&path.field("ingressClassName"), class, names::dns1123_subdomain(class));
        }
        errors.into_vec()
    }
}

fn host_name(errors: &mut Errors, path: &Path, host: &str) {
    if host.contains('*') {
        errors.invalid_each(path, host, names::wildcard_dns1123_subdomain(host));
    } else {
        errors.invalid_each(path, host, names::dns1123_subdomain(host));
    }
}

fn ingress_rule(errors: &mut Errors, path: &Path, rule: &Value) {
    let host = rule.text("host");
    if !host.is_empty() {
        if host.parse::<IpAddr>().is_ok() {
            errors.invalid(&path.field("host"), host, "must be a DNS name, not an IP address");
        }
        host_name(errors, &path.field("host"), host);
    }
    let Some(http) = rule.at("http") else { return };
    let path = path.field("http.paths");
    let paths = http.items("paths");
    if paths.is_empty() {
        errors.required(&path, "");
    }
    for (index, rule) in paths.iter().enumerate() {
        ingress_path(errors, &path.index(index), rule);
    }
}

fn ingress_path(errors: &mut Errors, path: &Path, rule: &Value) {
    let target = rule.text("path");
    let target_path = path.field("path");
    match rule.text("pathType") {
        "" => return errors.required(&path.field("pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !target.starts_with('/') {
                errors.invalid(&target_path, target, "must be an absolute path");
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|s| target.contains(**s)) {
                errors.invalid(&target_path, target, format!("must not contain '{sequence}'"));
            }
            for suffix in ["/..", "/."].iter().filter(|s| target.ends_with(**s)) {
                errors.invalid(&target_path, target, format!("cannot end with '{suffix}'"));
            }
        }
        "ImplementationSpecific" if !target.is_empty() && !target.starts_with('/') => {
            errors.invalid(&target_path, target, "must be an absolute path");
        }
        "ImplementationSpecific" => {}
        other => {
            let words = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.not_supported(&path.field("pathType"), other, &words);
        }
    }
    ingress_backend(errors, &path.field("backend"), rule.get("backend").unwrap_or(&Value::Null));
}

fn ingress_backend(errors: &mut Errors, path: &Path, backend: &Value) {
    let service = match (backend.at("resource"), backend.at("service")) {
        (Some(_), Some(_)) => {
            return errors.invalid(path, "", "cannot set both resource and service backends");
        }
        (None, None) => return errors.invalid(path, "", "resource or service backend is required"),
        (Some(_), None) => return,
        (None, Some(service)) => service,
    };
    let name = service.text("name");
    let name_path = path.field("service.name");
    if name.is_empty() {
        errors.required(&name_path, "");
    } else {
        errors.invalid_each(&name_path, name, names::dns1123_label(name));
    }
    let port = service.get("port").unwrap_or(&Value::Null);
    match (port.text("name"), port.int("number").unwrap_or_default()) {
        ("", 0) => errors.required(path, "port name or number is required"),
        ("", number) => {
            if let Some(fault) = names::port_number(number) {
                errors.invalid(&path.field("service.port.number"), number, fault);
            }
        }
        (name, 0) => {
            errors.invalid_each(&path.field("service.port.name"), name, names::port_name(name));
        }
        _ => errors.invalid(path, "", "cannot set both port name & port number"),
    }
}

/// What is special about ingress classes.
pub struct IngressClass;

impl Strategy for IngressClass {
    fn tracks_generation(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Value) {
        let parameters = object.get_mut("spec").and_then(|s| s.get_mut("parameters"));
        if let Some(parameters) = parameters.filter(|p| p.is_object()) {
            parameters.default_text("scope", "Cluster");
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let controller = spec(object).text("controller");
        let controller_path = Path::ROOT.field("spec.controller");
        if controller.len() > 250 {
            errors.too_long(&controller_path, 250);
        }
        domain_prefixed_path(&mut errors, &controller_path, controller);
        if let Some(parameters) = spec(object).at("parameters") {
            let path = Path::ROOT.field("spec.parameters");
            for name in ["kind", "name"] {
                let value = parameters.text(name);
                if value.is_empty() {
                    errors.required(&path.field(name), "");
                }
                errors.invalid_each(&path.field(name), value, names::path_segment(value));
            }
            one_of(&mut errors, &path.field("scope"), parameters, &["Cluster", "Namespace"]);
            match (parameters.text("scope"), parameters.at("namespace")) {
                ("Namespace", None) => {
                    errors.required(&path.field("namespace"), "`parameters.scope` is set to 'Namespace'");
                }
                ("Cluster", Some(_)) => {
                    errors.forbidden(&path.field("namespace"), "`parameters.scope` is set to 'Cluster'");
                }
                _ => {}
            }
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        super::common::immutable(&mut errors, &path, spec(new), spec(old), &["controller"]);
        errors.into_vec()
    }
}

/// What is special about address ranges of services.
pub struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        reset_status(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec.cidrs");
        let ranges = spec(object).items("cidrs");
        match ranges.len() {
            0 => errors.required(&path, "at least one CIDR required"),
            1 | 2 => {
                for (index, range) in ranges.iter().filter_map(Value::as_str).enumerate() {
                    errors.invalid_each(&path.index(index), range, names::canonical_cidr(range));
                }
                let families =
                    ranges.iter().filter_map(|r| AddressRange::parse(r.as_str()?)).map(AddressRange::family);
                if let [one, other] = families.collect::<Vec<_>>().as_slice()
                    && one == other
                {
                    let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and \
                                  2001:db8::/64";
                    errors.invalid(&path, ranges.to_vec(), detail);
                }
            }
            _ => errors.invalid(&path, spec(object).clone(), "may only hold up to 2 values"),
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if context.subresource.is_some() {
            return errors.into_vec();
        }
        let path = Path::ROOT.field("spec.cidrs");
        let (new, old) = (spec(new).items("cidrs"), spec(old).items("cidrs"));
        // A second range may be added to a single one.
        if new.len() == old.len() || (new.len(), old.len()) == (2, 1) {
            for (index, (range, before)) in new.iter().zip(old).enumerate() {
                if range != before {
                    errors.immutable(&path.index(index), range);
                }
            }
        } else {
            errors.immutable(&path, &new.to_vec().into());
        }
        errors.into_vec()
    }
}

/// What is special about addresses of services, whose name is the address.
pub struct IpAddress;

impl Strategy for IpAddress {
    fn name_rule(&self) -> NameRule {
        NameRule::IpAddress
    }

    fn tracks_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec.parentRef");
        let Some(parent) = spec(object).at("parentRef") else {
            errors.required(&path, "");
            return errors.into_vec();
        };
        let group = parent.text("group");
        if !group.is_empty() {
            errors.invalid_each(&path.field("group"), group, names::dns1123_subdomain(group));
        }
        for name in ["resource", "name", "namespace"] {
            let value = parent.text(name);
            if value.is_empty() && name != "namespace" {
                errors.required(&path.field(name), "");
            }
            errors.invalid_each(&path.field(name), value, names::path_segment(value));
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        super::common::immutable(&mut errors, &path, spec(new), spec(old), &["parentRef"]);
        errors.into_vec()
    }
}
