//! `ip('10.0.0.1')` and `cidr('10.0.0.0/8')`

use std::net::IpAddr;

use crate::functions::cost::{self, ONE};
use crate::functions::{As, Row, row, take};
use crate::meter::{Fault, Outcome};
use crate::value::{Opaque, Value};

/// An address and how much of it is the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Opaque for IpAddr {
    fn type_name(&self) -> &'static str {
        "net.IP"
    }

    fn is(&self, other: &dyn Opaque) -> bool {
        (other as &dyn std::any::Any).downcast_ref() == Some(self)
    }

    fn size(&self) -> u64 {
        if self.is_ipv4() { 4 } else { 16 }
    }
}

impl Opaque for Cidr {
    fn type_name(&self) -> &'static str {
        "net.CIDR"
    }

    fn is(&self, other: &dyn Opaque) -> bool {
        (other as &dyn std::any::Any).downcast_ref() == Some(self)
    }

    fn size(&self) -> u64 {
        u64::from(self.bits).div_ceil(8)
    }
}

pub(crate) const ROWS: &[Row] = &[
    row("ip", "(string) -> net.IP", &cost::READS, |_, args| {
        take(args).and_then(|[text]| parsed_ip(text.string()?)).map(Value::opaque)
    }),
    row("isIP", "(string) -> bool", &cost::READS, |_, args| {
        take(args).and_then(|[text]| Ok(Value::Bool(parsed_ip(text.string()?).is_ok())))
    }),
    row("ip.isCanonical", "(string) -> bool", &cost::READS_TWICE, |_, args| {
        let [text] = take(args)?;
        let text = text.string()?;
        Ok(Value::Bool(parsed_ip(text)?.to_string() == **text))
    }),
    row("family", "net.IP.() -> int", &ONE, |_, args| {
        of_ip(args, |ip| Value::Int(if ip.is_ipv4() { 4 } else { 6 }))
    }),
    row("isUnspecified", "net.IP.() -> bool", &ONE, |_, args| {
        of_ip(args, |ip| Value::Bool(ip.is_unspecified()))
    }),
    row("isLoopback", "net.IP.() -> bool", &ONE, |_, args| of_ip(args, |ip| Value::Bool(ip.is_loopback()))),
    row("isLinkLocalMulticast", "net.IP.() -> bool", &ONE, |_, args| {
        of_ip(args, |ip| {
            Value::Bool(match ip {
                IpAddr::V4(ip) => ip.octets().starts_with(&[224, 0, 0]),
                IpAddr::V6(ip) => {
                    ip.octets().starts_with(&[0xff]) && ip.octets().get(1).is_some_and(|b| b & 0xf == 2)
                }
            })
        })
    }),
    row("isLinkLocalUnicast", "net.IP.() -> bool", &ONE, |_, args| {
        of_ip(args, |ip| Value::Bool(is_link_local(ip)))
    }),
    row("isGlobalUnicast", "net.IP.() -> bool", &ONE, |_, args| {
        of_ip(args, |ip| {
            let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
            let is_other = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local(ip);
            Value::Bool(!is_broadcast && !is_other)
        })
    }),
    row("cidr", "(string) -> net.CIDR", &cost::READS, |_, args| {
        take(args).and_then(|[text]| parsed_cidr(text.string()?)).map(Value::opaque)
    }),
    row("isCIDR", "(string) -> bool", &cost::READS, |_, args| {
        take(args).and_then(|[text]| Ok(Value::Bool(parsed_cidr(text.string()?).is_ok())))
    }),
    row(
        "containsIP",
        "net.CIDR.(net.IP) -> bool; net.CIDR.(string) -> bool",
        &cost::CONTAINS_IP,
        |_, args| {
            let [cidr, ip] = take(args)?;
            let ip = match &ip {
                Value::String(text) => parsed_ip(text)?,
                other => *other.downcast()?,
            };
            Ok(Value::Bool(cidr.downcast::<Cidr>()?.contains(ip)))
        },
    ),
    row(
        "containsCIDR",
        "net.CIDR.(net.CIDR) -> bool; net.CIDR.(string) -> bool",
        &cost::CONTAINS_CIDR,
        |_, args| {
            let [cidr, other] = take(args)?;
            let other = match &other {
                Value::String(text) => parsed_cidr(text)?,
                other => *other.downcast::<Cidr>()?,
            };
            let cidr: &Cidr = cidr.downcast()?;
            Ok(Value::Bool(cidr.bits <= other.bits && cidr.contains(other.address)))
        },
    ),
    row("ip", "net.CIDR.() -> net.IP", &ONE, |_, args| of_cidr(args, |cidr| Value::opaque(cidr.address))),
    row("prefixLength", "net.CIDR.() -> int", &ONE, |_, args| {
        of_cidr(args, |cidr| Value::Int(cidr.bits.into()))
    }),
    row("masked", "net.CIDR.() -> net.CIDR", &ONE, |_, args| {
        of_cidr(args, |cidr| Value::opaque(Cidr { address: cidr.network(cidr.address), bits: cidr.bits }))
    }),
];

/// `string()` of either.
pub(crate) fn text<'v>(value: &Value<'v>) -> Outcome<'v> {
    if let Ok(ip) = value.downcast::<IpAddr>() {
        return Ok(Value::text(ip.to_string()));
    }
    let Cidr { address, bits } = value.downcast::<Cidr>()?;
    Ok(Value::text(format!("{address}/{bits}")))
}

fn of_ip<'v>(args: Vec<Value<'v>>, result: fn(IpAddr) -> Value<'static>) -> Outcome<'v> {
    take(args).and_then(|[ip]| Ok(result(*ip.downcast()?)))
}

fn of_cidr<'v>(args: Vec<Value<'v>>, result: fn(Cidr) -> Value<'static>) -> Outcome<'v> {
    take(args).and_then(|[cidr]| Ok(result(*cidr.downcast()?)))
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some())
}

fn parsed_ip(text: &str) -> Result<IpAddr, Fault> {
    let why = match text.parse::<IpAddr>() {
        Ok(ip) if is_mapped(ip) => format!("IPv4-mapped IPv6 address {text:?} is not allowed"),
        Ok(ip) => return Ok(ip),
        Err(_) if text.contains('%') => format!("IP address {text:?} with zone value is not allowed"),
        Err(_) => format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        ),
    };
    Err(Fault::Failed(why))
}

fn parsed_cidr(text: &str) -> Result<Cidr, Fault> {
    let parts = text.split_once('/').and_then(|(address, bits)| {
        let is_plain = bits == "0" || !bits.starts_with(['0', '+']);
        let bits = bits.parse::<u8>().ok().filter(|_| is_plain)?;
        let address = address.parse::<IpAddr>().ok()?;
        (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(Cidr { address, bits })
    });
    match parts {
        Some(cidr) if is_mapped(cidr.address) => {
            Err(Fault::failed(format!("IPv4-mapped IPv6 address {text:?} is not allowed")))
        }
        Some(cidr) => Ok(cidr),
        None => {
            let why = "network address parse error during conversion from string: netip.ParsePrefix";
            Err(Fault::failed(format!("{why}({text:?}): invalid CIDR address")))
        }
    }
}

impl Cidr {
    fn contains(self, ip: IpAddr) -> bool {
        self.address.is_ipv4() == ip.is_ipv4() && self.network(ip) == self.network(self.address)
    }

    /// An address with nothing but its network.
    fn network(self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or_default();
                IpAddr::V4((ip.to_bits() & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or_default();
                IpAddr::V6((ip.to_bits() & mask).into())
            }
        }
    }
}
