//! Network devices.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use super::{Mac, RouteSocket};
use crate::message::{text, u32_at};
use crate::{Attributes, Error, Message};

const INFO_LEN: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
/// Leaves device statistics out of dumps.
const EXT_FILTER_SKIP_STATS: u32 = 1 << 3;

/// A device as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Number of the device in its namespace.
    pub index: u32,
    /// Name of the device.
    pub name: String,
    /// Free text attached to the device, the place for its owner's name.
    pub alias: String,
    /// Kind, for virtual devices ("veth", "vxlan", …), else empty.
    pub kind: String,
    /// Largest packet.
    pub mtu: u32,
    /// Hardware address, where it has the usual form.
    pub mac: Option<Mac>,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Whether it is the loopback device.
    pub is_loopback: bool,
}

/// A veth pair to make: one end here, the other directly in another namespace.
#[derive(Debug)]
pub struct Veth<'a> {
    /// Name of the end in this namespace.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Mac,
    /// Free text for it; names the owner.
    pub alias: &'a str,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// Its hardware address.
    pub peer_mac: Mac,
    /// Its namespace.
    pub peer_namespace: &'a File,
    /// MTU of both.
    pub mtu: u32,
}

/// A VXLAN device to make: unicast, without learning; forwarding entries are given by hand.
#[derive(Debug)]
pub struct Vxlan<'a> {
    /// Name of the device.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Mac,
    /// Free text for it; names the owner.
    pub alias: &'a str,
    /// Network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Address to send from.
    pub local: Ipv4Addr,
    /// Its MTU.
    pub mtu: u32,
}

fn info(index: u32, flags: u32, change: u32) -> [u8; INFO_LEN] {
    let mut bytes = [0; INFO_LEN];
    let fields = [0, index, flags, change].map(u32::to_ne_bytes);
    for (target, source) in bytes.iter_mut().zip(fields.iter().flatten()) {
        *target = *source;
    }
    bytes
}

impl RouteSocket {
    /// Makes a veth pair; the near end is up (one cannot be before the pair is complete).
    pub fn add_veth(&mut self, veth: &Veth<'_>) -> Result<(), Error> {
        let mut message = create_message();
        message.raw(&info(0, 0, 0)).attr_str(IFLA_IFNAME, veth.name);
        message.attr(IFLA_ADDRESS, &veth.mac).attr_u32(IFLA_MTU, veth.mtu);
        message.nest(IFLA_LINKINFO, |m| {
            m.attr_str(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    m.raw(&info(0, 0, 0)).attr_str(IFLA_IFNAME, veth.peer_name);
                    m.attr(IFLA_ADDRESS, &veth.peer_mac).attr_u32(IFLA_MTU, veth.mtu);
                    m.attr(IFLA_NET_NS_FD, &veth.peer_namespace.as_raw_fd().to_ne_bytes());
                });
            });
        });
        self.socket.execute(&format!("create veth {}", veth.name), message)?;
        self.label_and_raise(veth.name, veth.alias)
    }

    /// Makes a VXLAN device, up.
    pub fn add_vxlan(&mut self, vxlan: &Vxlan<'_>) -> Result<(), Error> {
        let mut message = create_message();
        message.raw(&info(0, libc::IFF_UP as u32, libc::IFF_UP as u32)).attr_str(IFLA_IFNAME, vxlan.name);
        message.attr(IFLA_ADDRESS, &vxlan.mac).attr_u32(IFLA_MTU, vxlan.mtu);
        message.nest(IFLA_LINKINFO, |m| {
            m.attr_str(IFLA_INFO_KIND, "vxlan").nest(IFLA_INFO_DATA, |m| {
                m.attr_u32(IFLA_VXLAN_ID, vxlan.vni).attr(IFLA_VXLAN_LOCAL, &vxlan.local.octets());
                m.attr_u8(IFLA_VXLAN_LEARNING, 0).attr_be16(IFLA_VXLAN_PORT, vxlan.port);
            });
        });
        self.socket.execute(&format!("create vxlan {}", vxlan.name), message)?;
        self.label_and_raise(vxlan.name, vxlan.alias)
    }

    /// Makes a bridge without ports. Only tests use it, as a switch between namespaces.
    pub fn add_bridge(&mut self, name: &str) -> Result<(), Error> {
        let mut message = create_message();
        message.raw(&info(0, libc::IFF_UP as u32, libc::IFF_UP as u32)).attr_str(IFLA_IFNAME, name);
        message.nest(IFLA_LINKINFO, |m| {
            m.attr_str(IFLA_INFO_KIND, "bridge");
        });
        self.socket.execute(&format!("create bridge {name}"), message)
    }

    /// Makes `port` a port of bridge `bridge` (by index).
    pub fn set_master(&mut self, port: u32, bridge: u32) -> Result<(), Error> {
        const IFLA_MASTER: u16 = 10;
        let mut message = Message::new(libc::RTM_SETLINK, 0);
        message.raw(&info(port, 0, 0)).attr_u32(IFLA_MASTER, bridge);
        self.socket.execute("join bridge", message)
    }

    /// Brings a device up.
    pub fn set_up(&mut self, index: u32) -> Result<(), Error> {
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        message.raw(&info(index, libc::IFF_UP as u32, libc::IFF_UP as u32));
        self.socket.execute("bring link up", message)
    }

    /// Takes a device away; its addresses, routes and neighbours go with it. Both ends of a veth go.
    pub fn delete_link(&mut self, name: &str) -> Result<(), Error> {
        let mut message = Message::new(libc::RTM_DELLINK, 0);
        message.raw(&info(0, 0, 0)).attr_str(IFLA_IFNAME, name);
        self.socket.execute(&format!("delete link {name}"), message)
    }

    /// The device called `name`.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut message = Message::new(libc::RTM_GETLINK, 0);
        message
            .raw(&info(0, 0, 0))
            .attr_str(IFLA_IFNAME, name)
            .attr_u32(IFLA_EXT_MASK, EXT_FILTER_SKIP_STATS);
        let mut found = None;
        match self.socket.query(&format!("look up link {name}"), message, |_, payload| found = parse(payload))
        {
            Ok(()) => Ok(found),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All devices.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let mut message = Message::new(libc::RTM_GETLINK, 0);
        message.raw(&info(0, 0, 0)).attr_u32(IFLA_EXT_MASK, EXT_FILTER_SKIP_STATS);
        let mut links = Vec::new();
        self.socket.dump("list links", message, |_, payload| links.extend(parse(payload)))?;
        Ok(links)
    }

    fn label_and_raise(&mut self, name: &str, alias: &str) -> Result<(), Error> {
        let mut message = Message::new(libc::RTM_SETLINK, 0);
        let up = libc::IFF_UP as u32;
        message.raw(&info(0, up, up)).attr_str(IFLA_IFNAME, name).attr(IFLA_IFALIAS, alias.as_bytes());
        self.socket.execute(&format!("label link {name} and bring it up"), message)
    }
}

fn create_message() -> Message {
    Message::new(libc::RTM_NEWLINK, (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16)
}

fn parse(payload: &[u8]) -> Option<Link> {
    let flags = u32_at(payload, 8)?;
    let attributes = Attributes::after(payload, INFO_LEN);
    let kind = attributes.find(IFLA_LINKINFO).and_then(|i| Attributes::new(i).find(IFLA_INFO_KIND)).map(text);
    Some(Link {
        index: u32_at(payload, 4)?,
        name: attributes.find(IFLA_IFNAME).map(text)?,
        alias: attributes.find(IFLA_IFALIAS).map(text).unwrap_or_default(),
        kind: kind.unwrap_or_default(),
        mtu: attributes.find(IFLA_MTU).and_then(|b| u32_at(b, 0)).unwrap_or(0),
        mac: attributes.find(IFLA_ADDRESS).and_then(|b| b.try_into().ok()),
        is_up: flags & libc::IFF_UP as u32 != 0,
        is_loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
    })
}
