//! What the API server has to be told, checked once. Holds key material: its `Debug` shows none of it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use api::net::AddressRange;

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

/// The ranges that services' addresses come from: one, or one of each family, the cluster's default first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRange {
    primary: AddressRange,
    secondary: Option<AddressRange>,
}

/// Service ranges that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ServiceRangeError {
    /// What is given is no range, or one of no use.
    #[error(
        "the service range {0:?} is not a range like 10.96.0.0/16 (prefix from /8 to /28) or fd00:10:96::/112 (/64 to /124)"
    )]
    Range(String),
    /// There may be one range, or two of different families.
    #[error("the service ranges {0:?} are not one range, or one of IPv4 and one of IPv6")]
    Several(String),
}

impl ServiceRange {
    /// Reads `range` or `range,range`.
    pub fn parse(text: &str) -> Result<Self, ServiceRangeError> {
        let range = |text: &str| {
            let range = AddressRange::parse(text);
            let is_fit = |range: &AddressRange| match range.family() {
                "IPv4" => (8..=28).contains(&range.prefix()),
                _ => (64..=124).contains(&range.prefix()),
            };
            range.filter(is_fit).ok_or_else(|| ServiceRangeError::Range(text.to_string()))
        };
        let (primary, secondary) = match text.split_once(',') {
            Some((primary, secondary)) => (range(primary)?, Some(range(secondary)?)),
            None => (range(text)?, None),
        };
        if secondary.is_some_and(|secondary| secondary.family() == primary.family()) {
            return Err(ServiceRangeError::Several(text.to_string()));
        }
        Ok(Self { primary, secondary })
    }

    /// The ranges, the default first.
    pub fn ranges(&self) -> impl Iterator<Item = AddressRange> {
        std::iter::once(self.primary).chain(self.secondary)
    }

    /// Their families.
    pub fn families(&self) -> Vec<&'static str> {
        self.ranges().map(AddressRange::family).collect()
    }

    /// The address at an offset in the default range.
    pub fn address(&self, offset: u32) -> IpAddr {
        self.primary.nth(offset.into())
    }

    /// The range of a family.
    pub fn of_family(&self, family: &str) -> Option<AddressRange> {
        self.ranges().find(|range| range.family() == family)
    }
}

impl fmt::Display for ServiceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.ranges().map(|range| range.to_string()).collect();
        f.write_str(&ranges.join(","))
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
    /// The ranges of cluster addresses.
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
    /// For the head of a request, and for the first one after the handshake. It counts between two requests of one
    /// connection too, so it is longer than clients keep idle connections (90 s): none is reused just as it is closed here.
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
    pub fn kubernetes_service_address(&self) -> IpAddr {
        self.service_range.address(1)
    }

    /// The address of the cluster's DNS, which answers over IPv4 wherever there is any.
    pub fn dns_service_address(&self) -> IpAddr {
        self.service_range.of_family("IPv4").unwrap_or(self.service_range.primary).nth(10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_ranges_are_one_or_one_of_each_family() {
        let dual = ServiceRange::parse("fd00:10:96::/112,10.96.0.0/16").unwrap();
        assert_eq!(dual.families(), ["IPv6", "IPv4"]);
        assert_eq!(dual.address(1).to_string(), "fd00:10:96::1");
        assert_eq!(dual.to_string(), "fd00:10:96::/112,10.96.0.0/16");
        assert_eq!(ServiceRange::parse("10.96.0.0/24").unwrap().to_string(), "10.96.0.0/24");
        let several = "10.96.0.0/16,10.97.0.0/16";
        assert_eq!(ServiceRange::parse(several), Err(ServiceRangeError::Several(several.to_string())));
        for text in ["10.96.0.0", "10.96.0.0/30", "fd00::/48", "10.96.0.0/16,fd00::/112,fd01::/112", "", ","]
        {
            assert!(matches!(ServiceRange::parse(text), Err(ServiceRangeError::Range(_))), "{text}");
        }
    }
}
