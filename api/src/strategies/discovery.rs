//! Endpoint slices.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use super::core::endpoint_ip;
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch},
    names,
};

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;

/// What is special about endpoint slices.
pub struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn set_defaults(&self, object: &mut Value) {
        object.each_inside("ports", |port| {
            port.default_to("name", "");
            port.default_text("protocol", "TCP");
        });
    }

    fn generation_grows(&self, new: &Value, old: &Value) -> bool {
        ["endpoints", "ports", "addressType"].iter().any(|name| new.at(name) != old.at(name))
            || new.dig(&["metadata", "labels"]) != old.dig(&["metadata", "labels"])
    }

    fn check(&self, object: &At) {
        object.field("addressType").one_of(&["FQDN", "IPv4", "IPv6"]);
        let ports = object.field("ports");
        ports.at_most(PORTS_MAX);
        if ports.list().len() <= PORTS_MAX {
            check_ports(&ports);
        }
        let endpoints = object.field("endpoints");
        endpoints.at_most(ENDPOINTS_MAX);
        if endpoints.list().len() <= ENDPOINTS_MAX {
            endpoints.elements().for_each(|endpoint| check_endpoint(&endpoint, object.text("addressType")));
        }
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        new.fixed(old, &["addressType"]);
    }
}

fn check_ports(ports: &At) {
    let mut seen = BTreeSet::new();
    for port in ports.elements() {
        let name = port.field("name");
        name.name_or_none(names::dns1123_label);
        name.unique(&mut seen);
        port.field("protocol").one_of(&["SCTP", "TCP", "UDP"]);
        port.field("appProtocol").name_or_none(names::qualified_name);
    }
}

fn check_endpoint(endpoint: &At, kind: &str) {
    let addresses = endpoint.field("addresses");
    addresses.filled("must contain at least 1 address");
    addresses.at_most(ADDRESSES_MAX);
    for address in addresses.elements() {
        if kind == "FQDN" {
            let name = address.str().strip_suffix('.').unwrap_or(address.str());
            address.invalid_each(name, names::dns1123_subdomain(name));
            continue;
        }
        address.form(names::ip_address);
        endpoint_ip(&address);
        match (kind, address.str().parse::<IpAddr>()) {
            ("IPv4", Ok(IpAddr::V6(_))) | ("IPv6", Ok(IpAddr::V4(_))) => {
                addresses.invalid_value(address.str(), format!("must be an {kind} address"));
            }
            _ => {}
        }
    }
    endpoint.field("hostname").name_or_none(names::dns1123_label);
    endpoint.field("nodeName").name_or_none(names::dns1123_subdomain);
}
