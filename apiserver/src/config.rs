//! What the API server has to be told, checked once. Holds key material: its `Debug` shows none of it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::admission::pod_security::PodSecurityConfig;
use crate::audit::AuditConfig;
use crate::auth::OidcConfig;

/// A certificate chain and its private key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The leaf first, then what leads to the root.
    pub certificate_pem: Vec<u8>,
    /// The private key of the leaf.
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// The keys with which service-account tokens are signed and checked.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceAccountKeys {
    /// `iss` of every token, and where discovery says the keys are.
    pub issuer: String,
    /// A P-256 private key, PEM (PKCS#8).
    pub signing_key_pem: Vec<u8>,
    /// Older public keys (PEM) whose tokens still count.
    pub verification_keys_pem: Vec<Vec<u8>>,
}

impl fmt::Debug for ServiceAccountKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceAccountKeys(issuer: {})", self.issuer)
    }
}

/// An IPv4 range such as `10.96.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRange {
    base: u32,
    prefix_length: u8,
}

/// A service range that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the service range {0:?} is not an IPv4 range like 10.96.0.0/16 with a prefix from /8 to /28")]
pub struct ServiceRangeError(String);

impl ServiceRange {
    /// Reads `a.b.c.d/n`.
    pub fn parse(text: &str) -> Result<Self, ServiceRangeError> {
        let fail = || ServiceRangeError(text.to_string());
        let (address, length) = text.split_once('/').ok_or_else(fail)?;
        let address: Ipv4Addr = address.parse().map_err(|_| fail())?;
        let prefix_length: u8 = length.parse().map_err(|_| fail())?;
        if !(8..=28).contains(&prefix_length) {
            return Err(fail());
        }
        let mask = u32::MAX << (32 - prefix_length);
        Ok(Self { base: u32::from(address) & mask, prefix_length })
    }

    /// How many addresses there are, network and broadcast included.
    pub fn size(&self) -> u32 {
        1 << (32 - self.prefix_length)
    }

    /// The address at an offset from the base.
    pub fn address(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base.wrapping_add(offset))
    }

    /// The offset of an address, if it lies in the range and may be given to a service (neither the first nor the last).
    pub fn offset(&self, address: Ipv4Addr) -> Option<u32> {
        let offset = u32::from(address).checked_sub(self.base)?;
        (offset > 0 && offset < self.size() - 1).then_some(offset)
    }
}

impl fmt::Display for ServiceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(0), self.prefix_length)
    }
}

/// What the API server has to be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the TLS listener binds.
    pub bind_address: SocketAddr,
    /// The address that the service `kubernetes` leads to.
    pub advertise_address: IpAddr,
    /// The serving certificate.
    pub serving: Identity,
    /// Who signs client certificates, PEM, possibly several.
    pub client_ca_pem: Vec<u8>,
    /// With what the API server calls the nodes' agents (`system:apiserver`).
    pub agent_client: Identity,
    /// Who signs the agents' serving certificates, PEM.
    pub agent_ca_pem: Vec<u8>,
    /// The CA that the cluster's parts and pods are to trust, PEM.
    pub root_ca_pem: Vec<u8>,
    /// Keys of service-account tokens.
    pub service_account: ServiceAccountKeys,
    /// The range of cluster addresses.
    pub service_range: ServiceRange,
    /// The range of node ports.
    pub node_ports: RangeInclusive<u16>,
    /// `cluster.local`
    pub cluster_domain: String,
    /// How long requests in flight may go on once the server is told to stop.
    pub drain_seconds: u64,
    /// What is guarded beyond what always is.
    pub security: Security,
}

/// What an administrator may set about who is let do what. The defaults are those of a new cluster.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// What holds for pods in namespaces that say nothing.
    pub pod_security: PodSecurityConfig,
    /// What the audit log says, if there is to be one.
    pub audit: Option<AuditConfig>,
    /// An issuer outside whose users are let in, if there is one.
    pub oidc: Option<OidcConfig>,
    /// How long clients may take for what they owe.
    pub patience: Patience,
}

/// How long clients may take for what they owe.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the head of a request. It counts between two requests of one connection too, so it is longer than clients keep
    /// idle connections (90 s): none is reused just as it is closed here.
    pub head: Duration,
    /// For the body of a request, as a whole.
    pub body: Duration,
    /// For reading what was sent to them: then the connection is cut. Long enough for somebody who pages through a log.
    pub stalled: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { handshake: seconds(10), head: seconds(120), body: seconds(60), stalled: seconds(300) }
    }
}

impl Config {
    /// The address of the service `kubernetes`.
    pub fn kubernetes_service_address(&self) -> Ipv4Addr {
        self.service_range.address(1)
    }

    /// The address of the cluster's DNS.
    pub fn dns_service_address(&self) -> Ipv4Addr {
        self.service_range.address(10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_ranges_should_know_their_addresses() {
        let range = ServiceRange::parse("10.96.0.0/16").unwrap();
        assert_eq!(range.address(10), Ipv4Addr::new(10, 96, 0, 10));
        assert_eq!(range.offset(Ipv4Addr::new(10, 96, 1, 0)), Some(256));
        assert_eq!(range.offset(Ipv4Addr::new(10, 96, 255, 255)), None);
        assert_eq!(range.offset(Ipv4Addr::new(10, 97, 0, 1)), None);
        assert!(ServiceRange::parse("10.96.0.0").is_err());
        assert!(ServiceRange::parse("fd00::/108").is_err());
    }
}
