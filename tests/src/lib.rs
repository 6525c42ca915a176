//! The end-to-end harness: real binaries on machines that are network namespaces, real containers, and a check that
//! nothing stays behind.
//!
//! Assumes root, the built `gantry` binary beside the test's own, and the images of `images/build.sh`.
//! A test that panics still stops its cluster and takes its namespaces away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cluster;
mod command;
mod daemon;
mod lan;
mod leaks;
mod registry;

pub use cluster::{Cluster, Node, NodeOptions, condition};
pub use command::{Output, Tool, eventually, gantry, image_archive, run};
pub use daemon::Daemon;
pub use lan::{Lan, Machine};
pub use leaks::processes_naming;
pub use registry::{REGISTRY, Registry};
