//! Routes.

use std::net::IpAddr;

use super::{RouteSocket, address_from, family, octets};
use crate::message::u32_at;
use crate::{Attributes, Error, Message};

const HEADER: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTNH_F_ONLINK: u32 = 4;

/// A unicast route in the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destination; the unspecified address with length 0 is the default route.
    pub destination: IpAddr,
    /// Length of its prefix.
    pub prefix_len: u8,
    /// Next hop; none means that the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Whether the next hop is taken to be on the link although no address says so.
    pub onlink: bool,
    /// The device.
    pub index: u32,
    /// Source address for packets that this machine itself sends.
    pub source: Option<IpAddr>,
    /// Who made the route: a number of the maker's choice.
    pub protocol: u8,
}

/// How the kernel would send to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteLookup {
    /// Through this device.
    pub index: u32,
    /// By this next hop; none when the address is on the link.
    pub gateway: Option<IpAddr>,
    /// With this source address.
    pub source: Option<IpAddr>,
    /// Whether the address is this machine's own.
    pub is_local: bool,
}

impl RouteSocket {
    /// Adds a route, or replaces the one to the same destination.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), Error> {
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
        let message = route_message(libc::RTM_NEWROUTE, flags, route);
        self.socket.execute(&format!("add route to {}/{}", route.destination, route.prefix_len), message)
    }

    /// Takes a route away; one that is not there is success.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), Error> {
        let message = route_message(libc::RTM_DELROUTE, 0, route);
        match self
            .socket
            .execute(&format!("delete route to {}/{}", route.destination, route.prefix_len), message)
        {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// The IPv4 routes of the main table made by `protocol` (0: by anybody).
    pub fn routes(&mut self, protocol: u8) -> Result<Vec<Route>, Error> {
        let mut message = Message::new(libc::RTM_GETROUTE, 0);
        let mut fixed = [0_u8; HEADER];
        if let Some(byte) = fixed.first_mut() {
            *byte = libc::AF_INET as u8;
        }
        message.raw(&fixed);
        let mut routes = Vec::new();
        self.socket.dump("list routes", message, |_, payload| {
            let in_main = payload.get(4) == Some(&libc::RT_TABLE_MAIN);
            let unicast = payload.get(7) == Some(&libc::RTN_UNICAST);
            routes.extend(
                parse(payload).filter(|r| in_main && unicast && (protocol == 0 || r.protocol == protocol)),
            );
        })?;
        Ok(routes)
    }

    /// Asks how the kernel would send to `address`; `None` when it would not.
    pub fn route_to(&mut self, address: IpAddr) -> Result<Option<RouteLookup>, Error> {
        let mut message = Message::new(libc::RTM_GETROUTE, 0);
        let bytes = octets(address);
        let bits = u8::try_from(bytes.len() * 8).unwrap_or(u8::MAX);
        message.raw(&[family(address), bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).attr(RTA_DST, &bytes);
        let mut found = None;
        let result = self.socket.query(&format!("look up route to {address}"), message, |_, payload| {
            let attributes = Attributes::after(payload, HEADER);
            found = attributes.find(RTA_OIF).and_then(|b| u32_at(b, 0)).map(|index| RouteLookup {
                index,
                gateway: attributes.find(RTA_GATEWAY).and_then(address_from),
                source: attributes.find(RTA_PREFSRC).and_then(address_from),
                is_local: payload.get(7) == Some(&libc::RTN_LOCAL),
            });
        });
        match result {
            Ok(()) => Ok(found),
            Err(error)
                if matches!(error.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL)) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn route_message(kind: u16, flags: u16, route: &Route) -> Message {
    let scope = if route.gateway.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
    let mut message = Message::new(kind, flags);
    let mut fixed = vec![family(route.destination), route.prefix_len, 0, 0];
    fixed.extend_from_slice(&[libc::RT_TABLE_MAIN, route.protocol, scope, libc::RTN_UNICAST]);
    fixed.extend_from_slice(&if route.onlink { RTNH_F_ONLINK } else { 0 }.to_ne_bytes());
    message.raw(&fixed);
    if route.prefix_len > 0 {
        message.attr(RTA_DST, &octets(route.destination));
    }
    if let Some(gateway) = route.gateway {
        message.attr(RTA_GATEWAY, &octets(gateway));
    }
    message.attr_u32(RTA_OIF, route.index);
    if let Some(source) = route.source {
        message.attr(RTA_PREFSRC, &octets(source));
    }
    message
}

fn parse(payload: &[u8]) -> Option<Route> {
    let attributes = Attributes::after(payload, HEADER);
    let destination = attributes.find(RTA_DST).and_then(address_from);
    Some(Route {
        destination: destination.unwrap_or(IpAddr::from([0, 0, 0, 0])),
        prefix_len: payload.get(1).copied()?,
        gateway: attributes.find(RTA_GATEWAY).and_then(address_from),
        onlink: u32_at(payload, 8)? & RTNH_F_ONLINK != 0,
        index: attributes.find(RTA_OIF).and_then(|b| u32_at(b, 0))?,
        source: attributes.find(RTA_PREFSRC).and_then(address_from),
        protocol: payload.get(5).copied()?,
    })
}
