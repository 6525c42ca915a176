//! From service ports to the table that should be installed. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use netlink::Cidr;
use netlink::nft::{ChainKind, Data, Elements, Family, Hook, HookPoint, Set, Table, Type, Value, Verdict};

use crate::chains::{
    Entry, Front, NODE_PORT_DISPATCH, Pool, REFUSE, Spread, by_port, dispatch_rules, guard,
    postrouting_rules, protect_loopback_rules, refusal_rules, refuse_rules, sets, stray_rules,
};
use crate::model::{Location, Protocol, ServicePort, Target};
use crate::select::{Selection, select};

const PRIORITY_DNAT: i32 = -100;
const PRIORITY_SNAT: i32 = 100;
/// After address translation: what was answered by a service no longer has the service's address.
const PRIORITY_REFUSAL: i32 = -90;
const REFUSED_NODE_PORT_DISPATCH: &str = "refused-node-port";

/// What the table depends on beside the services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Name of the table.
    pub table: String,
    /// Addresses of all pods.
    pub cluster_cidr: Option<Cidr>,
    /// Addresses of the services.
    pub service_cidr: Option<Cidr>,
    /// Where node ports answer; empty: everywhere on this machine.
    pub node_port_addresses: Vec<Cidr>,
}

/// What a client asks for: `None` stands for any address of the node.
type Question = (Option<Ipv4Addr>, Protocol, u16);

/// The table for these services, and for `foreign` addresses that are left alone. Of two services that claim the same question the first gets it.
#[must_use]
pub fn compile(
    services: &[ServicePort],
    foreign: &[Ipv4Addr],
    location: &Location,
    settings: &Settings,
) -> Table {
    let mut compiler =
        Compiler { table: skeleton(settings), asked: BTreeSet::new(), entries: BTreeSet::new() };
    for address in foreign {
        compiler.put(sets::FOREIGN, address.octets().to_vec(), Value::None);
    }
    for service in services {
        compiler.service(service, &select(service, location));
    }
    compiler.finish(settings.cluster_cidr)
}

struct Compiler {
    table: Table,
    asked: BTreeSet<Question>,
    entries: BTreeSet<Entry>,
}

fn skeleton(settings: &Settings) -> Table {
    let mut table = Table::new(Family::Ipv4, &settings.table);
    let endpoint = || Data::Value(vec![Type::Ipv4, Type::Port]);
    let question = [Type::Ipv4, Type::Protocol, Type::Port];
    let numbered = [Type::Ipv4, Type::Protocol, Type::Port, Type::Number];
    let with_endpoint = [Type::Ipv4, Type::Protocol, Type::Port, Type::Ipv4, Type::Port];
    let of_client = [Type::Ipv4, Type::Ipv4, Type::Protocol, Type::Port];
    let node_port = [Type::Protocol, Type::Port];
    let all = [
        (sets::SERVICES, Set::new(&question, Data::Verdict)),
        (sets::NODE_PORTS, Set::new(&node_port, Data::Verdict)),
        (sets::ENDPOINTS, Set::new(&numbered, endpoint())),
        (sets::LOCAL_ENDPOINTS, Set::new(&numbered, endpoint())),
        (sets::AFFINITY, Set::dynamic(&of_client, endpoint())),
        (sets::STICKY, Set::new(&with_endpoint, Data::None)),
        (sets::LOCAL_STICKY, Set::new(&with_endpoint, Data::None)),
        (sets::HAIRPIN, Set::new(&[Type::Ipv4, Type::Ipv4], Data::None)),
        (sets::FOREIGN, Set::new(&[Type::Ipv4], Data::None)),
        (sets::REFUSED, Set::new(&question, Data::Verdict)),
        (sets::REFUSED_NODE_PORTS, Set::new(&node_port, Data::Verdict)),
    ];
    table.sets.extend(all.map(|(name, set)| (name.to_owned(), set)));
    let at = |kind, hook, priority| HookPoint { kind, hook, priority };
    let (nat, filter) = (ChainKind::Nat, ChainKind::Filter);
    let addresses = &settings.node_port_addresses;
    let refusal = || refusal_rules(settings.service_cidr, addresses, REFUSED_NODE_PORT_DISPATCH);
    table.base_chain("prerouting", at(nat, Hook::Prerouting, PRIORITY_DNAT), dispatch_rules(addresses));
    table.base_chain("output", at(nat, Hook::Output, PRIORITY_DNAT), dispatch_rules(addresses));
    table.base_chain("postrouting", at(nat, Hook::Postrouting, PRIORITY_SNAT), postrouting_rules());
    table.base_chain("refuse-prerouting", at(filter, Hook::Prerouting, PRIORITY_REFUSAL), refusal());
    table.base_chain("refuse-output", at(filter, Hook::Output, PRIORITY_REFUSAL), refusal());
    table.base_chain("input", at(filter, Hook::Input, 0), protect_loopback_rules());
    table.base_chain("forward", at(filter, Hook::Forward, 0), stray_rules(settings.cluster_cidr));
    table.chain(NODE_PORT_DISPATCH, by_port(sets::NODE_PORTS));
    table.chain(REFUSED_NODE_PORT_DISPATCH, by_port(sets::REFUSED_NODE_PORTS));
    table.chain(REFUSE, refuse_rules());
    table
}

impl Compiler {
    fn service(&mut self, service: &ServicePort, selection: &Selection) {
        for address in &service.cluster_ips {
            let question = (Some(*address), service.protocol, service.port);
            self.inside(service, selection, question);
        }
        for address in &service.external_ips {
            let question = (Some(*address), service.protocol, service.port);
            self.outside(service, selection, question, &[]);
        }
        for address in &service.balancer_ips {
            let question = (Some(*address), service.protocol, service.port);
            self.outside(service, selection, question, &service.source_ranges);
        }
        if let Some(port) = service.node_port {
            self.outside(service, selection, (None, service.protocol, port), &[]);
        }
        for endpoint in service.endpoints.iter().filter(|endpoint| endpoint.local) {
            let address = endpoint.target.address.octets();
            self.put(sets::HAIRPIN, [address, address].concat(), Value::None);
        }
    }

    fn inside(&mut self, service: &ServicePort, selection: &Selection, question: Question) {
        if !self.claim(service, question) {
            return;
        }
        // Cluster addresses are never answered from both pools, so one map serves for whichever it is.
        let targets = if service.internal_local { &selection.here } else { &selection.anywhere };
        match (targets.is_empty(), service.internal_local && !selection.anywhere.is_empty()) {
            (false, _) => {
                let spread = self.spread(service, question, Pool::Anywhere, targets);
                self.answer(question, Entry::Inside(spread), &[]);
            }
            (true, true) => self.refuse(question, Verdict::Drop),
            (true, false) => self.refuse(question, Verdict::Goto(REFUSE.to_owned())),
        }
    }

    fn outside(&mut self, service: &ServicePort, selection: &Selection, question: Question, ranges: &[Cidr]) {
        if !self.claim(service, question) {
            return;
        }
        if selection.anywhere.is_empty() && selection.here.is_empty() {
            return self.refuse(question, Verdict::Goto(REFUSE.to_owned()));
        }
        let all = self.spread(service, question, Pool::Anywhere, &selection.anywhere);
        let entry = if service.external_local {
            let here = self.spread(service, question, Pool::Here, &selection.here);
            Entry::OutsideLocal { all, here }
        } else {
            Entry::Outside(all)
        };
        self.answer(question, entry, ranges);
    }

    fn claim(&mut self, service: &ServicePort, question: Question) -> bool {
        let first = self.asked.insert(question);
        if !first {
            tracing::warn!(
                service = service.name,
                ?question,
                "another service has the same address and port; ignoring this one"
            );
        }
        first
    }

    /// Puts endpoints into the maps and says which chain chooses among them.
    fn spread(
        &mut self,
        service: &ServicePort,
        question: Question,
        pool: Pool,
        targets: &[Target],
    ) -> Spread {
        let (endpoints, sticky) = match pool {
            Pool::Anywhere => (sets::ENDPOINTS, sets::STICKY),
            Pool::Here => (sets::LOCAL_ENDPOINTS, sets::LOCAL_STICKY),
        };
        for (number, target) in (0_u32..).zip(targets) {
            let key = [with_address(question), number.to_ne_bytes().to_vec()].concat();
            self.put(endpoints, key, Value::Bytes(endpoint(*target)));
            if service.affinity_seconds.is_some() {
                self.put(sticky, [with_address(question), endpoint(*target)].concat(), Value::None);
            }
        }
        let front = if question.0.is_some() { Front::Address } else { Front::NodePort };
        let count = u32::try_from(targets.len()).unwrap_or(u32::MAX);
        Spread { front, pool, count, sticky_seconds: service.affinity_seconds }
    }

    fn answer(&mut self, question: Question, entry: Entry, ranges: &[Cidr]) {
        self.entries.insert(entry);
        let mut first = entry.name();
        if !ranges.is_empty() {
            let (name, rules) = guard(&first, ranges);
            self.table.chain(&name, rules);
            first = name;
        }
        let verdict = Value::Verdict(Verdict::Goto(first));
        match question.0 {
            Some(_) => self.put(sets::SERVICES, with_address(question), verdict),
            None => self.put(sets::NODE_PORTS, without_address(question), verdict),
        }
    }

    fn refuse(&mut self, question: Question, verdict: Verdict) {
        match question.0 {
            Some(_) => self.put(sets::REFUSED, with_address(question), Value::Verdict(verdict)),
            None => self.put(sets::REFUSED_NODE_PORTS, without_address(question), Value::Verdict(verdict)),
        }
    }

    fn put(&mut self, set: &str, key: Vec<u8>, value: Value) {
        if let Some(set) = self.table.sets.get_mut(set) {
            set.elements.insert(key, value);
        }
    }

    fn finish(mut self, cluster: Option<Cidr>) -> Table {
        let spreads: BTreeSet<Spread> = self.entries.iter().flat_map(|entry| entry.spreads()).collect();
        for spread in spreads {
            self.table.chain(&spread.name(), spread.rules());
        }
        for entry in std::mem::take(&mut self.entries) {
            self.table.chain(&entry.name(), entry.rules(cluster));
        }
        self.table
    }
}

fn port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn with_address((address, protocol, number): Question) -> Vec<u8> {
    let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
    [address, [protocol.number(), 0, 0, 0], port(number)].concat()
}

fn without_address((_, protocol, number): Question) -> Vec<u8> {
    [[protocol.number(), 0, 0, 0], port(number)].concat()
}

fn endpoint(target: Target) -> Vec<u8> {
    [target.address.octets(), port(target.port)].concat()
}

/// A UDP question and the endpoints that may answer it, read back from a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpQuestion {
    /// The address; `None`: any address of the node.
    pub address: Option<Ipv4Addr>,
    /// The port.
    pub port: u16,
    /// Who may answer.
    pub targets: Vec<Target>,
}

/// The UDP questions whose endpoints differ between two tables, with the new endpoints.
#[must_use]
pub fn changed_udp(old: Option<&Table>, new: &Table) -> Vec<UdpQuestion> {
    let (before, after) = (old.map(udp_questions).unwrap_or_default(), udp_questions(new));
    let all: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
    let changed = all.into_iter().filter(|key| before.get(key) != after.get(key));
    changed
        .map(|(address, port)| UdpQuestion {
            address: Some(address).filter(|a| !a.is_unspecified()),
            port,
            targets: after.get(&(address, port)).map(|t| t.iter().copied().collect()).unwrap_or_default(),
        })
        .collect()
}

fn udp_questions(table: &Table) -> std::collections::BTreeMap<(Ipv4Addr, u16), BTreeSet<Target>> {
    let mut found = std::collections::BTreeMap::<_, BTreeSet<Target>>::new();
    let elements =
        |name: &str| table.sets.get(name).map(|s| &s.elements).into_iter().flat_map(Elements::iter);
    for (key, value) in elements(sets::ENDPOINTS).chain(elements(sets::LOCAL_ENDPOINTS)) {
        let Value::Bytes(value) = value else { continue };
        let (Some(address), Some(17), Some(port)) = (address_at(key, 0), key.get(4), port_at(key, 8)) else {
            continue;
        };
        let (Some(target), Some(target_port)) = (address_at(value, 0), port_at(value, 4)) else { continue };
        found.entry((address, port)).or_default().insert(Target { address: target, port: target_port });
    }
    found
}

fn address_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    bytes.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(Ipv4Addr::from)
}

fn port_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests;
