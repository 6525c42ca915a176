//! The chains through which a connection finds its endpoint.
//!
//! A chain is not for a service but for a shape: "spread over 3". Which three comes from the `endpoints` map, whose key is what the
//! client asked for and a number below 3. So services and endpoints that come and go change elements of maps, hardly
//! ever rules, and every connection takes the same few steps however many services there are.

use netlink::Cidr;
use netlink::nft::{
    Address, Compare, Expression, PayloadBase, Reg, Rejection, Rule, SetOperation, StatusBit, Target, Verdict,
};

/// Names of the sets and maps.
pub(crate) mod sets {
    /// Address, protocol, port to the chain that deals with it.
    pub(crate) const SERVICES: &str = "services";
    /// Protocol, port to the chain that deals with it.
    pub(crate) const NODE_PORTS: &str = "node-ports";
    /// Address (0.0.0.0 for a node port), protocol, port, number to the endpoint.
    pub(crate) const ENDPOINTS: &str = "endpoints";
    /// The same for connections that only this node may answer.
    pub(crate) const LOCAL_ENDPOINTS: &str = "local-endpoints";
    /// Client, address, protocol, port to the endpoint that the client had last.
    pub(crate) const AFFINITY: &str = "affinity";
    /// Address, protocol, port, endpoint: whether a client may stay with it.
    pub(crate) const STICKY: &str = "sticky-endpoints";
    /// The same for connections that only this node may answer.
    pub(crate) const LOCAL_STICKY: &str = "sticky-local-endpoints";
    /// An endpoint's address twice: a connection that comes back to where it began.
    pub(crate) const HAIRPIN: &str = "hairpin";
    /// Address, protocol, port that nobody answers to what to do about it.
    pub(crate) const REFUSED: &str = "refused";
    /// Addresses of services that somebody else looks after.
    pub(crate) const FOREIGN: &str = "foreign";
    /// Protocol, port of nodes that nobody answers to what to do about it.
    pub(crate) const REFUSED_NODE_PORTS: &str = "refused-node-ports";
}

/// Packets whose source must be replaced carry this bit of the mark between two hooks.
pub(crate) const MASQUERADE_BIT: u32 = 0x4000;
pub(crate) const REFUSE: &str = "refuse";
pub(crate) const NODE_PORT_DISPATCH: &str = "node-port";
const CONNECTION_IS_INVALID: u32 = 1;
const CONNECTION_IS_NEW: u32 = 8;
const CHAIN_NAME_MAX: usize = 120;

/// Where a client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Front {
    /// At an address of the service.
    Address,
    /// At a port of the node.
    NodePort,
}

/// Among which endpoints to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pool {
    /// All.
    Anywhere,
    /// Those on this node.
    Here,
}

/// A chain that chooses an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spread {
    pub(crate) front: Front,
    pub(crate) pool: Pool,
    pub(crate) count: u32,
    pub(crate) sticky_seconds: Option<u32>,
}

/// A chain that a client's question leads to first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    /// From inside: sources outside the cluster are replaced, so that answers come back this way.
    Inside(Spread),
    /// From outside: the source is always replaced.
    Outside(Spread),
    /// From outside, to this node's endpoints only and with the client's source; what comes from this cluster uses all endpoints.
    OutsideLocal { all: Spread, here: Spread },
}

impl Spread {
    pub(crate) fn name(self) -> String {
        let front = if self.front == Front::NodePort { "node-" } else { "" };
        let pool = if self.pool == Pool::Here { "local-" } else { "" };
        let sticky = self.sticky_seconds.map(|s| format!("-sticky-{s}")).unwrap_or_default();
        format!("{front}{pool}spread-{}{sticky}", self.count)
    }

    pub(crate) fn rules(self) -> Vec<Rule> {
        match self.sticky_seconds {
            None => vec![self.random_rule()],
            Some(seconds) => self.sticky_rules(seconds),
        }
    }

    fn endpoints(self) -> String {
        if self.pool == Pool::Here { sets::LOCAL_ENDPOINTS } else { sets::ENDPOINTS }.to_owned()
    }

    /// Loads what the client asked for into three registers.
    fn question(self, at: u8) -> Vec<Expression> {
        let address = match self.front {
            Front::Address => destination(Reg(at)),
            Front::NodePort => Expression::Constant { to: Reg(at), value: vec![0; 4] },
        };
        vec![address, Expression::TransportProtocol { to: Reg(at + 1) }, destination_port(Reg(at + 2))]
    }

    fn random_rule(self) -> Rule {
        let mut rule = self.question(0);
        rule.push(Expression::Random { modulus: self.count, to: Reg(3) });
        rule.push(look_up(&self.endpoints(), Reg(0), Target::Reg(Reg(4))));
        rule.push(Expression::DestinationNat { address: Reg(4), port: Reg(5) });
        Rule::new(rule)
    }

    fn sticky_rules(self, seconds: u32) -> Vec<Rule> {
        let sticky = if self.pool == Pool::Here { sets::LOCAL_STICKY } else { sets::STICKY };
        let remember = |operation, data: u8| {
            let (set, timeout_ms) = (sets::AFFINITY.to_owned(), u64::from(seconds) * 1000);
            Expression::Dynamic { operation, set, key: Reg(0), data: Some(Reg(data)), timeout_ms }
        };
        // Client, question: the endpoint it had. Question, endpoint: whether that is still one.
        let mut again = vec![source(Reg(0))];
        again.extend(self.question(1));
        again.push(look_up(sets::AFFINITY, Reg(0), Target::Reg(Reg(4))));
        again.push(look_up(sticky, Reg(1), Target::Nothing));
        again.push(remember(SetOperation::Update, 4));
        again.push(Expression::DestinationNat { address: Reg(4), port: Reg(5) });
        let mut first = vec![source(Reg(0))];
        first.extend(self.question(1));
        first.push(Expression::Random { modulus: self.count, to: Reg(4) });
        first.push(look_up(&self.endpoints(), Reg(1), Target::Reg(Reg(5))));
        // An update prolongs what is there but keeps its value, so a stale memory has to go first.
        first.push(remember(SetOperation::Delete, 5));
        first.push(remember(SetOperation::Update, 5));
        first.push(Expression::DestinationNat { address: Reg(5), port: Reg(6) });
        vec![Rule::new(again), Rule::new(first)]
    }
}

impl Entry {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Inside(spread) => format!("inside-{}", spread.name()),
            Self::Outside(spread) => format!("outside-{}", spread.name()),
            Self::OutsideLocal { all, here } => format!("outside-{}-{}", all.count, here.name()),
        }
    }

    /// The spread chains that it needs.
    pub(crate) fn spreads(self) -> impl Iterator<Item = Spread> {
        let (first, second) = match self {
            Self::Inside(spread) | Self::Outside(spread) => (spread, None),
            Self::OutsideLocal { all, here } => (all, Some(here)),
        };
        [Some(first), second].into_iter().flatten().filter(|spread| spread.count > 0)
    }

    pub(crate) fn rules(self, cluster: Option<Cidr>) -> Vec<Rule> {
        let go = |spread: Spread| Expression::Verdict(Verdict::Goto(spread.name()));
        match self {
            Self::Inside(spread) => {
                let strangers = cluster.map(|cidr| {
                    let mut rule = vec![source(Reg(0))];
                    rule.extend(in_network(cidr, Compare::NotEqual));
                    rule.extend(set_mark());
                    Rule::new(rule)
                });
                strangers.into_iter().chain([Rule::new(vec![go(spread)])]).collect()
            }
            Self::Outside(spread) => {
                let mut rule = set_mark().to_vec();
                rule.push(go(spread));
                vec![Rule::new(rule)]
            }
            Self::OutsideLocal { all, here } => {
                let from_pods = cluster.filter(|_| all.count > 0).map(|cidr| {
                    let mut rule = vec![source(Reg(0))];
                    rule.extend(in_network(cidr, Compare::Equal));
                    rule.push(go(all));
                    Rule::new(rule)
                });
                let mut from_here = is_local(Address::Source, Compare::Equal).to_vec();
                from_here.extend(set_mark());
                from_here.push(go(all));
                let from_here = (all.count > 0).then(|| Rule::new(from_here));
                let rest = if here.count > 0 { go(here) } else { Expression::Verdict(Verdict::Drop) };
                from_pods.into_iter().chain(from_here).chain([Rule::new(vec![rest])]).collect()
            }
        }
    }
}

/// A chain that lets only these networks go on to `entry`.
pub(crate) fn guard(entry: &str, ranges: &[Cidr]) -> (String, Vec<Rule>) {
    let mut name = format!("guard-{entry}");
    let mut rules = Vec::new();
    for range in ranges {
        name.push_str(&format!("-{:08x}_{}", range.first().to_bits(), range.prefix_len()));
        let mut rule = vec![source(Reg(0))];
        rule.extend(in_network(*range, Compare::Equal));
        rule.push(Expression::Verdict(Verdict::Goto(entry.to_owned())));
        rules.push(Rule::new(rule));
    }
    rules.push(Rule::new(vec![Expression::Verdict(Verdict::Drop)]));
    // Chain names are limited; a long list is told apart by a digest.
    if name.len() > CHAIN_NAME_MAX {
        let digest = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        name = format!("guard-{entry}-{digest:016x}");
    }
    (name, rules)
}

/// What every first packet goes through, before and after routing decides that it is ours.
pub(crate) fn dispatch_rules(node_port_addresses: &[Cidr]) -> Vec<Rule> {
    let to_service = vec![
        destination(Reg(0)),
        Expression::TransportProtocol { to: Reg(1) },
        destination_port(Reg(2)),
        look_up(sets::SERVICES, Reg(0), Target::Verdict),
    ];
    std::iter::once(Rule::new(to_service))
        .chain(to_node_ports(node_port_addresses, NODE_PORT_DISPATCH))
        .collect()
}

/// Jumps to `chain` for packets to an address on which node ports answer.
pub(crate) fn to_node_ports(addresses: &[Cidr], chain: &str) -> Vec<Rule> {
    let jump = || Expression::Verdict(Verdict::Jump(chain.to_owned()));
    let mut rule = is_local(Address::Destination, Compare::Equal).to_vec();
    if addresses.is_empty() {
        rule.push(jump());
        return vec![Rule::new(rule)];
    }
    let only = |cidr: &Cidr| {
        let mut rule = rule.clone();
        rule.push(destination(Reg(0)));
        rule.extend(in_network(*cidr, Compare::Equal));
        rule.push(jump());
        Rule::new(rule)
    };
    addresses.iter().map(only).collect()
}

/// Looks the packet's protocol and port up.
pub(crate) fn by_port(map: &str) -> Vec<Rule> {
    let (protocol, port) = (Expression::TransportProtocol { to: Reg(0) }, destination_port(Reg(1)));
    vec![Rule::new(vec![protocol, port, look_up(map, Reg(0), Target::Verdict)])]
}

/// Replaces sources where answers would not come back otherwise.
pub(crate) fn postrouting_rules() -> Vec<Rule> {
    let bit = MASQUERADE_BIT.to_ne_bytes().to_vec();
    let marked = vec![
        Expression::Mark { to: Reg(0) },
        Expression::Bits { reg: Reg(0), mask: bit.clone(), flip: vec![0; 4] },
        Expression::Compare { reg: Reg(0), how: Compare::NotEqual, with: vec![0; 4] },
        Expression::Mark { to: Reg(0) },
        Expression::Bits { reg: Reg(0), mask: (!MASQUERADE_BIT).to_ne_bytes().to_vec(), flip: vec![0; 4] },
        Expression::SetMark { from: Reg(0) },
        Expression::Masquerade,
    ];
    let mut to_itself = is_translated(Compare::NotEqual).to_vec();
    let hairpin = look_up(sets::HAIRPIN, Reg(0), Target::Nothing);
    to_itself.extend([source(Reg(0)), destination(Reg(1)), hairpin, Expression::Masquerade]);
    vec![
        Rule::new(marked).comment("answers must come back this way"),
        Rule::new(to_itself).comment("a pod to its own service"),
    ]
}

/// Refuses new connections to services without endpoints, and to addresses of the service range that are no service.
/// Hangs after address translation, so that whatever was answered does not come here any more.
pub(crate) fn refusal_rules(
    services: Option<Cidr>,
    node_port_addresses: &[Cidr],
    node_ports: &str,
) -> Vec<Rule> {
    let is_new = || {
        vec![
            Expression::ConnectionState { to: Reg(0) },
            Expression::Bits {
                reg: Reg(0),
                mask: CONNECTION_IS_NEW.to_ne_bytes().to_vec(),
                flip: vec![0; 4],
            },
            Expression::Compare { reg: Reg(0), how: Compare::NotEqual, with: vec![0; 4] },
        ]
    };
    let mut known = is_new();
    known.extend([
        destination(Reg(0)),
        Expression::TransportProtocol { to: Reg(1) },
        destination_port(Reg(2)),
        look_up(sets::REFUSED, Reg(0), Target::Verdict),
    ]);
    let mut rules = vec![Rule::new(known)];
    rules.extend(to_node_ports(node_port_addresses, node_ports).into_iter().map(|rule| {
        let expressions = is_new().into_iter().chain(rule.expressions).collect();
        Rule::new(expressions)
    }));
    if let Some(services) = services {
        let mut foreign = vec![destination(Reg(0))];
        foreign
            .extend([look_up(sets::FOREIGN, Reg(0), Target::Nothing), Expression::Verdict(Verdict::Accept)]);
        rules.push(Rule::new(foreign).comment("services of another proxy"));
        let mut unknown = is_new();
        unknown.push(destination(Reg(0)));
        unknown.extend(in_network(services, Compare::Equal));
        unknown.extend(is_local(Address::Destination, Compare::NotEqual));
        unknown.push(Expression::Verdict(Verdict::Goto(REFUSE.to_owned())));
        rules.push(Rule::new(unknown).comment("no such service"));
    }
    rules
}

/// Tells the client at once that nobody answers.
pub(crate) fn refuse_rules() -> Vec<Rule> {
    let tcp = vec![
        Expression::TransportProtocol { to: Reg(0) },
        Expression::Compare { reg: Reg(0), how: Compare::Equal, with: vec![6] },
        Expression::Reject(Rejection::TcpReset),
    ];
    vec![Rule::new(tcp), Rule::new(vec![Expression::Reject(Rejection::PortUnreachable)])]
}

/// With `route_localnet`, a neighbour on the segment could reach what listens on 127.0.0.1 only; it must not.
pub(crate) fn protect_loopback_rules() -> Vec<Rule> {
    let mut name = b"lo".to_vec();
    name.resize(16, 0);
    let mut rule = vec![
        Expression::InputDevice { to: Reg(0) },
        Expression::Compare { reg: Reg(0), how: Compare::NotEqual, with: name },
        destination(Reg(0)),
    ];
    rule.extend(in_network(Cidr::new([127, 0, 0, 0].into(), 8), Compare::Equal));
    rule.extend(is_translated(Compare::Equal));
    rule.push(Expression::Verdict(Verdict::Drop));
    vec![Rule::new(rule).comment("the loopback address is for this machine only")]
}

/// A pod's packet that belongs to no connection (late, or out of its window) would leave with the pod's address instead of the
/// service's; the client, who knows nothing of the pod, would reset the connection.
pub(crate) fn stray_rules(cluster: Option<Cidr>) -> Vec<Rule> {
    let invalid = CONNECTION_IS_INVALID.to_ne_bytes().to_vec();
    let rule = cluster.map(|cidr| {
        let mut rule = vec![
            Expression::ConnectionState { to: Reg(0) },
            Expression::Bits { reg: Reg(0), mask: invalid, flip: vec![0; 4] },
            Expression::Compare { reg: Reg(0), how: Compare::NotEqual, with: vec![0; 4] },
            source(Reg(0)),
        ];
        rule.extend(in_network(cidr, Compare::Equal));
        rule.push(Expression::Verdict(Verdict::Drop));
        Rule::new(rule).comment("stray packets of pods")
    });
    rule.into_iter().collect()
}

fn look_up(set: &str, key: Reg, target: Target) -> Expression {
    Expression::Lookup { set: set.to_owned(), key, target, invert: false }
}

fn source(to: Reg) -> Expression {
    Expression::Payload { base: PayloadBase::Network, offset: 12, len: 4, to }
}

fn destination(to: Reg) -> Expression {
    Expression::Payload { base: PayloadBase::Network, offset: 16, len: 4, to }
}

fn destination_port(to: Reg) -> Expression {
    Expression::Payload { base: PayloadBase::Transport, offset: 2, len: 2, to }
}

/// Ends the rule unless the address in the first register is in the network (with `NotEqual`: is not).
fn in_network(network: Cidr, how: Compare) -> [Expression; 2] {
    [
        Expression::Bits { reg: Reg(0), mask: network.mask().to_vec(), flip: vec![0; 4] },
        Expression::Compare { reg: Reg(0), how, with: network.first().octets().to_vec() },
    ]
}

fn is_local(address: Address, how: Compare) -> [Expression; 2] {
    let local = Expression::ADDRESS_IS_LOCAL.to_ne_bytes().to_vec();
    [
        Expression::AddressKind { of: address, to: Reg(0) },
        Expression::Compare { reg: Reg(0), how, with: local },
    ]
}

fn set_mark() -> [Expression; 3] {
    let bit = MASQUERADE_BIT.to_ne_bytes().to_vec();
    [
        Expression::Mark { to: Reg(0) },
        Expression::Bits { reg: Reg(0), mask: (!MASQUERADE_BIT).to_ne_bytes().to_vec(), flip: bit },
        Expression::SetMark { from: Reg(0) },
    ]
}

/// With `NotEqual`: ends the rule unless the connection's destination is translated; with `Equal`: if it is.
fn is_translated(how: Compare) -> [Expression; 3] {
    let bit = (StatusBit::DestinationNat as u32).to_ne_bytes().to_vec();
    [
        Expression::ConnectionStatus { to: Reg(0) },
        Expression::Bits { reg: Reg(0), mask: bit, flip: vec![0; 4] },
        Expression::Compare { reg: Reg(0), how, with: vec![0; 4] },
    ]
}
