//! The embedded container runtime: CRI v1 on a unix socket, containers by libcontainer behind one shim per pod.
//!
//! What `src/main` has to do:
//! - when the program is called as `gantry shim …`, call [`shim::main`] with the arguments after `shim`, before anything
//!   else, in particular before a thread is started: it never returns;
//! - in the agent, make a [`Config`] (usually [`Config::new`]), wrap the pod network as a [`PodNetwork`], and
//!   [`Runtime::start`] it; keep the [`Runtime`] for [`Runtime::load`] (`ctl image load`); to end, fire the token and
//!   await [`Runtime::ended`]: containers run on;
//! - for `gantry down`, [`Runtime::destroy_all`], or [`Runtime::destroy`] when no agent runs.
//!
//! Guarantees: a container is started at most once, whatever crashes; an agent that comes back finds every container
//! running and every exit code; nothing of an image or container is followed out of its root; seccomp profiles are in
//! force for the first process and for every program run later.
//!
//! Assumes: root; overlayfs with `trusted.` attributes on the data directory; `/run` or another local file system for
//! the state; a Linux of 5.10 or newer.
//!
//! Deliberately absent: user namespaces, AppArmor and SELinux (ignored), checkpoints, quotas on what containers write.
//! Not yet: idmapped and recursively read-only mounts, hugepages.

mod cgroup;
mod config;
mod cri;
mod engine;
mod error;
mod files;
mod image;
mod mounts;
mod netns;
pub mod network;
mod record;
mod rooted;
mod runtime;
pub mod shim;
mod shim_client;
mod shim_factory;
mod spec;
mod streaming_server;
mod sys;
mod terminal;
mod time;
mod usage;

pub use config::Config;
pub use error::Error;
pub use image::{Credentials, ImageError, Registries, Registry};
pub use network::PodNetwork;
pub use runtime::{ImageSummary, Runtime};
