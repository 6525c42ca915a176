//! Network policies, ingresses and their classes, address ranges.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::common::{domain_prefixed_path, spec, spec_mut};
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch},
    intstr, names,
    net::AddressRange,
    selector,
};

/// What is special about network policies.
pub struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = spec_mut(object) else { return };
        spec.default_to("podSelector", json!({}));
        for list in ["ingress", "egress"] {
            spec.each_inside(list, |rule| {
                rule.each_inside("ports", |port| port.default_text("protocol", "TCP"));
            });
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

    fn check(&self, object: &At) {
        let spec = object.field("spec");
        spec.optional("podSelector", selector::check);
        for (list, peers) in [("ingress", "from"), ("egress", "to")] {
            spec.each(list, |rule| {
                rule.each("ports", policy_port);
                rule.each(peers, policy_peer);
            });
        }
        let types = spec.field("policyTypes");
        if types.list().len() > 2 {
            types.invalid("may not specify more than two policyTypes");
        } else {
            types.elements().for_each(|kind| kind.among(&["Ingress", "Egress"]));
        }
    }
}

fn policy_peer(peer: &At) {
    let mut count = 0;
    for name in ["podSelector", "namespaceSelector"] {
        peer.optional(name, |selector| {
            count += 1;
            selector::check(selector);
        });
    }
    match peer.given("ipBlock") {
        Some(block) => {
            if count > 0 {
                peer.forbidden("may not specify both ipBlock and another peer");
            }
            address_block(&block);
        }
        None if count == 0 => peer.required("must specify a peer"),
        None => {}
    }
}

fn policy_port(port: &At) {
    port.field("protocol").among_or_none(&["SCTP", "TCP", "UDP"]);
    let (number, end) = (port.field("port"), port.field("endPort"));
    if end.is_given() && !number.is_number() {
        let what = if number.is_string() { "non-numeric" } else { "not specified" };
        end.invalid(format!("may not be specified when `port` is {what}"));
    }
    port.optional("port", intstr::check_port);
    if end.is_given() && number.is_number() {
        if end.number() < number.number() {
            end.invalid_value(number.number(), "must be greater than or equal to `port`");
        }
        end.port_number();
    }
}

fn address_block(block: &At) {
    let range = block.field("cidr");
    range.name(names::cidr);
    if range.is_empty() {
        return;
    }
    block.each("except", |except| {
        except.form(names::cidr);
        if let (Some(outer), Some(inner)) =
            (AddressRange::parse(range.str()), AddressRange::parse(except.str()))
            && (outer == inner || !outer.contains(inner))
        {
            except.invalid("must be a strict subset of `cidr`");
        }
    });
}

/// What is special about ingresses.
pub struct Ingress;

impl Strategy for Ingress {
    fn check(&self, object: &At) {
        let spec = object.field("spec");
        if spec.items("rules").is_empty() && spec.at("defaultBackend").is_none() {
            let value = spec.field("rules").value().clone();
            spec.invalid_value(value, "either `defaultBackend` or `rules` must be specified");
        }
        spec.optional("defaultBackend", ingress_backend);
        spec.each("rules", ingress_rule);
        spec.each("tls", |tls| {
            tls.each("hosts", host_name);
            tls.field("secretName").name_or_none(names::dns1123_subdomain);
        });
        spec.optional("ingressClassName", |class| class.form(names::dns1123_subdomain));
    }
}

fn host_name(host: &At) {
    let is_wild = host.str().contains('*');
    host.form(if is_wild { names::wildcard_dns1123_subdomain } else { names::dns1123_subdomain });
}

fn ingress_rule(rule: &At) {
    let host = rule.field("host");
    if !host.is_empty() {
        if host.str().parse::<IpAddr>().is_ok() {
            host.invalid("must be a DNS name, not an IP address");
        }
        host_name(&host);
    }
    if rule.at("http").is_some() {
        let paths = rule.field("http.paths");
        paths.filled("");
        paths.elements().for_each(|path| ingress_path(&path));
    }
}

fn ingress_path(rule: &At) {
    let (target, kind) = (rule.field("path"), rule.field("pathType"));
    let is_absolute = target.str().starts_with('/');
    match kind.str() {
        "" => return kind.required("pathType must be specified"),
        "Exact" | "Prefix" => {
            if !is_absolute {
                target.invalid_text("must be an absolute path");
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|s| target.str().contains(**s))
            {
                target.invalid(format!("must not contain '{sequence}'"));
            }
            for suffix in ["/..", "/."].iter().filter(|s| target.str().ends_with(**s)) {
                target.invalid(format!("cannot end with '{suffix}'"));
            }
        }
        "ImplementationSpecific" if !target.is_empty() && !is_absolute => {
            target.invalid("must be an absolute path");
        }
        _ => kind.among(&["Exact", "ImplementationSpecific", "Prefix"]),
    }
    ingress_backend(&rule.field("backend"));
}

fn ingress_backend(backend: &At) {
    match (backend.at("resource"), backend.at("service")) {
        (Some(_), Some(_)) => {
            return backend.invalid_value("", "cannot set both resource and service backends");
        }
        (None, None) => return backend.invalid_value("", "resource or service backend is required"),
        (Some(_), None) => return,
        (None, Some(_)) => {}
    }
    backend.field("service.name").name(names::dns1123_label);
    let (name, number) = (backend.field("service.port.name"), backend.field("service.port.number"));
    match (name.is_empty(), number.number()) {
        (true, 0) => backend.required("port name or number is required"),
        (true, _) => number.port_number(),
        (false, 0) => name.form(names::port_name),
        (false, _) => backend.invalid_value("", "cannot set both port name & port number"),
    }
}

/// What is special about ingress classes.
pub struct IngressClass;

impl Strategy for IngressClass {
    fn set_defaults(&self, object: &mut Value) {
        object.inside("spec.parameters", |parameters| parameters.default_text("scope", "Cluster"));
    }

    fn check(&self, object: &At) {
        let controller = object.field("spec.controller");
        controller.at_most_bytes(250);
        domain_prefixed_path(&controller);
        object.field("spec").optional("parameters", |parameters| {
            for name in ["kind", "name"] {
                let value = parameters.field(name);
                value.filled("");
                value.form(names::path_segment);
            }
            let (scope, namespace) = (parameters.field("scope"), parameters.field("namespace"));
            scope.one_of(&["Cluster", "Namespace"]);
            match (scope.str(), namespace.is_given()) {
                ("Namespace", false) => namespace.required("`parameters.scope` is set to 'Namespace'"),
                ("Cluster", true) => namespace.forbidden("`parameters.scope` is set to 'Cluster'"),
                _ => {}
            }
        });
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        new.field("spec").fixed(spec(old), &["controller"]);
    }
}

/// What is special about address ranges of services.
pub struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn check(&self, object: &At) {
        let ranges = object.field("spec.cidrs");
        match ranges.list().len() {
            0 => ranges.required("at least one CIDR required"),
            1 | 2 => {
                ranges.elements().for_each(|range| range.form(names::canonical_cidr));
                let family = |range: At| AddressRange::parse(range.str()).map(AddressRange::family);
                if let [one, other] = ranges.elements().filter_map(family).collect::<Vec<_>>().as_slice()
                    && one == other
                {
                    ranges.invalid(
                        "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
                    );
                }
            }
            _ => ranges.invalid_value(spec(object).clone(), "may only hold up to 2 values"),
        }
    }

    fn check_update(&self, new: &At, old: &Value, context: &WriteContext) {
        if context.subresource.is_some() {
            return;
        }
        let (new, old) = (new.field("spec.cidrs"), spec(old).items("cidrs"));
        // A second range may be added to a single one.
        if new.list().len() == old.len() || (new.list().len(), old.len()) == (2, 1) {
            let pairs = new.elements().zip(old);
            pairs.filter(|(range, before)| range.value() != *before).for_each(|(range, _)| range.immutable());
        } else {
            new.with(&new.list().to_vec().into()).immutable();
        }
    }
}

/// What is special about addresses of services, whose name is the address.
pub struct IpAddress;

impl Strategy for IpAddress {
    fn check(&self, object: &At) {
        let parent = object.field("spec.parentRef");
        if !parent.is_given() {
            return parent.required("");
        }
        parent.field("group").name_or_none(names::dns1123_subdomain);
        for name in ["resource", "name", "namespace"] {
            let value = parent.field(name);
            if name != "namespace" {
                value.filled("");
            }
            value.form(names::path_segment);
        }
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        new.field("spec").fixed(spec(old), &["parentRef"]);
    }
}
