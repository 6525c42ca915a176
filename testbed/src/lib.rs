//! What the tests of several crates start: an API server in this process over either store, the controllers, nodes that
//! are played, a real etcd, and somebody who asks.
//!
//! Guarantees: everything is on loopback and in temporary directories, and ends and goes with what started it, also when a
//! test panics. Only a killed test process leaves its directories, and its etcd, behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is test"
)]

#[cfg(feature = "server")]
mod caller;
#[cfg(feature = "controllers")]
mod controllers;
mod etcd;
#[cfg(feature = "controllers")]
mod hollow;
#[cfg(feature = "server")]
mod server;

#[cfg(feature = "server")]
pub use caller::{Answer, Caller, Watch};
#[cfg(feature = "controllers")]
pub use controllers::Controllers;
pub use etcd::Etcd;
#[cfg(feature = "controllers")]
pub use hollow::Hollow;
#[cfg(feature = "server")]
pub use server::{Backend, ISSUER, Listening, TestServer, identity, server_config};
