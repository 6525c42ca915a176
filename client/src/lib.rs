//! How every part outside the API server reads, watches and reconciles.
//!
//! * [`Informers`] keep one watch per kind, scope and selector, and share its objects between all readers.
//! * [`queue`] is the one work-queue runner: what an informer reports becomes a key, a worker reconciles the key.
//! * [`leader`] lets one of several equal processes act.
//! * [`events`] records what happened to an object where `kubectl describe` shows it.
//! * [`owner`], [`expectations`] and [`patch`] are the small tools that every controller needs.
//!
//! Everything goes through [`kube::Client`]; whether that is a socket or the router of the same process is not known here.

pub mod backoff;
mod cache;
mod changes;
pub mod events;
pub mod expectations;
mod informer;
mod key;
pub mod leader;
pub mod owner;
pub mod patch;
pub mod queue;
mod reflector;

pub use cache::Index;
pub use changes::{Change, Changes};
pub use events::{EventRecorder, EventType};
pub use informer::{Informer, Informers, Scope, Watched};
pub use key::ObjectKey;
pub use patch::{ErrorExt, Forgive, retry_on_conflict};
pub use queue::{Outcome, Queue};
