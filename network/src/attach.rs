//! Connecting and disconnecting one sandbox. Blocking; a few milliseconds.
//!
//! Every sandbox has a veth pair of its own. In the sandbox: the address as a /32, a default route by the link-local address
//! 169.254.1.1, and a permanent neighbour entry that says where that is. On the host: a route to the /32 and a permanent
//! neighbour entry. No segment is shared, so pods cannot see or forge each other's frames, and everything is routed
//! and passes the host's packet filter.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use netlink::conntrack::{Connection, delete_matching};
use netlink::netns;
use netlink::nft;
use netlink::route::{Address, AddressScope, Mac, Neighbour, Route, RouteSocket, Veth};

use crate::lease::{Lease, Leases};
use crate::names::{Names, POD_ROUTE_PROTOCOL};
use crate::request::{Addresses, AttachRequest, Protocol};
use crate::state::NodeState;
use crate::{Error, peers, rules, sysctl};

/// The next hop of every pod: not routable, so it can never be needed for anything else.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The host's end of every pod's device; no segment is shared, so all may have the same.
const HOST_MAC: Mac = [0xee; 6];

/// Hardware address of a pod's device.
pub(crate) fn pod_mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// Connects a sandbox. Asking again repairs what is missing and gives the same addresses.
pub(crate) fn attach(
    names: &Names,
    leases: &Leases,
    state: &NodeState,
    request: &AttachRequest,
) -> Result<Addresses, Error> {
    let namespace = netns::open(&request.namespace_path)?;
    let wanted = Lease {
        address: Ipv4Addr::UNSPECIFIED,
        id: request.id.clone(),
        pod: format!("{}/{}", request.pod_namespace, request.pod_name),
        port_mappings: request.port_mappings.clone(),
        created_ms: 0,
    };
    let (lease, is_new) = leases.reserve(state.pod_cidr, wanted)?;
    let device = names.pod_device(&request.id);
    let result = connect(names, state, request, &lease, &device, &namespace);
    if let (Err(error), true) = (&result, is_new) {
        tracing::debug!(id = request.id, %error, "undoing a failed attachment");
        detach(names, leases, &request.id)?;
    }
    result.map(|()| Addresses {
        ips: vec![IpAddr::V4(lease.address)],
        mac: pod_mac(lease.address),
        host_device: device,
        mtu: state.mtu,
    })
}

/// Disconnects a sandbox and ends its lease. One that is not connected is success.
pub(crate) fn detach(names: &Names, leases: &Leases, id: &str) -> Result<(), Error> {
    match RouteSocket::open()?.delete_link(&names.pod_device(id)) {
        Err(error) if !error.is_not_found() => return Err(error.into()),
        _ => {}
    }
    let Some(lease) = leases.of(id)? else { return Ok(()) };
    if !lease.port_mappings.is_empty() {
        match nft::apply(rules::removals(names, &lease)) {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        forget_datagrams(&lease);
    }
    // Last, so that nobody else gets the address while something still leads to the old pod.
    leases.release(id)?;
    Ok(())
}

/// Lets clients that keep sending datagrams to a host port find the pod's successor.
fn forget_datagrams(lease: &Lease) {
    if !lease.port_mappings.iter().any(|mapping| mapping.protocol == Protocol::Udp) {
        return;
    }
    let to_pod = |connection: &Connection| connection.reply.source == lease.address;
    if let Err(error) = delete_matching(Protocol::Udp.number(), to_pod) {
        tracing::warn!(pod = lease.pod, %error, "cannot forget connections to a host port; clients may wait for them to expire");
    }
}

fn connect(
    names: &Names,
    state: &NodeState,
    request: &AttachRequest,
    lease: &Lease,
    device: &str,
    namespace: &File,
) -> Result<(), Error> {
    let mut host = RouteSocket::open()?;
    let alias = names.pod_alias(&lease.pod, &lease.id);
    let veth = Veth {
        name: device,
        mac: HOST_MAC,
        alias: &alias,
        peer_name: &request.interface,
        peer_mac: pod_mac(lease.address),
        peer_namespace: namespace,
        mtu: state.mtu,
    };
    match host.add_veth(&veth) {
        // What an earlier attempt left. Starting afresh is simpler than judging it.
        Err(error) if error.is_exists() => {
            host.delete_link(device)?;
            host.add_veth(&veth)?;
        }
        other => other?,
    }
    let index = host.link(device)?.ok_or_else(|| Error::Vanished(device.to_owned()))?.index;
    configure_pod(&mut RouteSocket::open_in(namespace)?, &request.interface, lease.address)?;
    sysctl::prepare_device(device);
    let address = IpAddr::V4(lease.address);
    host.replace_neighbour(&Neighbour { index, address, mac: pod_mac(lease.address) })?;
    let route = Route {
        destination: address,
        prefix_len: 32,
        gateway: None,
        onlink: false,
        index,
        source: Some(IpAddr::V4(state.host_address())),
        protocol: POD_ROUTE_PROTOCOL,
    };
    peers::replace_route(&mut host, &route)?;
    if !lease.port_mappings.is_empty() {
        nft::apply(rules::additions(names, lease))?;
    }
    Ok(())
}

/// Brings up the loopback device of a namespace, and nothing else.
pub(crate) fn bring_up_loopback(namespace: &Path) -> Result<(), Error> {
    let mut pod = RouteSocket::open_in(&netns::open(namespace)?)?;
    let loopback = pod.link("lo")?.ok_or_else(|| Error::Vanished("lo".to_owned()))?;
    Ok(pod.set_up(loopback.index)?)
}

fn configure_pod(pod: &mut RouteSocket, interface: &str, address: Ipv4Addr) -> Result<(), Error> {
    let mut index_of = |name: &str| -> Result<u32, Error> {
        let link = pod.link(name)?.ok_or_else(|| Error::Vanished(name.to_owned()))?;
        Ok(link.index)
    };
    let (loopback, index) = (index_of("lo")?, index_of(interface)?);
    pod.set_up(loopback)?;
    pod.set_up(index)?;
    let (address, label) = (IpAddr::V4(address), String::new());
    pod.add_address(&Address { index, address, prefix_len: 32, scope: AddressScope::Universe, label })?;
    let gateway = IpAddr::V4(GATEWAY);
    pod.replace_neighbour(&Neighbour { index, address: gateway, mac: HOST_MAC })?;
    let to_gateway = Route {
        destination: gateway,
        prefix_len: 32,
        gateway: None,
        onlink: false,
        index,
        source: Some(address),
        protocol: POD_ROUTE_PROTOCOL,
    };
    pod.replace_route(&to_gateway)?;
    let default = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let by_gateway =
        Route { destination: default, prefix_len: 0, gateway: Some(gateway), onlink: true, ..to_gateway };
    pod.replace_route(&by_gateway)?;
    Ok(())
}
