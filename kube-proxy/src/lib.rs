//! The service proxy: from services and their endpoints to nf_tables maps.
//!
//! Cluster addresses, node ports (127.0.0.1 included), external and load balancer addresses (with source ranges); TCP, UDP and SCTP; client affinity;
//! external and internal traffic policies, health check ports; zone and node hints; endpoints about to end when no others are left.
//!
//! * [`gather`] reads API objects, [`select`] chooses endpoints, [`compile`] makes the table: all pure.
//! * [`run`] installs the difference to what is installed, in one transaction.
//!
//! Guarantees: a packet sees the rules of before or of after, never of between; the number of steps a connection takes does not depend on
//! the number of services; without a change of services nothing is written. Rules stay when the proxy stops.
//! Assumes: nobody else changes the table (if somebody removes it, it is installed again within half a minute).
//! Not yet: IPv6.

mod chains;
mod compile;
mod config;
mod error;
mod gather;
mod health;
mod health_ports;
mod model;
mod proxy;
mod select;
mod stale;

pub use compile::{Settings, UdpQuestion, changed_udp, compile};
pub use config::Config;
pub use error::Error;
pub use gather::{foreign_addresses, gather};
pub use model::{Endpoint, Location, Protocol, ServicePort, Target};
pub use netlink::Cidr;
pub use proxy::{run, run_with};
pub use select::{Selection, select};

use netlink::nft::{Batch, Family, apply};

/// Takes the rules of `instance` off the host. Having none is success.
pub fn cleanup(instance: &str) -> Result<(), Error> {
    Ok(apply(Batch::removal(Family::Ipv4, &Config::table_name(instance)))?)
}
