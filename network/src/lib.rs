//! The pod network of a node, also as a CNI plugin, and cluster DNS.
//!
//! * [`NodeNetwork`] connects sandboxes ([`NodeNetwork::attach`]): an address lease on disk, a routed veth per pod, host ports.
//!   It follows the cluster's nodes and keeps routes (or a VXLAN device) to their pods.
//! * [`cni_main`] does the same for foreign runtimes, over the same files.
//! * [`dns`] answers names of services, pods and the outside.
//! * [`missing_kernel_features`] says beforehand what will not work, and why.
//! * [`cleanup`] takes everything off the host again; [`leftovers`] says what is still there.
//!
//! Guarantees: an address has one holder at a time; leases survive restarts; attaching and detaching are idempotent; everything on the host
//! carries the instance's name; no program is ever run.
//! Assumes: root (or `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`), and the node's own network namespace.
//! Not yet: IPv6 (types have room for it) and network policy.

mod attach;
mod cleanup;
mod cni;
mod config;
pub mod dns;
mod error;
mod forward;
mod lease;
mod loopback;
mod names;
mod node_network;
mod peers;
mod preflight;
mod request;
mod rules;
mod state;
mod sysctl;

pub use cleanup::{cleanup, leftovers};
pub use cni::{LOOPBACK, cni_main, write_conflist};
pub use config::{Config, Mode};
pub use error::Error;
pub use lease::Lease;
pub use names::Names;
pub use netlink::Cidr;
pub use node_network::NodeNetwork;
pub use preflight::missing_kernel_features;
pub use request::{Addresses, AttachRequest, PortMapping, Protocol};
pub use state::NodeState;
