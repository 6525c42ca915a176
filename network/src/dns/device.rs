//! The DNS address on the loopback device.

use std::net::{IpAddr, Ipv4Addr};

use netlink::Error;
use netlink::route::{Address, AddressScope, RouteSocket};

use crate::names::Names;

/// Puts the address there, labelled with the instance, unless the machine has it already.
pub(super) fn ensure_address(instance: &str, address: Ipv4Addr) -> Result<(), Error> {
    let mut socket = RouteSocket::open()?;
    let wanted = IpAddr::V4(address);
    let Some(loopback) = socket.links()?.into_iter().find(|link| link.is_loopback) else { return Ok(()) };
    if !loopback.is_up {
        socket.set_up(loopback.index)?;
    }
    if address.is_loopback() || socket.addresses()?.iter().any(|a| a.address == wanted) {
        return Ok(());
    }
    let label = Names::new(instance).loopback_label();
    let (index, scope) = (loopback.index, AddressScope::Host);
    socket.add_address(&Address { index, address: wanted, prefix_len: 32, scope, label })
}
