//! The command line against an API server: each verb says and does what kubectl's does, and the same forms of output are
//! compared with those of a kubectl of v1.30 or newer, on machines that have one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod as_kubectl;
mod cluster;
mod everyday;
mod user;
mod verbs;
