//! The pod network's nf_tables table: host ports, and the node's address for pods that talk to the outside.
//!
//! Host ports are two maps, with and without an address of the host; a pod that comes or goes changes elements only.
//! Answers of a host port reached through 127.0.0.1, or by the pod itself, come back because the source is replaced too.

use netlink::Cidr;
use netlink::nft::{
    Address, Batch, ChainKind, Compare, Data, Elements, Expression, Family, Hook, HookPoint, PayloadBase,
    Reg, Rule, Set, StatusBit, Table, Target, Type, Value, Verdict,
};

use crate::lease::Lease;
use crate::names::Names;

const PORTS: &str = "host-ports";
const PORTS_OF_ADDRESS: &str = "host-ports-of-address";
const HAIRPIN: &str = "hairpin";
const DISPATCH: &str = "host-port";
/// Just before the service proxy's chains, so that a pod's host port wins over nothing and loses to nothing by accident.
const PRIORITY_DNAT: i32 = -101;
const PRIORITY_SNAT: i32 = 100;

const fn ip(offset: u32, to: Reg) -> Expression {
    Expression::Payload { base: PayloadBase::Network, offset, len: 4, to }
}

const fn source(to: Reg) -> Expression {
    ip(12, to)
}

const fn destination(to: Reg) -> Expression {
    ip(16, to)
}

const fn destination_port(to: Reg) -> Expression {
    Expression::Payload { base: PayloadBase::Transport, offset: 2, len: 2, to }
}

/// Ends the rule unless the address in `reg` is (or, with `NotEqual`, is not) in the network. Overwrites `reg`.
fn in_network(reg: Reg, how: Compare, network: Cidr) -> [Expression; 2] {
    [
        Expression::Bits { reg, mask: network.mask().to_vec(), flip: vec![0; 4] },
        Expression::Compare { reg, how, with: network.first().octets().to_vec() },
    ]
}

fn is_translated() -> [Expression; 3] {
    let bit = (StatusBit::DestinationNat as u32).to_ne_bytes().to_vec();
    [
        Expression::ConnectionStatus { to: Reg(0) },
        Expression::Bits { reg: Reg(0), mask: bit, flip: vec![0; 4] },
        Expression::Compare { reg: Reg(0), how: Compare::NotEqual, with: vec![0; 4] },
    ]
}

fn is_local_destination() -> [Expression; 2] {
    let local = Expression::ADDRESS_IS_LOCAL.to_ne_bytes().to_vec();
    [
        Expression::AddressKind { of: Address::Destination, to: Reg(0) },
        Expression::Compare { reg: Reg(0), how: Compare::Equal, with: local },
    ]
}

fn nat(hook: Hook, priority: i32) -> HookPoint {
    HookPoint { kind: ChainKind::Nat, hook, priority }
}

/// The whole table.
pub(crate) fn table(
    names: &Names,
    cluster: Cidr,
    pods: Option<Cidr>,
    masquerade: bool,
    leases: &[Lease],
) -> Table {
    let mut table = Table::new(Family::Ipv4, &names.table());
    let target = || Data::Value(vec![Type::Ipv4, Type::Port]);
    table.sets.insert(PORTS.to_owned(), Set::new(&[Type::Protocol, Type::Port], target()));
    let with_address = [Type::Ipv4, Type::Protocol, Type::Port];
    table.sets.insert(PORTS_OF_ADDRESS.to_owned(), Set::new(&with_address, target()));
    table.sets.insert(HAIRPIN.to_owned(), Set::new(&[Type::Ipv4, Type::Ipv4], Data::None));
    for lease in leases {
        for (set, elements) in elements(lease) {
            if let Some(set) = table.sets.get_mut(set) {
                set.elements.extend(elements);
            }
        }
    }
    let dispatch = || {
        let mut rule = is_local_destination().to_vec();
        rule.push(Expression::Verdict(Verdict::Jump(DISPATCH.to_owned())));
        vec![Rule::new(rule)]
    };
    table.base_chain("prerouting", nat(Hook::Prerouting, PRIORITY_DNAT), dispatch());
    table.base_chain("output", nat(Hook::Output, PRIORITY_DNAT), dispatch());
    table.chain(DISPATCH, host_port_rules());
    table.base_chain(
        "postrouting",
        nat(Hook::Postrouting, PRIORITY_SNAT),
        source_rules(cluster, pods.filter(|_| masquerade)),
    );
    let input = HookPoint { kind: ChainKind::Filter, hook: Hook::Input, priority: 0 };
    table.base_chain("input", input, vec![protect_loopback()]);
    table
}

fn host_port_rules() -> Vec<Rule> {
    let look_up = |set: &str, key: Vec<Expression>| {
        let mut rule = key;
        let (set, target) = (set.to_owned(), Target::Reg(Reg(4)));
        rule.push(Expression::Lookup { set, key: Reg(0), target, invert: false });
        rule.push(Expression::DestinationNat { address: Reg(4), port: Reg(5) });
        Rule::new(rule)
    };
    let protocol = |to| Expression::TransportProtocol { to };
    vec![
        look_up(PORTS_OF_ADDRESS, vec![destination(Reg(0)), protocol(Reg(1)), destination_port(Reg(2))]),
        look_up(PORTS, vec![protocol(Reg(0)), destination_port(Reg(1))]),
    ]
}

fn source_rules(cluster: Cidr, pods: Option<Cidr>) -> Vec<Rule> {
    let loopback = Cidr::new([127, 0, 0, 0].into(), 8);
    let mut from_loopback = is_translated().to_vec();
    from_loopback.push(source(Reg(0)));
    from_loopback.extend(in_network(Reg(0), Compare::Equal, loopback));
    from_loopback.push(Expression::Masquerade);
    let mut to_itself = is_translated().to_vec();
    to_itself.extend([source(Reg(0)), destination(Reg(1))]);
    let hairpin = HAIRPIN.to_owned();
    to_itself.push(Expression::Lookup { set: hairpin, key: Reg(0), target: Target::Nothing, invert: false });
    to_itself.push(Expression::Masquerade);
    let mut rules = vec![
        Rule::new(from_loopback).comment("host port on the loopback address"),
        Rule::new(to_itself).comment("pod to its own host port"),
    ];
    if let Some(pods) = pods {
        let multicast = Cidr::new([224, 0, 0, 0].into(), 4);
        let mut outside = vec![source(Reg(0))];
        outside.extend(in_network(Reg(0), Compare::Equal, pods));
        for inside in [cluster, multicast] {
            outside.push(destination(Reg(0)));
            outside.extend(in_network(Reg(0), Compare::NotEqual, inside));
        }
        outside.push(Expression::Masquerade);
        rules.push(Rule::new(outside).comment("pods to the world outside the cluster"));
    }
    rules
}

/// With `route_localnet`, a neighbour on the segment could reach what listens on 127.0.0.1 only; it must not.
fn protect_loopback() -> Rule {
    let mut name = b"lo".to_vec();
    name.resize(16, 0);
    let bit = (StatusBit::DestinationNat as u32).to_ne_bytes().to_vec();
    let mut rule = vec![
        Expression::InputDevice { to: Reg(0) },
        Expression::Compare { reg: Reg(0), how: Compare::NotEqual, with: name },
        destination(Reg(0)),
    ];
    rule.extend(in_network(Reg(0), Compare::Equal, Cidr::new([127, 0, 0, 0].into(), 8)));
    rule.extend([
        Expression::ConnectionStatus { to: Reg(0) },
        Expression::Bits { reg: Reg(0), mask: bit, flip: vec![0; 4] },
        Expression::Compare { reg: Reg(0), how: Compare::Equal, with: vec![0; 4] },
        Expression::Verdict(Verdict::Drop),
    ]);
    Rule::new(rule).comment("the loopback address is for this machine only")
}

/// The transaction that adds a pod's host ports to the installed table.
pub(crate) fn additions(names: &Names, lease: &Lease) -> Batch {
    let none = Elements::new();
    change(names, lease, |set, elements, table| Batch::elements(table, set, &none, elements))
}

/// The transaction that takes them away.
pub(crate) fn removals(names: &Names, lease: &Lease) -> Batch {
    let none = Elements::new();
    change(names, lease, |set, elements, table| Batch::elements(table, set, elements, &none))
}

fn change(names: &Names, lease: &Lease, part: impl Fn(&str, &Elements, (Family, &str)) -> Batch) -> Batch {
    let mut batch = Batch::default();
    let table = names.table();
    for (set, elements) in elements(lease) {
        batch.append(part(set, &elements, (Family::Ipv4, &table)));
    }
    batch
}

/// A lease's elements by set.
fn elements(lease: &Lease) -> Vec<(&'static str, Elements)> {
    let (mut anywhere, mut on_address, mut hairpin) = (Elements::new(), Elements::new(), Elements::new());
    for mapping in &lease.port_mappings {
        let port = |port: u16| [port.to_be_bytes(), [0, 0]].concat();
        let protocol = [mapping.protocol.number(), 0, 0, 0];
        let service = [&protocol[..], &port(mapping.host_port)].concat();
        let target = Value::Bytes([&lease.address.octets()[..], &port(mapping.container_port)].concat());
        match mapping.host_ip.filter(|address| !address.is_unspecified()) {
            Some(address) => on_address.insert([&address.octets()[..], &service].concat(), target),
            None => anywhere.insert(service, target),
        };
        hairpin.insert([lease.address.octets(), lease.address.octets()].concat(), Value::None);
    }
    vec![(PORTS, anywhere), (PORTS_OF_ADDRESS, on_address), (HAIRPIN, hairpin)]
}
