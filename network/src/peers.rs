//! Routes to the pods of other nodes.
//!
//! [`decide`] is pure: from the nodes and how the kernel would reach them to the entries that should exist. [`apply`] compares
//! those with what exists and changes the difference. Packets to a node on the same segment are routed to it directly;
//! to any other they go through one VXLAN device whose entries are all permanent: hardware addresses follow from the
//! nodes' addresses, so nothing is learned or asked.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use netlink::Cidr;
use netlink::route::{Address, AddressScope, Mac, Neighbour, Route, RouteLookup, RouteSocket, Vxlan};

use crate::config::{Config, Mode};
use crate::names::{Names, PEER_ROUTE_PROTOCOL};
use crate::{Error, sysctl};

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) node_ip: Ipv4Addr,
    pub(crate) pod_cidr: Cidr,
}

/// How a peer's pods are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// Through this device, the node itself being the next hop.
    Direct { index: u32 },
    /// Inside UDP packets to the node.
    Vxlan,
}

/// What should exist.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// Destination, next hop and device of direct routes.
    direct: Vec<(Cidr, Ipv4Addr, u32)>,
    /// Nodes behind the VXLAN device.
    tunnelled: Vec<(Cidr, Ipv4Addr)>,
}

/// Decides how each peer is reached. `lookup` says how the kernel would send to an address.
pub(crate) fn decide(mode: Mode, peers: &[Peer], lookup: impl Fn(Ipv4Addr) -> Option<RouteLookup>) -> Plan {
    let mut plan = Plan::default();
    let mut seen = BTreeSet::new();
    for peer in peers {
        if !seen.insert(peer.pod_cidr) {
            tracing::warn!(node = peer.name, cidr = %peer.pod_cidr, "two nodes have the same pod CIDR; ignoring the second");
            continue;
        }
        let found = lookup(peer.node_ip);
        let on_segment =
            found.filter(|r| r.gateway.is_none() && !r.is_local).map(|r| Path::Direct { index: r.index });
        let path = match (mode, on_segment) {
            (Mode::Auto | Mode::Routes, Some(path)) => path,
            (Mode::Auto, None) | (Mode::Vxlan, _) => Path::Vxlan,
            (Mode::Routes, None) => {
                tracing::warn!(node = peer.name, address = %peer.node_ip, "not on this segment; in mode routes its pods are left to the network's own routes");
                continue;
            }
        };
        match path {
            Path::Direct { index } => plan.direct.push((peer.pod_cidr, peer.node_ip, index)),
            Path::Vxlan => plan.tunnelled.push((peer.pod_cidr, peer.node_ip)),
        }
    }
    plan
}

/// Hardware address of a node's VXLAN device.
fn vxlan_mac(node_ip: Ipv4Addr) -> Mac {
    let [a, b, c, d] = node_ip.octets();
    [0x0e, 0x67, a, b, c, d]
}

/// Changes what exists into what should exist.
pub(crate) fn apply(
    config: &Config,
    names: &Names,
    pods: Cidr,
    plan: &Plan,
    service_route: Option<Route>,
) -> Result<(), Error> {
    let mut socket = RouteSocket::open()?;
    let tunnel =
        if plan.tunnelled.is_empty() { None } else { Some(ensure_vxlan(&mut socket, config, names, pods)?) };
    let source = Some(IpAddr::V4(config.node_ip));
    let mut wanted: Vec<Route> = plan
        .direct
        .iter()
        .map(|(cidr, node, index)| Route {
            destination: IpAddr::V4(cidr.first()),
            prefix_len: cidr.prefix_len(),
            gateway: Some(IpAddr::V4(*node)),
            onlink: false,
            index: *index,
            source,
            protocol: PEER_ROUTE_PROTOCOL,
        })
        .collect();
    if let Some(index) = tunnel {
        wanted.extend(plan.tunnelled.iter().map(|(cidr, _)| tunnel_route(*cidr, pods, index)));
        update_tunnel_entries(&mut socket, index, &plan.tunnelled)?;
    }
    wanted.extend(service_route);
    let installed = socket.routes(PEER_ROUTE_PROTOCOL)?;
    for route in installed.iter().filter(|route| !wanted.iter().any(|w| same_destination(w, route))) {
        socket.delete_route(route)?;
    }
    for route in wanted.iter().filter(|route| !installed.contains(route)) {
        replace_route(&mut socket, route)?;
    }
    if tunnel.is_none() {
        match socket.delete_link(&names.vxlan_device()) {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Adds or replaces a route, without its source if that is not this machine's: the node's address may be behind a
/// translation, and the kernel chooses a source then.
pub(crate) fn replace_route(socket: &mut RouteSocket, route: &Route) -> Result<(), Error> {
    match socket.replace_route(route) {
        Err(error) if error.errno() == Some(libc::EINVAL) && route.source.is_some() => {
            Ok(socket.replace_route(&Route { source: None, ..route.clone() })?)
        }
        other => Ok(other?),
    }
}

fn same_destination(a: &Route, b: &Route) -> bool {
    (a.destination, a.prefix_len) == (b.destination, b.prefix_len)
}

/// The next hop is the first address of the peer's range: that of its VXLAN device. The source is ours, so that answers take the
/// same way back.
fn tunnel_route(cidr: Cidr, pods: Cidr, index: u32) -> Route {
    Route {
        destination: IpAddr::V4(cidr.first()),
        prefix_len: cidr.prefix_len(),
        gateway: Some(IpAddr::V4(cidr.first())),
        onlink: true,
        index,
        source: Some(IpAddr::V4(pods.first())),
        protocol: PEER_ROUTE_PROTOCOL,
    }
}

fn update_tunnel_entries(
    socket: &mut RouteSocket,
    index: u32,
    tunnelled: &[(Cidr, Ipv4Addr)],
) -> Result<(), Error> {
    let entry = |address: Ipv4Addr, node: Ipv4Addr| Neighbour {
        index,
        address: IpAddr::V4(address),
        mac: vxlan_mac(node),
    };
    let neighbours: BTreeSet<_> = tunnelled.iter().map(|(cidr, node)| entry(cidr.first(), *node)).collect();
    let forwarding: BTreeSet<_> = tunnelled.iter().map(|(_, node)| entry(*node, *node)).collect();
    let installed: BTreeSet<_> = socket.neighbours(index)?.into_iter().collect();
    for gone in installed.difference(&neighbours) {
        socket.delete_neighbour(gone)?;
    }
    for new in neighbours.difference(&installed) {
        socket.replace_neighbour(new)?;
    }
    let installed: BTreeSet<_> = socket.forwarding(index)?.into_iter().collect();
    for gone in installed.difference(&forwarding) {
        socket.delete_forwarding(gone)?;
    }
    for new in forwarding.difference(&installed) {
        socket.replace_forwarding(new)?;
    }
    Ok(())
}

/// Makes the VXLAN device if it is not there, or is not the one that it should be; returns its index.
fn ensure_vxlan(socket: &mut RouteSocket, config: &Config, names: &Names, pods: Cidr) -> Result<u32, Error> {
    let name = names.vxlan_device();
    let mac = vxlan_mac(config.node_ip);
    let existing = socket.link(&name)?;
    if let Some(link) = &existing
        && link.mac == Some(mac)
        && link.is_up
    {
        return set_tunnel_address(socket, link.index, pods);
    }
    if existing.is_some() {
        socket.delete_link(&name)?;
    }
    let mtu = underlay_mtu(socket, config.node_ip)?.saturating_sub(crate::config::VXLAN_OVERHEAD);
    let alias = format!("{}overlay", names.alias_prefix());
    let (vni, port, local) = (config.vxlan_id, config.vxlan_port, config.node_ip);
    socket.add_vxlan(&Vxlan { name: &name, mac, alias: &alias, vni, port, local, mtu })?;
    sysctl::prepare_device(&name);
    let link = socket.link(&name)?.ok_or(Error::Vanished(name))?;
    set_tunnel_address(socket, link.index, pods)
}

fn set_tunnel_address(socket: &mut RouteSocket, index: u32, pods: Cidr) -> Result<u32, Error> {
    let ours = IpAddr::V4(pods.first());
    for other in
        socket.addresses()?.iter().filter(|a| a.index == index && a.address != ours && a.address.is_ipv4())
    {
        socket.delete_address(other)?;
    }
    let scope = AddressScope::Universe;
    socket.add_address(&Address { index, address: ours, prefix_len: 32, scope, label: String::new() })?;
    Ok(index)
}

/// MTU of the device that has the node's address; that of Ethernet if none has.
pub(crate) fn underlay_mtu(socket: &mut RouteSocket, node_ip: Ipv4Addr) -> Result<u32, Error> {
    let holder = socket.addresses()?.into_iter().find(|a| a.address == IpAddr::V4(node_ip)).map(|a| a.index);
    let link = socket.links()?.into_iter().find(|link| Some(link.index) == holder && !link.is_loopback);
    Ok(link.map_or(1500, |link| link.mtu))
}

/// A route to the services for a host that has no route to them at all: a process of the host could otherwise not even
/// begin to connect, before the service proxy sees the packet.
pub(crate) fn service_route(config: &Config) -> Result<Option<Route>, Error> {
    let Some(services) = config.service_cidr else { return Ok(None) };
    let mut socket = RouteSocket::open()?;
    let probe = IpAddr::V4(services.nth(1).unwrap_or(services.first()));
    let existing = socket.routes(PEER_ROUTE_PROTOCOL)?;
    let ours =
        |r: &&Route| r.destination == IpAddr::V4(services.first()) && r.prefix_len == services.prefix_len();
    if let Some(route) = existing.iter().find(ours) {
        return Ok(Some(route.clone()));
    }
    if socket.route_to(probe)?.is_some() {
        return Ok(None);
    }
    let Some(loopback) = socket.links()?.into_iter().find(|l| l.is_loopback) else { return Ok(None) };
    Ok(Some(Route {
        destination: IpAddr::V4(services.first()),
        prefix_len: services.prefix_len(),
        gateway: None,
        onlink: false,
        index: loopback.index,
        source: Some(IpAddr::V4(config.node_ip)),
        protocol: PEER_ROUTE_PROTOCOL,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> Peer {
        let pod_cidr = Cidr::new([10, 244, n, 0].into(), 24);
        Peer { name: format!("n{n}"), node_ip: [192, 168, 0, n].into(), pod_cidr }
    }

    fn lookup(address: Ipv4Addr) -> Option<RouteLookup> {
        let gateway = (address.octets()[3] > 100).then_some(IpAddr::from([192, 168, 0, 254]));
        Some(RouteLookup { index: 2, gateway, source: None, is_local: false })
    }

    #[test]
    fn nodes_on_the_segment_should_be_routed_and_others_tunnelled() {
        let peers = [peer(1), peer(101)];
        let plan = decide(Mode::Auto, &peers, lookup);
        assert_eq!(plan.direct, [(peers[0].pod_cidr, peers[0].node_ip, 2)]);
        assert_eq!(plan.tunnelled, [(peers[1].pod_cidr, peers[1].node_ip)]);
        assert_eq!(decide(Mode::Vxlan, &peers, lookup).tunnelled.len(), 2);
        let routes = decide(Mode::Routes, &peers, lookup);
        assert_eq!((routes.direct.len(), routes.tunnelled.len()), (1, 0));
    }

    #[test]
    fn a_range_that_two_nodes_claim_should_go_to_the_first() {
        let twin = Peer { name: "twin".to_owned(), node_ip: [192, 168, 0, 9].into(), ..peer(1) };
        let plan = decide(Mode::Auto, &[peer(1), twin], lookup);
        assert_eq!(plan.direct.len(), 1);
        assert_eq!(plan.direct[0].1, Ipv4Addr::new(192, 168, 0, 1));
    }
}
