//! Links, addresses, routes and neighbours (rtnetlink).

mod address;
mod link;
mod neighbour;
mod routes;

use std::fs::File;
use std::net::IpAddr;

pub use address::{Address, AddressScope};
pub use link::{Link, Veth, Vxlan};
pub use neighbour::Neighbour;
pub use routes::{Route, RouteLookup};

use crate::{Error, Protocol, Socket, netns};

/// A hardware address.
pub type Mac = [u8; 6];

/// A socket for links, addresses, routes and neighbours of one network namespace.
#[derive(Debug)]
pub struct RouteSocket {
    pub(crate) socket: Socket,
}

impl RouteSocket {
    /// Opens it in the calling thread's namespace.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Protocol::Route)? })
    }

    /// Opens it in another namespace.
    pub fn open_in(namespace: &File) -> Result<Self, Error> {
        Ok(Self { socket: netns::socket_in(namespace, Protocol::Route)? })
    }
}

/// The bytes of an address as the kernel wants them.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The kernel's number for the address family.
pub(crate) fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

/// Reads an address attribute of either family.
pub(crate) fn address_from(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}
