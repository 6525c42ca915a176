//! Streams to pods, services and nodes: what the agents serve, passed through.
//!
//! Guarantees that bytes go on as they come, that half-close travels, and that no credentials of the caller reach an
//! agent, a pod or a service.

mod agent;
mod connect;
mod links;
mod route;

pub(crate) use agent::{AgentAddress, AgentClient};
pub(crate) use connect::{Connect, connect};
