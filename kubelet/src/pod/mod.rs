//! Pods: one worker for each, and the pure functions that tell it what to do and what to say.
//!
//! A worker is in one of two phases. While its pod should run it looks, decides ([`decide`]), says how the pod does
//! ([`status`]) and takes one step after the other ([`start`]). When its pod is to end — deleted, completed, evicted — it
//! ends it ([`terminate`]) and clears up. It sleeps until the API, the runtime, a probe or the clock wakes it.

pub mod admission;
mod allocation;
mod conditions;
pub mod config;
mod decide;
#[cfg(test)]
mod decide_tests;
mod env;
pub mod fields;
mod hooks;
mod mailbox;
mod manager;
mod memory;
mod merge;
mod mounts;
mod names;
mod phase;
mod resize;
#[cfg(test)]
mod resize_tests;
mod resources;
mod room;
mod security;
mod spec;
mod start;
mod status;
mod terminate;
mod worker;
mod writer;

pub use env::Lookup;
pub use mailbox::Mailbox;
pub use manager::PodManager;
pub use memory::{Backoff, Failure, Memory, ProbeState};
pub use names::ResolvConf;
pub use resources::{PodLimits, pod_total};
pub use spec::{PodExt, QosClass};
pub use status::{Verdict, seconds as status_seconds};
