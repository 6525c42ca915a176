//! Addresses of ours on the loopback device.

use std::net::{IpAddr, Ipv4Addr};

use netlink::Error;
use netlink::route::{Address, AddressScope, RouteSocket};

use crate::names::Names;

/// Puts an address there, labelled with the instance, unless the machine has it already.
pub(crate) fn ensure_address(names: &Names, address: Ipv4Addr, scope: AddressScope) -> Result<(), Error> {
    let mut socket = RouteSocket::open()?;
    let wanted = IpAddr::V4(address);
    let Some(loopback) = socket.links()?.into_iter().find(|link| link.is_loopback) else { return Ok(()) };
    if !loopback.is_up {
        socket.set_up(loopback.index)?;
    }
    if address.is_loopback() || socket.addresses()?.iter().any(|a| a.address == wanted) {
        return Ok(());
    }
    let (index, label) = (loopback.index, names.loopback_label());
    socket.add_address(&Address { index, address: wanted, prefix_len: 32, scope, label })
}
