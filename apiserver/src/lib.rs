//! The API server: who may read and change objects. One pipeline for every kind and verb, a watch cache that serves
//! stored bytes, discovery, OpenAPI, authentication, authorization, admission.
//!
//! Guarantees:
//! - nothing is acknowledged before the store has it on disk;
//! - managed fields, defaulting, validation and admission run in the one pipeline, for every verb alike;
//! - a list, the watch that follows it and its bookmarks agree to the last revision.
//!
//! [`Server::build`] makes a server over a [`store::Store`], [`Server::client`] a client in the same process without
//! socket and TLS, [`Server::run`] serves the network until told to stop, then drains.
//!
//! Deliberately absent: protobuf answers (bodies are read), CBOR, aggregation of other API servers.

pub mod admission;
pub mod audit;
pub mod auth;
pub mod authz;
mod bootstrap;
mod cache;
pub mod config;
mod custom;
mod discovery;
pub mod encryption;
mod flow;
mod http;
mod idle;
mod metrics;
mod node;
mod objects;
mod pipeline;
mod plugins;
mod present;
mod protobuf;
mod quota;
pub mod reviews;
mod server;
mod service;
mod subresource;
mod tls;
mod tree;

pub use config::{Config, Identity, Patience, Security, ServiceAccountKeys, ServiceRange, ServiceRangeError};
pub use http::request_info::RequestInfo;
pub use objects::Objects;
pub use server::{Server, ServerError};
