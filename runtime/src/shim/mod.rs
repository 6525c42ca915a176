//! The shim: one small process per pod that owns the pod's containers.
//!
//! It is the same binary, re-executed once ([`main`]) and forked for each pod. It never starts a thread: creating a container clones and changes
//! directories in the calling process, and one loop over `poll` is all it needs. It holds the pod's namespaces, the
//! containers' standard streams and their exit codes, and outlives the agent: an agent that comes back connects to the
//! socket in the sandbox's directory and finds everything as it is.
//!
//! Guarantees: a container is started at most once; its exit code and time are on disk before anyone is told; log lines
//! written before the exit are in the log file before anyone is told.
//!
//! Assumes that its directory is on a local file system that nobody else writes to.

mod container;
mod diagnostics;
mod exec;
pub(crate) mod factory;
mod filter;
mod log;
mod output;
mod pause;
mod process;
pub(crate) mod protocol;
mod server;
mod setup;

pub(crate) use container::EXIT_FILE;
pub use process::main;
