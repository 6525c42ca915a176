//! The node in the API: its registration, its lease, and its status.

mod lease;
mod machine;
mod register;
mod status;

pub use lease::keep_lease;
pub use machine::Machine;
pub use register::register;
pub use status::{StatusLoop, tell};
