//! Netlink by hand: the few conversations with the kernel that the pod network and the service proxy need.
//!
//! Covers links (veth, VXLAN), addresses, routes, neighbours and forwarding entries, nf_tables transactions with maps,
//! and deletion of conntrack entries. No program (`ip`, `nft`) is ever run.
//!
//! Guarantees: every call is one bounded, blocking exchange with the kernel (netlink answers within the send), so it may be
//! made from a blocking thread or, being microseconds long, from an asynchronous one. A [`Socket`] belongs to the network
//! namespace it was opened in, for as long as it lives, whatever thread uses it; see [`netns`].
//!
//! Deliberately absent: multicast groups, everything about traffic control, and parsing of nf_tables expressions.
//! The crate exists instead of a general one because that costs two hundred thousand lines for what takes a thousand here.

mod cidr;
pub mod conntrack;
mod error;
mod message;
pub mod netns;
pub mod nft;
pub mod route;
mod socket;
mod sys;

pub use cidr::{Cidr, NotACidr};
pub use error::Error;
pub use message::{Attributes, Message};
pub use socket::{Protocol, Socket};
