//! The cluster's domain: which names exist and what they stand for. Pure, over a [`Directory`].
//!
//! Follows the DNS specification that clusters share: `service.namespace.svc`, `_port._protocol` before it, endpoints of headless services
//! by host name or dashed address, `a-b-c-d.namespace.pod`, and addresses back to names.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use netlink::Cidr;

use super::directory::{Directory, service_of};
use super::name::{below, dashed, dashed_address, reverse_address};
use super::wire::{
    Data, Record, TYPE_A, TYPE_AAAA, TYPE_ANY, TYPE_CNAME, TYPE_NS, TYPE_PTR, TYPE_SOA, TYPE_SRV, TYPE_TXT,
};

/// Cluster addresses do not change while their service lives.
const TTL_SERVICE: u32 = 30;
/// Endpoints come and go.
const TTL_ENDPOINT: u32 = 5;
/// A name that does not exist may exist soon.
const TTL_NEGATIVE: u32 = 5;
const SPECIFICATION: &str = "1.1.0";

/// What a question leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// These records, and others that the client will want next.
    Records { answers: Vec<Record>, additional: Vec<Record> },
    /// The name is another name for this one, which has to be asked for in turn.
    Alias(Record, String),
    /// The name exists, but not with records of this type.
    NoData,
    /// There is no such name.
    NoSuchName,
    /// The name is not the cluster's.
    NotOurs,
}

/// The zone of a cluster.
#[derive(Debug, Clone)]
pub(super) struct Zone {
    pub(super) domain: String,
    pub(super) address: Ipv4Addr,
    pub(super) networks: Vec<Cidr>,
    pub(super) serial: u32,
}

/// An endpoint of a headless service, by name.
struct Host {
    name: String,
    address: IpAddr,
}

impl Zone {
    /// Answers a question. The name is lower case.
    pub(super) fn resolve(&self, directory: &impl Directory, name: &str, kind: u16) -> Outcome {
        if let Some(address) = reverse_address(name) {
            return self.reverse(directory, name, address, kind);
        }
        let Some(labels) = below(name, &self.domain) else { return Outcome::NotOurs };
        match labels.as_slice() {
            [] => self.apex(kind),
            ["svc" | "pod" | "dns"] => Outcome::NoData,
            ["dns-version"] => {
                only(kind, TYPE_TXT, vec![record(name, TTL_SERVICE, Data::Txt(SPECIFICATION.to_owned()))])
            }
            ["ns", "dns"] => only(kind, TYPE_A, vec![record(name, TTL_SERVICE, Data::A(self.address))]),
            [namespace, "svc" | "pod"] if directory.has_services(namespace) => Outcome::NoData,
            [address, _, "pod"] => match dashed_address(address) {
                Some(address) => only(kind, TYPE_A, vec![record(name, TTL_SERVICE, Data::A(address))]),
                None => Outcome::NoSuchName,
            },
            [before @ .., service, namespace, "svc"] => match directory.service(namespace, service) {
                Some(found) => self.service(directory, &found, before, name, kind),
                None => Outcome::NoSuchName,
            },
            _ => Outcome::NoSuchName,
        }
    }

    /// The record that goes with "no data" and "no such name".
    pub(super) fn soa(&self) -> Record {
        let data = Data::Soa {
            server: format!("ns.dns.{}", self.domain),
            contact: format!("hostmaster.{}", self.domain),
            serial: self.serial,
            negative_ttl: TTL_NEGATIVE,
        };
        record(&self.domain, TTL_NEGATIVE, data)
    }

    fn apex(&self, kind: u16) -> Outcome {
        let server = record(&self.domain, TTL_SERVICE, Data::Ns(format!("ns.dns.{}", self.domain)));
        match kind {
            TYPE_SOA => only(kind, TYPE_SOA, vec![self.soa()]),
            TYPE_NS | TYPE_ANY => only(kind, TYPE_NS, vec![server]),
            _ => Outcome::NoData,
        }
    }

    fn service(
        &self,
        directory: &impl Directory,
        service: &Service,
        before: &[&str],
        name: &str,
        kind: u16,
    ) -> Outcome {
        let Some(spec) = &service.spec else { return Outcome::NoSuchName };
        if spec.type_.as_deref() == Some("ExternalName") {
            let target =
                spec.external_name.as_deref().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
            return match (before.is_empty(), target.is_empty(), kind) {
                (true, false, TYPE_CNAME) => {
                    only(kind, TYPE_CNAME, vec![record(name, TTL_SERVICE, Data::Cname(target))])
                }
                (true, false, _) => {
                    Outcome::Alias(record(name, TTL_SERVICE, Data::Cname(target.clone())), target)
                }
                _ => Outcome::NoSuchName,
            };
        }
        let headless = spec.cluster_ip.as_deref() == Some("None");
        match before {
            [] if kind == TYPE_SRV => self.ports(directory, service, name, |_, _| true),
            [] if headless => {
                addresses(name, kind, TTL_ENDPOINT, self.hosts(directory, service).iter().map(|h| h.address))
            }
            [] => addresses(name, kind, TTL_SERVICE, cluster_ips(service)),
            [protocol] if protocol.starts_with('_') => {
                let exists =
                    spec.ports.iter().flatten().any(|p| is_protocol(protocol, p.protocol.as_deref()));
                if exists { Outcome::NoData } else { Outcome::NoSuchName }
            }
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                let outcome = self.ports(directory, service, name, |port_name, port_protocol| {
                    port.strip_prefix('_') == Some(port_name) && is_protocol(protocol, port_protocol)
                });
                if kind == TYPE_SRV || kind == TYPE_ANY || matches!(outcome, Outcome::NoSuchName) {
                    outcome
                } else {
                    Outcome::NoData
                }
            }
            [host] if headless => {
                let hosts = self.hosts(directory, service);
                let matching: Vec<IpAddr> =
                    hosts.iter().filter(|h| h.name == *host).map(|h| h.address).collect();
                if matching.is_empty() {
                    Outcome::NoSuchName
                } else {
                    addresses(name, kind, TTL_ENDPOINT, matching)
                }
            }
            _ => Outcome::NoSuchName,
        }
    }

    /// The endpoints of a headless service that may be asked.
    fn hosts(&self, directory: &impl Directory, service: &Service) -> Vec<Host> {
        let (namespace, name) = key(service);
        let mut hosts = Vec::new();
        for slice in directory.slices(namespace, name) {
            for endpoint in slice.endpoints.iter().flatten().filter(|e| is_ready(e)) {
                let address = endpoint.addresses.first().and_then(|a| a.parse().ok());
                hosts.extend(address.map(|address| Host { name: host_name(endpoint), address }));
            }
        }
        hosts.sort_by_key(|host| host.address);
        hosts.dedup_by_key(|host| host.address);
        hosts
    }

    /// The ports that `wanted` picks by name and protocol, with the addresses behind them.
    fn ports(
        &self,
        directory: &impl Directory,
        service: &Service,
        name: &str,
        wanted: impl Fn(&str, Option<&str>) -> bool,
    ) -> Outcome {
        let (namespace, service_name) = key(service);
        let Some(spec) = &service.spec else { return Outcome::NoSuchName };
        let full_name = format!("{service_name}.{namespace}.svc.{}", self.domain);
        let picked = spec
            .ports
            .iter()
            .flatten()
            .filter(|p| wanted(p.name.as_deref().unwrap_or_default(), p.protocol.as_deref()));
        let picked: Vec<_> = picked.collect();
        if picked.is_empty() {
            return Outcome::NoSuchName;
        }
        let mut targets: BTreeSet<(u16, String, IpAddr)> = BTreeSet::new();
        if spec.cluster_ip.as_deref() == Some("None") {
            for slice in directory.slices(namespace, service_name) {
                for port in
                    picked.iter().filter_map(|p| slice_port(&slice, p.name.as_deref(), p.protocol.as_deref()))
                {
                    for endpoint in slice.endpoints.iter().flatten().filter(|e| is_ready(e)) {
                        let Some(address) = endpoint.addresses.first().and_then(|a| a.parse().ok()) else {
                            continue;
                        };
                        targets.insert((port, format!("{}.{full_name}", host_name(endpoint)), address));
                    }
                }
            }
        } else {
            for port in picked.iter().filter_map(|p| u16::try_from(p.port).ok()) {
                targets.extend(cluster_ips(service).into_iter().map(|ip| (port, full_name.clone(), ip)));
            }
        }
        if targets.is_empty() {
            return Outcome::NoData;
        }
        let ttl = if spec.cluster_ip.as_deref() == Some("None") { TTL_ENDPOINT } else { TTL_SERVICE };
        service_records(name, ttl, &targets)
    }

    fn reverse(&self, directory: &impl Directory, name: &str, address: Ipv4Addr, kind: u16) -> Outcome {
        let text = address.to_string();
        let mut names: Vec<String> =
            directory.services_at(&text).iter().map(|s| self.service_name(s)).collect();
        for slice in directory.slices_at(&text) {
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            let service = service_of(&slice).and_then(|s| directory.service(namespace, s));
            // Only the endpoints of headless services have names of their own.
            let headless =
                service.filter(|s| s.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None"));
            let Some(service) = headless else { continue };
            let endpoints =
                slice.endpoints.iter().flatten().filter(|e| e.addresses.contains(&text) && is_ready(e));
            names.extend(endpoints.map(|e| format!("{}.{}", host_name(e), self.service_name(&service))));
        }
        names.sort();
        names.dedup();
        if names.is_empty() {
            let ours = self.networks.iter().any(|network| network.contains(address));
            return if ours { Outcome::NoSuchName } else { Outcome::NotOurs };
        }
        only(
            kind,
            TYPE_PTR,
            names.into_iter().map(|target| record(name, TTL_ENDPOINT, Data::Ptr(target))).collect(),
        )
    }

    fn service_name(&self, service: &Service) -> String {
        let (namespace, name) = key(service);
        format!("{name}.{namespace}.svc.{}", self.domain)
    }
}

fn record(name: &str, ttl: u32, data: Data) -> Record {
    Record { name: name.to_owned(), ttl, data }
}

fn only(asked: u16, kind: u16, answers: Vec<Record>) -> Outcome {
    if asked == kind || asked == TYPE_ANY {
        Outcome::Records { answers, additional: Vec::new() }
    } else {
        Outcome::NoData
    }
}

fn addresses(name: &str, kind: u16, ttl: u32, all: impl IntoIterator<Item = IpAddr>) -> Outcome {
    let data = all.into_iter().filter_map(|address| match address {
        IpAddr::V4(v4) if kind == TYPE_A || kind == TYPE_ANY => Some(Data::A(v4)),
        IpAddr::V6(v6) if kind == TYPE_AAAA || kind == TYPE_ANY => Some(Data::Aaaa(v6)),
        _ => None,
    });
    let answers: Vec<Record> = data.map(|data| record(name, ttl, data)).collect();
    if answers.is_empty() { Outcome::NoData } else { Outcome::Records { answers, additional: Vec::new() } }
}

fn service_records(name: &str, ttl: u32, targets: &BTreeSet<(u16, String, IpAddr)>) -> Outcome {
    let distinct: BTreeSet<(u16, &str)> =
        targets.iter().map(|(port, target, _)| (*port, target.as_str())).collect();
    let weight = u16::try_from(100 / distinct.len().max(1)).unwrap_or(1).max(1);
    let answers = distinct.into_iter().map(|(port, target)| {
        record(name, ttl, Data::Srv { priority: 0, weight, port, target: target.to_owned() })
    });
    let hosts: BTreeSet<(&str, IpAddr)> =
        targets.iter().map(|(_, target, address)| (target.as_str(), *address)).collect();
    let additional = hosts.into_iter().map(|(target, address)| match address {
        IpAddr::V4(v4) => record(target, ttl, Data::A(v4)),
        IpAddr::V6(v6) => record(target, ttl, Data::Aaaa(v6)),
    });
    Outcome::Records { answers: answers.collect(), additional: additional.collect() }
}

fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let spec = service.spec.as_ref();
    let several = spec.and_then(|s| s.cluster_ips.as_deref()).unwrap_or_default();
    let texts = if several.is_empty() {
        spec.and_then(|s| s.cluster_ip.as_ref()).into_iter().collect()
    } else {
        several.iter().collect::<Vec<_>>()
    };
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

fn key(service: &Service) -> (&str, &str) {
    let metadata = &service.metadata;
    (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

fn slice_port(slice: &EndpointSlice, name: Option<&str>, protocol: Option<&str>) -> Option<u16> {
    let same = |a: Option<&str>, b: Option<&str>, default: &str| a.unwrap_or(default) == b.unwrap_or(default);
    let mut ports = slice.ports.iter().flatten();
    let found =
        ports.find(|p| same(p.name.as_deref(), name, "") && same(p.protocol.as_deref(), protocol, "TCP"));
    found.and_then(|p| p.port).and_then(|p| u16::try_from(p).ok())
}

fn is_protocol(label: &str, protocol: Option<&str>) -> bool {
    label.strip_prefix('_').is_some_and(|l| l.eq_ignore_ascii_case(protocol.unwrap_or("TCP")))
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

fn host_name(endpoint: &Endpoint) -> String {
    match endpoint.hostname.as_deref() {
        Some(name) if !name.is_empty() => name.to_ascii_lowercase(),
        _ => dashed(endpoint.addresses.first().map(String::as_str).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
