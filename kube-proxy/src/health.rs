//! `/healthz`: whether the rules keep up with the services.
//!
//! Speaks just enough HTTP for a probe: one request per connection, the path is looked at, the rest is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// With changes waiting for longer than this the proxy counts as unhealthy.
const BEHIND_MAX: Duration = Duration::from_secs(60);
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// When the first change came that is not yet carried out; `None`: all are. Before the first sync the proxy is behind.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    waiting_since: Arc<Mutex<Option<Instant>>>,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self { waiting_since: Arc::new(Mutex::new(Some(Instant::now()))) }
    }

    pub(crate) fn changed(&self) {
        self.waiting_since.lock().get_or_insert_with(Instant::now);
    }

    pub(crate) fn synced(&self) {
        *self.waiting_since.lock() = None;
    }

    fn is_healthy(&self) -> bool {
        self.waiting_since.lock().is_none_or(|since| since.elapsed() < BEHIND_MAX)
    }
}

/// Starts answering. Fails at once if the address cannot be had.
pub(crate) async fn serve(
    address: SocketAddr,
    health: Health,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let health = health.clone();
                    tokio::spawn(tokio::time::timeout(CLIENT_TIMEOUT, async move {
                        if let Err(error) = answer(stream, &health).await {
                            tracing::debug!(%error, "health check broke off");
                        }
                    }));
                }
                // Out of descriptors, most likely: give others time to close some.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
    Ok(())
}

async fn answer(mut stream: TcpStream, health: &Health) -> std::io::Result<()> {
    let mut request = Vec::with_capacity(1024);
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < 16 * 1024 {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let line = String::from_utf8_lossy(&request);
    let path = line.split_whitespace().nth(1).unwrap_or_default();
    let (status, body) = match (path.split('?').next(), health.is_healthy()) {
        (Some("/healthz" | "/livez" | "/readyz"), true) => ("200 OK", "ok"),
        (Some("/healthz" | "/livez" | "/readyz"), false) => {
            ("503 Service Unavailable", "rules are behind the services")
        }
        _ => ("404 Not Found", "not found"),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    stream.shutdown().await
}
