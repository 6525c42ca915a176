//! The container runtime, as the agent sees it: CRI v1 over a unix socket, and nothing else.

mod client;
mod events;
pub mod labels;
mod snapshot;

pub use client::{Cri, CriError};
pub use events::RuntimeEvents;
#[cfg(test)]
pub use snapshot::Sandbox;
pub use snapshot::{ContainerRecord, PodRuntime, RunState, nanoseconds};
