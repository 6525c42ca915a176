//! Interactive streams: what `exec`, `attach` and `port-forward` travel in.
//!
//! - [`proxy_upgrade`] passes an upgrade through to the next server, byte by byte, with half-close travelling;
//! - [`command::accept`] and [`port_forward::accept`] end a stream here: whatever the client speaks (WebSocket of any
//!   version, SPDY, SPDY tunnelled in a WebSocket), the server sees one type of session;
//! - [`reading::accept`] gives a client that reads by WebSocket what there is to read (logs);
//! - [`client`] opens SPDY connections, and [`translate`] serves WebSocket clients from a runtime that knows only SPDY.
//!
//! Deliberately absent: HTTP/2 streams (no client uses them), SPDY windows (no peer keeps them), and any knowledge of
//! pods, tokens or authorization: callers have checked all that.

pub mod client;
pub mod command;
pub mod port_forward;
mod proxy;
pub mod reading;
pub mod spdy;
pub mod translate;
mod upgrade;
mod websocket;

pub use proxy::{ProxyError, proxy_to, proxy_upgrade};
pub use upgrade::{HandshakeError, UpgradeBody, is_spdy, is_upgrade, is_websocket};
