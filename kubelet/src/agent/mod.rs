//! The agent's own API, which the API server asks for logs, streams and figures.

mod listener;
mod log_file;
mod tls;

pub use listener::Listener;
pub use log_file::tail as log_tail;
pub use tls::ServingCertificate;
