//! Addresses of devices.

use std::net::IpAddr;

use super::{RouteSocket, address_from, family, octets};
use crate::message::{text, u32_at};
use crate::{Attributes, Error, Message};

const HEADER: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;

/// How far an address is meaningful.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressScope {
    /// Everywhere: may be chosen as a source for anything.
    Universe,
    /// On its link only.
    Link,
    /// Inside this machine only: never chosen as a source for others.
    Host,
}

/// An address on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The device.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of its network prefix.
    pub prefix_len: u8,
    /// How far it is meaningful.
    pub scope: AddressScope,
    /// Label; must start with the device's name. Empty: none.
    pub label: String,
}

impl RouteSocket {
    /// Adds an address; one that is there already is success.
    pub fn add_address(&mut self, address: &Address) -> Result<(), Error> {
        let mut message =
            address_message(libc::RTM_NEWADDR, (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16, address);
        if !address.label.is_empty() {
            message.attr_str(IFA_LABEL, &address.label);
        }
        match self.socket.execute(&format!("add address {}", address.address), message) {
            Err(error) if error.is_exists() => Ok(()),
            other => other,
        }
    }

    /// Takes an address away; one that is not there is success.
    pub fn delete_address(&mut self, address: &Address) -> Result<(), Error> {
        let message = address_message(libc::RTM_DELADDR, 0, address);
        match self.socket.execute(&format!("delete address {}", address.address), message) {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// All addresses in the namespace.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let mut message = Message::new(libc::RTM_GETADDR, 0);
        message.raw(&[0; HEADER]);
        let mut addresses = Vec::new();
        self.socket.dump("list addresses", message, |_, payload| addresses.extend(parse(payload)))?;
        Ok(addresses)
    }
}

fn address_message(kind: u16, flags: u16, address: &Address) -> Message {
    let scope = match address.scope {
        AddressScope::Universe => libc::RT_SCOPE_UNIVERSE,
        AddressScope::Link => libc::RT_SCOPE_LINK,
        AddressScope::Host => libc::RT_SCOPE_HOST,
    };
    let mut message = Message::new(kind, flags);
    let mut fixed = vec![family(address.address), address.prefix_len, 0, scope];
    fixed.extend_from_slice(&address.index.to_ne_bytes());
    let bytes = octets(address.address);
    message.raw(&fixed).attr(IFA_LOCAL, &bytes).attr(IFA_ADDRESS, &bytes);
    message
}

fn parse(payload: &[u8]) -> Option<Address> {
    let attributes = Attributes::after(payload, HEADER);
    let address =
        attributes.find(IFA_LOCAL).or_else(|| attributes.find(IFA_ADDRESS)).and_then(address_from)?;
    Some(Address {
        index: u32_at(payload, 4)?,
        address,
        prefix_len: payload.get(1).copied()?,
        scope: match payload.get(3).copied()? {
            libc::RT_SCOPE_HOST => AddressScope::Host,
            libc::RT_SCOPE_LINK => AddressScope::Link,
            _ => AddressScope::Universe,
        },
        label: attributes.find(IFA_LABEL).map(text).unwrap_or_default(),
    })
}
