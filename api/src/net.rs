//! Ranges of addresses of either family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range such as `10.96.0.0/16` or `fd00::/108`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: u128,
    prefix: u8,
    /// How many bits an address has.
    bits: u8,
}

/// The family of an address, as services name it.
pub fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn number(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

impl AddressRange {
    /// Reads `address/prefix`; bits of the address behind the prefix are dropped.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.trim().split_once('/')?;
        Self::around(address.parse().ok()?, prefix.parse().ok()?)
    }

    /// The range of a prefix length that an address lies in.
    pub fn around(address: IpAddr, prefix: u8) -> Option<Self> {
        let (value, bits) = number(address);
        if prefix > bits {
            return None;
        }
        let range = Self { first: value, prefix, bits };
        Some(Self { first: value & !range.offset_max(), ..range })
    }

    /// How far the last address is from the first.
    pub fn offset_max(self) -> u128 {
        u128::MAX.checked_shr(128 - u32::from(self.bits - self.prefix)).unwrap_or(0)
    }

    /// The length of the prefix.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// `IPv4` or `IPv6`.
    pub fn family(self) -> &'static str {
        if self.bits == 32 { "IPv4" } else { "IPv6" }
    }

    /// The address at an offset from the first; the last one for what is beyond it.
    pub fn nth(self, offset: u128) -> IpAddr {
        let value = self.first + offset.min(self.offset_max());
        match u32::try_from(value) {
            Ok(value) if self.bits == 32 => Ipv4Addr::from(value).into(),
            _ => Ipv6Addr::from(value).into(),
        }
    }

    /// The offset of an address that lies in the range.
    pub fn offset(self, address: IpAddr) -> Option<u128> {
        let (value, bits) = number(address);
        let offset = value.checked_sub(self.first).filter(|offset| *offset <= self.offset_max());
        offset.filter(|_| bits == self.bits)
    }

    /// Whether all of the other range lies in this one.
    pub fn contains(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.offset(other.nth(0)).is_some()
    }

    /// Whether the two have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other) || other.contains(self)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.nth(0), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        AddressRange::parse(text).unwrap()
    }

    #[test]
    fn ranges_know_their_addresses() {
        for (text, address, offset) in [
            ("10.96.0.0/16", "10.96.1.0", Some(256)),
            ("10.96.0.0/16", "10.97.0.0", None),
            ("10.96.0.0/16", "::a60:100", None),
            ("fd00::/108", "fd00::f:ffff", Some(0xf_ffff)),
            ("fd00::/108", "fd00::10:0", None),
            ("0.0.0.0/0", "255.255.255.255", Some(u128::from(u32::MAX))),
            ("::/0", "::", Some(0)),
            ("192.0.2.1/32", "192.0.2.1", Some(0)),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(range(text).offset(address), offset, "{text} {address}");
            offset.iter().for_each(|offset| assert_eq!(range(text).nth(*offset), address));
        }
        assert_eq!(range("fd00::1:2/108").to_string(), "fd00::/108");
        assert_eq!(range("::/0").offset_max(), u128::MAX);
        for wrong in ["10.0.0.0", "10.0.0.0/33", "fd00::/129", "x/8"] {
            assert_eq!(AddressRange::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ranges_know_each_other() {
        let (wide, narrow) = (range("10.0.0.0/8"), range("10.96.0.0/16"));
        assert!(wide.contains(narrow) && !narrow.contains(wide) && wide.contains(wide));
        assert!(wide.overlaps(narrow) && narrow.overlaps(wide));
        assert!(!narrow.overlaps(range("10.97.0.0/16")) && !narrow.overlaps(range("::a60:0/112")));
    }
}
