//! The embedded container runtime.

mod cgroup;
mod config;
mod engine;
mod error;
mod files;
mod image;
mod mounts;
mod netns;
pub mod network;
mod record;
mod rooted;
pub mod shim;
mod shim_client;
mod spec;
mod sys;
mod time;

pub use config::Config;
pub use error::Error;
pub use image::{Credentials, ImageError, Registries, Registry};
pub use network::PodNetwork;
