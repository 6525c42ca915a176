//! IPv4 networks.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network such as `10.244.0.0/16`. The address never has bits set beyond the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: Ipv4Addr,
    prefix_len: u8,
}

/// The text is not an IPv4 network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 network like 10.244.0.0/16")]
pub struct NotACidr(String);

impl Cidr {
    /// The network of `prefix_len` bits that `address` is in; more than 32 bits count as 32.
    #[must_use]
    pub fn new(address: Ipv4Addr, prefix_len: u8) -> Self {
        let prefix_len = prefix_len.min(32);
        let address = Ipv4Addr::from_bits(address.to_bits() & mask(prefix_len));
        Self { address, prefix_len }
    }

    /// The lowest address.
    #[must_use]
    pub fn first(self) -> Ipv4Addr {
        self.address
    }

    /// The highest address.
    #[must_use]
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !mask(self.prefix_len))
    }

    /// Bits of the prefix.
    #[must_use]
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// The mask, as four bytes.
    #[must_use]
    pub fn mask(self) -> [u8; 4] {
        mask(self.prefix_len).to_be_bytes()
    }

    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix_len) == self.address.to_bits()
    }

    /// The address `offset` after the first, if it is in it.
    #[must_use]
    pub fn nth(self, offset: u32) -> Option<Ipv4Addr> {
        self.address.to_bits().checked_add(offset).map(Ipv4Addr::from_bits).filter(|a| self.contains(*a))
    }
}

fn mask(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0)
}

impl FromStr for Cidr {
    type Err = NotACidr;

    fn from_str(text: &str) -> Result<Self, NotACidr> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let prefix_len: u8 = prefix.parse().ok().filter(|p| *p <= 32)?;
            Some(Self::new(address.parse().ok()?, prefix_len))
        };
        parse().ok_or_else(|| NotACidr(text.to_owned()))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_should_contain_its_ends_and_nothing_beyond() {
        let network: Cidr = "10.244.1.7/24".parse().unwrap();
        assert_eq!(network.to_string(), "10.244.1.0/24");
        assert!(network.contains(network.first()) && network.contains(network.last()));
        assert_eq!(network.last(), Ipv4Addr::new(10, 244, 1, 255));
        assert_eq!(network.nth(256), None);
        assert!("10.0.0.0/33".parse::<Cidr>().is_err() && "10.0.0.0".parse::<Cidr>().is_err());
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains(Ipv4Addr::BROADCAST));
    }
}
