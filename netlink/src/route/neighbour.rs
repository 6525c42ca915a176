//! Neighbour entries (address to hardware address) and VXLAN forwarding entries (hardware address to node).

use std::net::IpAddr;

use super::{Mac, RouteSocket, address_from, family, octets};
use crate::message::u32_at;
use crate::{Attributes, Error, Message};

const HEADER: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 0x02;

/// A permanent entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The device.
    pub index: u32,
    /// For a neighbour: the address it stands for. For a forwarding entry: the node to send to.
    pub address: IpAddr,
    /// The hardware address.
    pub mac: Mac,
}

impl RouteSocket {
    /// Adds or replaces a permanent neighbour.
    pub fn replace_neighbour(&mut self, entry: &Neighbour) -> Result<(), Error> {
        let message = entry_message(libc::RTM_NEWNEIGH, create_flags(), entry, family(entry.address), 0);
        self.socket.execute(&format!("add neighbour {}", entry.address), message)
    }

    /// Takes a neighbour away; one that is not there is success.
    pub fn delete_neighbour(&mut self, entry: &Neighbour) -> Result<(), Error> {
        let message = entry_message(libc::RTM_DELNEIGH, 0, entry, family(entry.address), 0);
        ignore_missing(self.socket.execute(&format!("delete neighbour {}", entry.address), message))
    }

    /// Adds or replaces a forwarding entry of a VXLAN device.
    pub fn replace_forwarding(&mut self, entry: &Neighbour) -> Result<(), Error> {
        let message =
            entry_message(libc::RTM_NEWNEIGH, create_flags(), entry, libc::AF_BRIDGE as u8, NTF_SELF);
        self.socket.execute(&format!("add forwarding entry to {}", entry.address), message)
    }

    /// Takes a forwarding entry away; one that is not there is success.
    pub fn delete_forwarding(&mut self, entry: &Neighbour) -> Result<(), Error> {
        let message = entry_message(libc::RTM_DELNEIGH, 0, entry, libc::AF_BRIDGE as u8, NTF_SELF);
        ignore_missing(self.socket.execute(&format!("delete forwarding entry to {}", entry.address), message))
    }

    /// The permanent IPv4 neighbours of a device.
    pub fn neighbours(&mut self, index: u32) -> Result<Vec<Neighbour>, Error> {
        self.entries(index, libc::AF_INET as u8)
    }

    /// The permanent forwarding entries of a VXLAN device.
    pub fn forwarding(&mut self, index: u32) -> Result<Vec<Neighbour>, Error> {
        self.entries(index, libc::AF_BRIDGE as u8)
    }

    fn entries(&mut self, index: u32, family: u8) -> Result<Vec<Neighbour>, Error> {
        let mut message = Message::new(libc::RTM_GETNEIGH, 0);
        message.raw(&[family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut entries = Vec::new();
        self.socket.dump("list neighbours", message, |_, payload| {
            entries.extend(parse(payload).filter(|entry| entry.index == index));
        })?;
        Ok(entries)
    }
}

fn create_flags() -> u16 {
    (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16
}

fn entry_message(kind: u16, flags: u16, entry: &Neighbour, family: u8, entry_flags: u8) -> Message {
    let mut message = Message::new(kind, flags);
    let mut fixed = vec![family, 0, 0, 0];
    fixed.extend_from_slice(&entry.index.to_ne_bytes());
    fixed.extend_from_slice(&NUD_PERMANENT.to_ne_bytes());
    fixed.extend_from_slice(&[entry_flags, 0]);
    message.raw(&fixed).attr(NDA_DST, &octets(entry.address)).attr(NDA_LLADDR, &entry.mac);
    message
}

fn ignore_missing(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

fn parse(payload: &[u8]) -> Option<Neighbour> {
    let state = payload.get(8..10)?.try_into().ok().map(u16::from_ne_bytes)?;
    let attributes = Attributes::after(payload, HEADER);
    let entry = Neighbour {
        index: u32_at(payload, 4)?,
        address: attributes.find(NDA_DST).and_then(address_from)?,
        mac: attributes.find(NDA_LLADDR)?.try_into().ok()?,
    };
    (state & NUD_PERMANENT != 0).then_some(entry)
}
