//! What the kernel must be able to do, tried out in a network namespace that is thrown away.

use netlink::netns;
use netlink::nft::{
    self, Address, Batch, ChainKind, Data, Expression, Family, Hook, HookPoint, PayloadBase, Reg, Rejection,
    Rule, Set, SetOperation, Table, Target, Type, Verdict,
};
use netlink::route::{RouteSocket, Veth, Vxlan};

/// The features that this kernel lacks, each with what to do about it; empty when pods and services will work. Takes some milliseconds;
/// touches nothing.
#[must_use]
pub fn missing_kernel_features() -> Vec<String> {
    let namespaces = netns::create().and_then(|one| Ok((one, netns::create()?)));
    let (here, there) = match namespaces {
        Ok(namespaces) => namespaces,
        Err(error) => {
            return vec![format!(
                "network namespaces cannot be made ({error}); run as root on a kernel with CONFIG_NET_NS"
            )];
        }
    };
    let tried = netns::run_in(&here, || {
        let attempts = [
            ("veth devices", "modprobe veth", try_veth(&there)),
            ("VXLAN devices, which connect nodes on different segments", "modprobe vxlan", try_vxlan()),
            (
                "nf_tables",
                "modprobe nf_tables",
                nft::apply(Batch::between(None, &Table::new(Family::Ipv4, "try"))),
            ),
            ("nf_tables address translation", "modprobe nft_chain_nat nft_masq", try_table(&translation())),
            ("nf_tables maps and random choice", "modprobe nft_numgen", try_table(&choice())),
            ("nf_tables lookup of local addresses", "modprobe nft_fib_ipv4", try_table(&locality())),
            ("nf_tables refusal", "modprobe nft_reject_ipv4", try_table(&refusal())),
        ];
        let missing =
            attempts.into_iter().filter_map(|(what, remedy, result)| Some((what, remedy, result.err()?)));
        missing
            .map(|(what, remedy, error)| format!("the kernel lacks {what} ({error}); try `{remedy}`"))
            .collect()
    });
    tried.unwrap_or_else(|error| vec![error.to_string()])
}

fn try_veth(there: &std::fs::File) -> Result<(), netlink::Error> {
    let (mac, peer_mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let (name, alias, peer_name) = ("try", "try", "try");
    let veth = Veth { name, mac, alias, peer_name, peer_mac, peer_namespace: there, mtu: 1500 };
    RouteSocket::open()?.add_veth(&veth)
}

fn try_vxlan() -> Result<(), netlink::Error> {
    let (mac, local) = ([2, 0, 0, 0, 0, 3], [127, 0, 0, 1].into());
    let vxlan = Vxlan { name: "tryvx", mac, alias: "try", vni: 1, port: 8472, local, mtu: 1400 };
    RouteSocket::open()?.add_vxlan(&vxlan)
}

fn try_table(table: &Table) -> Result<(), netlink::Error> {
    nft::apply(Batch::between(None, table))
}

fn with_chain(kind: ChainKind, hook: Hook, rule: Vec<Expression>) -> Table {
    let mut table = Table::new(Family::Ipv4, "try");
    table.base_chain("try", HookPoint { kind, hook, priority: 0 }, vec![Rule::new(rule)]);
    table
}

fn translation() -> Table {
    with_chain(ChainKind::Nat, Hook::Postrouting, vec![Expression::Masquerade])
}

fn locality() -> Table {
    let look = Expression::AddressKind { of: Address::Destination, to: Reg(0) };
    with_chain(ChainKind::Filter, Hook::Prerouting, vec![look])
}

fn refusal() -> Table {
    with_chain(ChainKind::Filter, Hook::Prerouting, vec![Expression::Reject(Rejection::PortUnreachable)])
}

/// A random endpoint from a map, remembered for the client, as the service proxy does it.
fn choice() -> Table {
    let endpoint = || Data::Value(vec![Type::Ipv4, Type::Port]);
    let map =
        |name: &str, key, target| Expression::Lookup { set: name.to_owned(), key, target, invert: false };
    let rule = vec![
        Expression::Payload { base: PayloadBase::Network, offset: 12, len: 4, to: Reg(0) },
        Expression::Random { modulus: 2, to: Reg(1) },
        map("endpoints", Reg(1), Target::Reg(Reg(4))),
        Expression::Dynamic {
            operation: SetOperation::Update,
            set: "affinity".to_owned(),
            key: Reg(0),
            data: Some(Reg(4)),
            timeout_ms: 1000,
        },
        Expression::DestinationNat { address: Reg(4), port: Reg(5) },
        Expression::Verdict(Verdict::Return),
    ];
    let mut table = with_chain(ChainKind::Nat, Hook::Prerouting, rule);
    table.sets.insert("endpoints".to_owned(), Set::new(&[Type::Number], endpoint()));
    table.sets.insert("affinity".to_owned(), Set::dynamic(&[Type::Ipv4], endpoint()));
    table
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_kernel_that_runs_these_tests_should_lack_nothing() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return;
        }
        let start = std::time::Instant::now();
        assert_eq!(super::missing_kernel_features(), Vec::<String>::new());
        eprintln!("looking took {:?}", start.elapsed());
    }
}
