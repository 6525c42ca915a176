//! The embedded container runtime.

mod cgroup;
mod files;
mod image;
pub mod shim;
mod sys;
mod time;
