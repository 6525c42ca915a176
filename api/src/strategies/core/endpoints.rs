//! Endpoints, the older way to tell where the pods of a service are.

use serde_json::Value;

use crate::{
    Strategy,
    at::At,
    field::{Look, Touch},
    names,
};

/// What is special about endpoints.
pub struct Endpoints;

impl Strategy for Endpoints {
    fn set_defaults(&self, object: &mut Value) {
        object.each_inside("subsets", |subset| {
            subset.each_inside("ports", |port| port.default_text("protocol", "TCP"));
        });
    }

    fn check(&self, object: &At) {
        object.each("subsets", |subset| {
            if ["addresses", "notReadyAddresses"].iter().all(|list| subset.items(list).is_empty()) {
                subset.required("must specify `addresses` or `notReadyAddresses`");
            }
            subset.each("addresses", check_address);
            subset.each("notReadyAddresses", check_address);
            let needs_name = subset.items("ports").len() > 1;
            subset.each("ports", |port| check_port(port, needs_name));
        });
    }
}

fn check_address(address: &At) {
    address.field("ip").form(names::ip_address);
    endpoint_ip(&address.field("ip"));
    address.field("hostname").name_or_none(names::dns1123_label);
}

/// An address to which traffic may be sent.
pub(crate) fn endpoint_ip(ip: &At) {
    let Ok(address) = ip.str().parse::<std::net::IpAddr>() else { return };
    if address.is_unspecified() {
        ip.invalid(format!("may not be unspecified ({})", ip.str()));
    }
    if address.is_loopback() {
        ip.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (is_link_local, is_link_local_multicast) = match address {
        std::net::IpAddr::V4(v4) => (v4.is_link_local(), v4.octets().starts_with(&[224, 0, 0])),
        std::net::IpAddr::V6(v6) => {
            let first = v6.segments().first().copied().unwrap_or_default();
            (first & 0xffc0 == 0xfe80, first & 0xff0f == 0xff02)
        }
    };
    if is_link_local {
        ip.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if is_link_local_multicast {
        ip.invalid("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn check_port(port: &At, needs_name: bool) {
    let name = port.field("name");
    name.name_or_none(names::dns1123_label);
    if needs_name {
        name.filled("");
    }
    port.field("port").port_number();
    port.field("protocol").one_of(&["SCTP", "TCP", "UDP"]);
    port.field("appProtocol").name_or_none(names::qualified_name);
}
