//! Sessions that carry connections to ports of a pod.
//!
//! Three carriers: SPDY (`portforward.k8s.io`: any number of connections, each a pair of streams), the same inside a
//! WebSocket (`SPDY/3.1+portforward.k8s.io`), and WebSocket channels (`v4.channel.k8s.io`: one connection for each port
//! named in the query).

mod spdy;
mod websocket;

use std::{future::Future, pin::Pin};

use http::{Request, Response};
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    sync::mpsc,
    task::JoinHandle,
};

pub use crate::command::SessionError;
use crate::upgrade::{self, HandshakeError, UpgradeBody};

pub(crate) const PROTOCOL: &str = "portforward.k8s.io";
pub(crate) const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

/// One forwarded connection.
#[derive(Debug)]
pub struct ForwardedConnection {
    /// The port of the pod that it goes to.
    pub port: u16,
    /// Its bytes. Reading ends where the client half-closed; shutting down or dropping it half-closes.
    pub data: DuplexStream,
    error: DuplexStream,
}

impl ForwardedConnection {
    /// Ends the connection by telling the client why it failed.
    pub async fn fail(mut self, reason: &str) {
        if let Err(error) = self.error.write_all(reason.as_bytes()).await {
            tracing::debug!(%error, "the client went away before it learned why the connection failed");
        }
    }

    /// The parts: the data, and the stream that must live as long as the connection does and takes a failure's words.
    pub fn into_parts(self) -> (u16, DuplexStream, DuplexStream) {
        (self.port, self.data, self.error)
    }
}

/// A session: connections as the client opens them. Dropping it ends it.
#[derive(Debug)]
pub struct PortForwardSession {
    connections: mpsc::Receiver<ForwardedConnection>,
    driver: JoinHandle<()>,
}

impl PortForwardSession {
    /// The next connection; nothing once the client has gone.
    pub async fn accept(&mut self) -> Option<ForwardedConnection> {
        self.connections.recv().await
    }
}

impl Drop for PortForwardSession {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The session, once the answer has reached the client.
pub type PendingSession = Pin<Box<dyn Future<Output = Result<PortForwardSession, SessionError>> + Send>>;

/// Agrees to a session. Return the response to the client and await the session in a task of its own.
pub fn accept<B>(
    request: &mut Request<B>,
) -> Result<(Response<UpgradeBody>, PendingSession), HandshakeError> {
    if upgrade::is_websocket(request.headers()) {
        websocket::accept(request)
    } else if upgrade::is_spdy(request.headers()) {
        spdy::accept(request)
    } else {
        Err(HandshakeError::NotAnUpgrade)
    }
}
