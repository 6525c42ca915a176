//! Forgetting connections that the kernel tracks.
//!
//! A UDP "connection" whose service lost its endpoint would go on being sent there as long as its client keeps talking;
//! deleting the entry lets the next packet be decided anew.

use std::net::Ipv4Addr;

use crate::message::be32;
use crate::{Attributes, Error, Message, Protocol, Socket};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const GENERIC_HEADER: usize = 4;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// From this address,
    pub source: Ipv4Addr,
    /// to this address,
    pub destination: Ipv4Addr,
    /// by this protocol,
    pub protocol: u8,
    /// from this port (0 where the protocol has none)
    pub source_port: u16,
    /// to this port.
    pub destination_port: u16,
}

/// A tracked connection: as the client sees it, and as the answers travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The direction that the client began.
    pub original: Tuple,
    /// The direction of the answers; its source is where the packets are really sent.
    pub reply: Tuple,
}

/// Deletes the IPv4 connections of `protocol` that `unwanted` picks; returns how many.
pub fn delete_matching(protocol: u8, unwanted: impl Fn(&Connection) -> bool) -> Result<usize, Error> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut message = Message::new(GET, 0);
    message.raw(&header());
    let mut doomed = Vec::new();
    socket.dump("list connections", message, |_, payload| {
        let attributes = Attributes::after(payload, GENERIC_HEADER);
        let Some(original) = attributes.find(CTA_TUPLE_ORIG) else { return };
        let Some(reply) = attributes.find(CTA_TUPLE_REPLY) else { return };
        if let (Some(original_tuple), Some(reply_tuple)) = (parse(original), parse(reply)) {
            let connection = Connection { original: original_tuple, reply: reply_tuple };
            if original_tuple.protocol == protocol && unwanted(&connection) {
                doomed.push((original.to_vec(), attributes.find(CTA_ID).map(<[u8]>::to_vec)));
            }
        }
    })?;
    let mut deleted = 0;
    for (tuple, id) in doomed {
        let mut message = Message::new(DELETE, 0);
        message.raw(&header()).nest(CTA_TUPLE_ORIG, |m| {
            m.raw(&tuple);
        });
        if let Some(id) = id {
            message.attr(CTA_ID, &id);
        }
        match socket.execute("delete connection", message) {
            Ok(()) => deleted += 1,
            // It ended by itself meanwhile.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

fn header() -> [u8; GENERIC_HEADER] {
    [libc::AF_INET as u8, 0, 0, 0]
}

fn parse(bytes: &[u8]) -> Option<Tuple> {
    let tuple = Attributes::new(bytes);
    let ip = Attributes::new(tuple.find(CTA_TUPLE_IP)?);
    let proto = Attributes::new(tuple.find(CTA_TUPLE_PROTO)?);
    let address = |kind| ip.find(kind).and_then(be32).map(Ipv4Addr::from);
    let port = |kind| proto.find(kind).and_then(|b| b.try_into().ok()).map_or(0, u16::from_be_bytes);
    Some(Tuple {
        source: address(CTA_IP_V4_SRC)?,
        destination: address(CTA_IP_V4_DST)?,
        protocol: proto.find(CTA_PROTO_NUM)?.first().copied()?,
        source_port: port(CTA_PROTO_SRC_PORT),
        destination_port: port(CTA_PROTO_DST_PORT),
    })
}
