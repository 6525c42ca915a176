//! Who may do what, who is who, and what admission says: the API server as its users meet it, in one process over the embedded store, over
//! real TLS where credentials matter.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is test"
)]

mod agents;
mod audit;
mod bindings;
mod certificates;
mod cluster;
mod conversion;
mod credentials;
mod escalation;
mod flow;
mod https;
mod impersonation;
mod limits;
mod nodes;
mod oidc;
mod pod_security;
mod policies;
mod quotas;
mod reviews;
mod speed;
mod standard_roles;
mod tokens;
mod webhook_conditions;
mod webhooks;
