//! The API server as its clients see it: the whole pipeline in one process over the embedded store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is test"
)]

mod bad_clients;
mod bad_input;
mod custom;
mod deletion;
mod discovery;
mod encryption;
mod lists;
mod network;
mod python;
mod revisions;
mod rules;
mod server;
mod services;
mod watches;
mod writes;
