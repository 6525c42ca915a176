//! What a service needs beside itself: cluster addresses and node ports.
//!
//! Guarantees that no address and no port is given twice, whatever happens at the same time, after a restart, and with
//! several API servers over one store: every allocation is a key of its own, created in the same transaction as the
//! service on the condition that it does not exist, and removed with it. Addresses are `networking.k8s.io/v1
//! IPAddress` objects, as upstream's; ports are keys that the API does not serve. There is no bitmap to repair; what
//! users do to `IPAddress` objects by hand, [`repair`] puts right.
//!
//! Addresses come from the ranges of the `ServiceCIDR` objects that are ready and not on their way out, the default one
//! (the server's flag) first; on the condition that those objects are still what they were, so that once a range is
//! deleted no server gives an address from it.

mod addresses;
mod families;
mod ports;
mod repair;

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::field::{Errors, Look, Path, PathExt, Touch};
use api::net::AddressRange;
use api::{ApiError, FieldError, Row};
use rand::Rng;
use serde_json::{Value, json};
use store::{Action, Precondition, Write};
use uuid::Uuid;

use crate::cache::encode;
use crate::config::Config;
use crate::objects::{Objects, key_of};
use crate::pipeline::now;
pub(crate) use repair::follow;

const SERVICES: &str = "core/services";
const ADDRESSES: &str = "networking.k8s.io/ipaddresses";
const RANGES: &str = "networking.k8s.io/servicecidrs";
const PORTS: &str = "allocations/nodeports";
/// The object whose ranges are the server's flag.
pub(crate) const DEFAULT_RANGE: &str = "kubernetes";
/// Upstream's allocator, as the label of what it keeps says.
const MANAGER: &str = "ipallocator.k8s.io";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// The shortest prefix of an IPv6 range, as upstream.
const PREFIX_MIN: u8 = 64;

/// What others have.
trait Taken {
    /// Whether an address is in use.
    fn address(&self, address: IpAddr) -> bool;
    /// How many addresses are in use at most.
    fn addresses(&self) -> usize;
    /// Whether a port is in use.
    fn port(&self, port: u16) -> bool;
}

/// What is taken, as the cache knows it. The store's conditions have the last word.
impl Taken for Objects {
    fn address(&self, address: IpAddr) -> bool {
        self.cached(ADDRESSES, "", &address.to_string()).is_some()
    }

    fn addresses(&self) -> usize {
        self.row_length(ADDRESSES)
    }

    fn port(&self, port: u16) -> bool {
        self.cached(PORTS, "", &port.to_string()).is_some()
    }
}

/// Why a service does not get what it needs.
#[derive(Debug)]
enum Refusal {
    /// It asks for what it cannot have.
    Invalid(Vec<FieldError>),
    /// All are given.
    Full(&'static str),
}

impl Refusal {
    fn invalid(field: &str, value: &Value, detail: &str) -> Self {
        let mut errors = Errors::new();
        errors.invalid(&Path::ROOT.field(field), value.clone(), detail);
        Self::Invalid(errors.into_vec())
    }

    fn into_error(self, service: &str) -> ApiError {
        match self {
            Self::Invalid(errors) => ApiError::invalid("", "Service", service, &errors),
            Self::Full(what) => {
                let why = format!("failed to allocate a {what} for Service {service:?}: range is full");
                ApiError::internal(format!("Internal error occurred: {why}"))
            }
        }
    }
}

/// What a service has been given.
#[derive(Default)]
struct Allocations {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

impl Allocations {
    fn of(service: &Value) -> Self {
        Self { addresses: addresses::of(service), ports: ports::of(service) }
    }

    /// The keys of all of them, with what is stored there.
    fn keys<'a>(&'a self, service: &'a Value) -> impl Iterator<Item = (String, Value)> + 'a {
        let addresses = self.addresses.iter().map(move |address| {
            (key_of(ADDRESSES, "", &address.to_string()), address_object(*address, service))
        });
        let ports = self
            .ports
            .iter()
            .map(move |port| (key_of(PORTS, "", &port.to_string()), port_object(*port, service)));
        addresses.chain(ports)
    }
}

/// Whether the objects of a row are given addresses and ports.
pub(crate) fn is_service(row: &Row) -> bool {
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
    if live.is_some_and(|live| live.get("spec") == new.get("spec")) {
        return Ok(Vec::new());
    }
    let before = live.map(Allocations::of).unwrap_or_default();
    if let Some(spec) = new.object_mut("spec") {
        let (old, families) = (live.and_then(|live| live.get("spec")), config.service_range.families());
        families::fill(spec, old, &families)
            .map_err(Refusal::Invalid)
            .and_then(|()| addresses::fill(spec, &before.addresses, &usable(objects, config), objects))
            .and_then(|()| ports::fill(spec, &before.ports, &config.node_ports, objects))
            .map_err(|refusal| refusal.into_error(api::object::name(new)))?;
    }
    let after = Allocations::of(new);
    let had: BTreeSet<String> = live.iter().flat_map(|live| before.keys(live)).map(|(key, _)| key).collect();
    let has: BTreeSet<String> = after.keys(new).map(|(key, _)| key).collect();
    let reserved = after.keys(new).filter(|(key, _)| !had.contains(key));
    let mut writes: Vec<Write> = reserved.map(|(key, object)| reserve(key, &object)).collect();
    writes.extend(had.difference(&has).cloned().map(free));
    let fresh: Vec<IpAddr> = after.addresses.difference(&before.addresses).copied().collect();
    writes.extend(unchanged_ranges(objects, &fresh));
    Ok(writes)
}

/// The conditions that the ranges of these addresses are still there as they are known here.
fn unchanged_ranges(objects: &Objects, addresses: &[IpAddr]) -> Vec<Write> {
    let snapshot = objects.snapshot(RANGES);
    let of_some = |range: &Value| {
        let has = |range: AddressRange| addresses.iter().any(|address| range.offset(*address).is_some());
        is_usable(range) && cidrs(range).any(has)
    };
    let known = snapshot.objects.values().filter(|range| !addresses.is_empty() && of_some(&range.tree()));
    let unchanged = known.map(|range| Write {
        key: range.key.clone(),
        precondition: Precondition::ModRevision(range.revision),
        action: Action::Nothing,
    });
    unchanged.collect()
}

fn cidrs(range: &Value) -> impl Iterator<Item = AddressRange> {
    let cidrs = range.get("spec").map(|spec| spec.items("cidrs")).unwrap_or_default();
    cidrs.iter().filter_map(|cidr| AddressRange::parse(cidr.as_str()?))
}

/// The ranges that addresses may come from now.
fn usable(objects: &Objects, config: &Config) -> Vec<AddressRange> {
    let mut known = objects.list(RANGES, "");
    known.sort_by_key(|range| api::object::name(range) != DEFAULT_RANGE);
    let mut ranges = Vec::new();
    if known.first().is_none_or(|first| api::object::name(first) != DEFAULT_RANGE) {
        ranges.extend(config.service_range.ranges());
    }
    ranges.extend(known.iter().filter(|range| is_usable(range)).flat_map(cidrs));
    ranges.retain(|range| range.family() == "IPv4" || range.prefix() >= PREFIX_MIN);
    ranges
}

/// Without a word on whether it is ready, a range is: nobody may be there to say it.
fn is_usable(range: &Value) -> bool {
    let conditions = range.get("status").map(|status| status.items("conditions")).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.text("type") == "Ready");
    ready.is_none_or(|ready| ready.text("status") == "True")
        && range.dig(&["metadata", "deletionTimestamp"]).is_none()
}

/// The writes that give back what a deleted service had.
pub(crate) fn release(row: &Row, service: &Value) -> Vec<Write> {
    if !is_service(row) {
        return Vec::new();
    }
    Allocations::of(service).keys(service).map(|(key, _)| free(key)).collect()
}

/// Walks from a random number to the next that is free, around the end; gives up after so many steps.
fn draw_between(low: u128, high: u128, steps: u128, taken: impl Fn(u128) -> bool) -> Option<u128> {
    let count = high.checked_sub(low)? + 1;
    let start = rand::rng().random_range(0..count);
    (0..count.min(steps)).map(|step| low + (start + step) % count).find(|number| !taken(*number))
}

fn reserve(key: String, object: &Value) -> Write {
    let action = Action::Put { value: encode(object).into(), time_to_live: None };
    Write { key: key.into(), precondition: Precondition::Absent, action }
}

fn free(key: String) -> Write {
    Write { key: key.into(), precondition: Precondition::None, action: Action::Delete }
}

fn address_object(address: IpAddr, service: &Value) -> Value {
    let (namespace, name) = (api::object::namespace(service), api::object::name(service));
    json!({
        "kind": "IPAddress", "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": address.to_string(), "uid": Uuid::new_v4().to_string(), "generation": 1,
            "creationTimestamp": now(),
            "labels": {FAMILY: api::net::family(address), MANAGED_BY: MANAGER},
        },
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name}},
    })
}

fn port_object(port: u16, service: &Value) -> Value {
    let (namespace, name) = (api::object::namespace(service), api::object::name(service));
    json!({
        "kind": "NodePortAllocation", "apiVersion": "internal/v1", "metadata": {"name": port.to_string()},
        "service": {"namespace": namespace, "name": name},
    })
}

#[cfg(test)]
mod tests;
