//! Endpoint slices.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    common::{Seen, immutable, one_of},
    core::endpoint_ip,
};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch},
    names,
};

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;

/// What is special about endpoint slices.
pub struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn set_defaults(&self, object: &mut Value) {
        for port in object.items_mut("ports") {
            port.default_to("name", "");
            port.default_text("protocol", "TCP");
        }
    }

    fn tracks_generation(&self) -> bool {
        true
    }

    fn generation_grows(&self, new: &Value, old: &Value) -> bool {
        let part = |object: &Value, name: &str| object.get(name).cloned().unwrap_or_default();
        ["endpoints", "ports", "addressType"].iter().any(|name| part(new, name) != part(old, name))
            || new.dig(&["metadata", "labels"]) != old.dig(&["metadata", "labels"])
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        one_of(&mut errors, &Path::ROOT.field("addressType"), object, &["FQDN", "IPv4", "IPv6"]);
        ports(&mut errors, &Path::ROOT.field("ports"), object);
        let path = Path::ROOT.field("endpoints");
        let endpoints = object.items("endpoints");
        if endpoints.len() > ENDPOINTS_MAX {
            errors.too_many(&path, endpoints.len(), ENDPOINTS_MAX);
            return errors.into_vec();
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            validate_endpoint(&mut errors, &path.index(index), endpoint, object.text("addressType"));
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        immutable(&mut errors, &Path::ROOT, new, old, &["addressType"]);
        errors.into_vec()
    }
}

fn ports(errors: &mut Errors, path: &Path, object: &Value) {
    let ports = object.items("ports");
    if ports.len() > PORTS_MAX {
        return errors.too_many(path, ports.len(), PORTS_MAX);
    }
    let mut seen = Seen::default();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.text("name");
        if !name.is_empty() {
            errors.invalid_each(&path.field("name"), name, names::dns1123_label(name));
        }
        if !seen.is_new(name) {
            errors.duplicate(&path.field("name"), name);
        }
        one_of(errors, &path.field("protocol"), port, &["SCTP", "TCP", "UDP"]);
        let protocol = port.text("appProtocol");
        if !protocol.is_empty() {
            errors.invalid_each(&path.field("appProtocol"), protocol, names::qualified_name(protocol));
        }
    }
}

fn validate_endpoint(errors: &mut Errors, path: &Path, endpoint: &Value, kind: &str) {
    let addresses_path = path.field("addresses");
    let addresses = endpoint.items("addresses");
    if addresses.is_empty() {
        errors.required(&addresses_path, "must contain at least 1 address");
    } else if addresses.len() > ADDRESSES_MAX {
        errors.too_many(&addresses_path, addresses.len(), ADDRESSES_MAX);
    }
    for (index, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
        let path = addresses_path.index(index);
        if kind == "FQDN" {
            let name = address.strip_suffix('.').unwrap_or(address);
            errors.invalid_each(&path, name, names::dns1123_subdomain(name));
            continue;
        }
        errors.invalid_each(&path, address, names::ip_address(address));
        endpoint_ip(errors, &path, address);
        match (kind, address.parse::<IpAddr>()) {
            ("IPv4", Ok(IpAddr::V6(_))) => {
                errors.invalid(&addresses_path, address, "must be an IPv4 address")
            }
            ("IPv6", Ok(IpAddr::V4(_))) => {
                errors.invalid(&addresses_path, address, "must be an IPv6 address")
            }
            _ => {}
        }
    }
    let hostname = endpoint.text("hostname");
    if !hostname.is_empty() {
        errors.invalid_each(&path.field("hostname"), hostname, names::dns1123_label(hostname));
    }
    let node = endpoint.text("nodeName");
    if !node.is_empty() {
        errors.invalid_each(&path.field("nodeName"), node, names::dns1123_subdomain(node));
    }
}
