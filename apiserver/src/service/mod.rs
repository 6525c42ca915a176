//! What a service needs beside itself: cluster addresses and node ports.
//!
//! Guarantees that no address and no port is given twice, whatever happens at the same time, after a restart, and with
//! several API servers over one store: every allocation is a key of its own, created in the same transaction as the
//! service on the condition that it does not exist, and removed with it. Addresses are `networking.k8s.io/v1
//! IPAddress` objects, as upstream's; ports are keys that the API does not serve. There is no bitmap to repair.
//!
//! As upstream, dynamic allocations avoid the lower part of the range, which is for explicit ones. Not yet: IPv6.

mod plan;

use std::net::Ipv4Addr;

use api::{ApiError, FieldError, Row};
use serde_json::{Value, json};
use store::{Action, Precondition, Write};
use uuid::Uuid;

use crate::cache::encode;
use crate::config::Config;
use crate::objects::{Objects, key_of};
use crate::pipeline::now;
use plan::{Allocations, Taken};

const ADDRESSES: &str = "networking.k8s.io/ipaddresses";
const PORTS: &str = "allocations/nodeports";

/// What is taken, as the cache knows it. The store's conditions have the last word.
struct CacheTaken<'a>(&'a Objects);

impl Taken for CacheTaken<'_> {
    fn address(&self, address: Ipv4Addr) -> bool {
        self.0.cached(ADDRESSES, "", &address.to_string()).is_some()
    }

    fn port(&self, port: u16) -> bool {
        self.0.cached(PORTS, "", &port.to_string()).is_some()
    }
}

fn is_service(row: &Row) -> bool {
    row.plural == "services" && row.group().is_empty()
}

/// Fills in what the service is given, and answers the writes that reserve it.
pub(crate) fn allocate(
    objects: &Objects,
    config: &Config,
    row: &Row,
    new: &mut Value,
    live: Option<&Value>,
) -> Result<Vec<Write>, ApiError> {
    if !is_service(row) {
        return Ok(Vec::new());
    }
    let before = live.map(Allocations::of).unwrap_or_default();
    plan::fill(new, live, config, &CacheTaken(objects)).map_err(|error| refused(new, error))?;
    let after = Allocations::of(new);
    let (namespace, name) = (api::object::namespace(new), api::object::name(new));
    let mut writes = Vec::new();
    for address in after.addresses.difference(&before.addresses) {
        writes.push(reserve(ADDRESSES, &address.to_string(), &address_object(*address, namespace, name)));
    }
    for port in after.ports.difference(&before.ports) {
        writes.push(reserve(PORTS, &port.to_string(), &port_object(*port, namespace, name)));
    }
    for address in before.addresses.difference(&after.addresses) {
        writes.push(free(ADDRESSES, &address.to_string()));
    }
    for port in before.ports.difference(&after.ports) {
        writes.push(free(PORTS, &port.to_string()));
    }
    Ok(writes)
}

/// The writes that give back what a deleted service had.
pub(crate) fn release(row: &Row, service: &Value) -> Vec<Write> {
    if !is_service(row) {
        return Vec::new();
    }
    let had = Allocations::of(service);
    let addresses = had.addresses.iter().map(|address| free(ADDRESSES, &address.to_string()));
    addresses.chain(had.ports.iter().map(|port| free(PORTS, &port.to_string()))).collect()
}

fn refused(service: &Value, error: FieldError) -> ApiError {
    ApiError::invalid("", "Service", api::object::name(service), &[error])
}

fn reserve(row: &str, name: &str, object: &Value) -> Write {
    Write {
        key: key_of(row, "", name).into(),
        precondition: Precondition::Absent,
        action: Action::Put { value: encode(object).into(), time_to_live: None },
    }
}

fn free(row: &str, name: &str) -> Write {
    Write { key: key_of(row, "", name).into(), precondition: Precondition::None, action: Action::Delete }
}

fn address_object(address: Ipv4Addr, namespace: &str, name: &str) -> Value {
    json!({
        "kind": "IPAddress", "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": address.to_string(), "uid": Uuid::new_v4().to_string(), "creationTimestamp": now(),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name}},
    })
}

fn port_object(port: u16, namespace: &str, name: &str) -> Value {
    json!({
        "kind": "NodePortAllocation", "apiVersion": "internal/v1", "metadata": {"name": port.to_string()},
        "service": {"namespace": namespace, "name": name},
    })
}
