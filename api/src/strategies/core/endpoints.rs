//! Endpoints, the older way to tell where the pods of a service are.

use serde_json::Value;

use super::super::common::one_of;
use crate::{
    FieldError, Strategy,
    field::{Errors, Look, Path, PathExt, Touch},
    names,
};

/// What is special about endpoints.
pub struct Endpoints;

impl Strategy for Endpoints {
    fn set_defaults(&self, object: &mut Value) {
        for subset in object.items_mut("subsets") {
            for port in subset.items_mut("ports") {
                port.default_text("protocol", "TCP");
            }
        }
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("subsets");
        for (index, subset) in object.items("subsets").iter().enumerate() {
            let path = path.index(index);
            if ["addresses", "notReadyAddresses"].iter().all(|list| subset.items(list).is_empty()) {
                errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
            }
            for list in ["addresses", "notReadyAddresses"] {
                let path = path.field(list);
                for (index, address) in subset.items(list).iter().enumerate() {
                    validate_address(&mut errors, &path.index(index), address);
                }
            }
            let ports = subset.items("ports");
            let ports_path = path.field("ports");
            for (index, port) in ports.iter().enumerate() {
                validate_port(&mut errors, &ports_path.index(index), port, ports.len() > 1);
            }
        }
        errors.into_vec()
    }
}

fn validate_address(errors: &mut Errors, path: &Path, address: &Value) {
    let ip = address.text("ip");
    errors.invalid_each(&path.field("ip"), ip, names::ip_address(ip));
    endpoint_ip(errors, &path.field("ip"), ip);
    let hostname = address.text("hostname");
    if !hostname.is_empty() {
        errors.invalid_each(&path.field("hostname"), hostname, names::dns1123_label(hostname));
    }
}

/// An address to which traffic may be sent.
pub(crate) fn endpoint_ip(errors: &mut Errors, path: &Path, ip: &str) {
    let Ok(address) = ip.parse::<std::net::IpAddr>() else { return };
    let mut refuse = |why: &str| errors.invalid(path, ip, why);
    if address.is_unspecified() {
        refuse(&format!("may not be unspecified ({ip})"));
    }
    if address.is_loopback() {
        refuse("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (is_link_local, is_link_local_multicast) = match address {
        std::net::IpAddr::V4(v4) => (v4.is_link_local(), v4.octets().starts_with(&[224, 0, 0])),
        std::net::IpAddr::V6(v6) => {
            let first = v6.segments().first().copied().unwrap_or_default();
            (first & 0xffc0 == 0xfe80, first & 0xff0f == 0xff02)
        }
    };
    if is_link_local {
        refuse("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if is_link_local_multicast {
        refuse("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn validate_port(errors: &mut Errors, path: &Path, port: &Value, needs_name: bool) {
    let name = port.text("name");
    if !name.is_empty() {
        errors.invalid_each(&path.field("name"), name, names::dns1123_label(name));
    } else if needs_name {
        errors.required(&path.field("name"), "");
    }
    let number = port.int("port").unwrap_or_default();
    if let Some(fault) = names::port_number(number) {
        errors.invalid(&path.field("port"), number, fault);
    }
    one_of(errors, &path.field("protocol"), port, &["SCTP", "TCP", "UDP"]);
    let protocol = port.text("appProtocol");
    if !protocol.is_empty() {
        errors.invalid_each(&path.field("appProtocol"), protocol, names::qualified_name(protocol));
    }
}
