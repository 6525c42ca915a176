//! Cluster DNS on the node itself.
//!
//! Answers for the cluster's domain come straight from informers of services and endpoint slices; everything else is forwarded to the
//! host's own resolvers. It listens on the cluster's DNS address only, which is put on the loopback device (with scope host, so that
//! nothing else is ever sent from it): a pod's question never leaves its node.
//!
//! The wire format is written by hand: one question, six record types, and bytes passed through. That is a tenth of what a library for
//! the whole protocol brings along, and what a datagram costs is known. Tests check it against such a library.
//!
//! Guarantees: a name that exists without the wanted type is answered by no data, one that does not exist by "no such name", both with
//! the zone's SOA; what does not fit a datagram is cut and marked, and TCP has it all; names compare without case and
//! are given back as they were asked.
//! Assumes: the informers' process is on the node whose pods ask.
//! Deliberately absent: zone transfers, wildcards, names of pods other than by address. Not yet: IPv6 transport.

mod cache;
mod directory;
mod forward;
mod name;
mod resolv;
mod server;
mod wire;
mod zone;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use client::Informers;
use netlink::Cidr;
use netlink::route::AddressScope;
use tokio_util::sync::CancellationToken;

use crate::loopback;
use crate::names::Names;

/// Settings of [`run`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of this installation; the address on the loopback device carries it.
    pub instance: String,
    /// The cluster's domain, such as `cluster.local`.
    pub cluster_domain: String,
    /// Where to answer.
    pub address: Ipv4Addr,
    /// The port, 53 for real use.
    pub port: u16,
    /// Ask these for everything else. Empty: the ones in `resolv_conf`.
    pub upstreams: Vec<SocketAddr>,
    /// The host's list of resolvers.
    pub resolv_conf: PathBuf,
    /// Networks of the cluster: addresses in them that nobody has are known not to have a name.
    pub cluster_networks: Vec<Cidr>,
}

impl Config {
    /// The usual settings.
    #[must_use]
    pub fn new(instance: &str, cluster_domain: &str, address: Ipv4Addr) -> Self {
        Self {
            instance: instance.to_owned(),
            cluster_domain: cluster_domain.trim_end_matches('.').to_ascii_lowercase(),
            address,
            port: 53,
            upstreams: Vec::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            cluster_networks: Vec::new(),
        }
    }
}

/// Why DNS cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be put on the loopback device.
    #[error("cannot put the DNS address on the loopback device: {0}")]
    Device(#[from] netlink::Error),
    /// Somebody else listens there.
    #[error("cannot listen on {address} for DNS: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Answers until `shutdown`. The address stays on the loopback device; [`crate::cleanup`] takes it off.
pub async fn run(config: Config, client: kube::Client, shutdown: CancellationToken) -> Result<(), Error> {
    let informers = Informers::new(client, shutdown.clone());
    run_with(config, &informers, shutdown).await
}

/// The same, sharing informers with other parts of the process.
pub async fn run_with(
    config: Config,
    informers: &Informers,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    // Scope host: whatever this machine sends to others never has this source.
    loopback::ensure_address(&Names::new(&config.instance), config.address, AddressScope::Host)?;
    let sockets = server::Sockets::bind(SocketAddr::from((config.address, config.port))).await?;
    let directory = directory::InformerDirectory::new(informers);
    server::serve(config, sockets, directory, shutdown).await;
    Ok(())
}
