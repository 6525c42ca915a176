//! The API server as its clients see it: the whole pipeline in one process, over the embedded store and over etcd.

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
mod revisions;
mod rules;
mod server;
mod services;
mod watches;
mod writes;

/// Runs all other tests once more in a process of their own, over one etcd in which each has its part.
#[test]
fn all_of_it_should_hold_over_etcd() {
    if std::env::var_os("GANTRY_TEST_ETCD").is_some() {
        return;
    }
    let etcd = testbed::Etcd::start(1);
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--skip", "all_of_it_should_hold_over_etcd", "--test-threads=2"])
        .env("GANTRY_TEST_ETCD", etcd.url(0))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
