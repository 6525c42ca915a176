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

/// With changes waiting for longer than this the proxy counts as unhealthy.
const BEHIND_MAX: Duration = Duration::from_secs(60);
const BIND_AGAIN_AFTER: Duration = Duration::from_secs(30);
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

/// Answers until `shutdown`. An address that cannot be had is tried again: the services matter more than this.
pub(crate) async fn serve(address: SocketAddr, health: Health, shutdown: CancellationToken) {
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => tracing::warn!(%address, %error, "cannot listen for health checks; trying again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(BIND_AGAIN_AFTER) => {}
        }
    };
    let look = move |path: &str| {
        let healthy = health.is_healthy();
        let body = if healthy { "ok" } else { "rules are behind the services" }.to_owned();
        let known = ["/healthz", "/livez", "/readyz"].contains(&path);
        known.then_some(Answer { healthy, content_type: "text/plain", body })
    };
    accept(listener, shutdown, look).await;
}

/// Answers requests until `shutdown`.
pub(crate) async fn accept(
    listener: TcpListener,
    shutdown: CancellationToken,
    look: impl Fn(&str) -> Option<Answer> + Clone + Send + Sync + 'static,
) {
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let look = look.clone();
                tokio::spawn(tokio::time::timeout(CLIENT_TIMEOUT, async move {
                    if let Err(error) = answer(stream, look).await {
                        tracing::debug!(%error, "health check broke off");
                    }
                }));
            }
            // Out of descriptors, most likely: give others time to close some.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// What is said to a request.
pub(crate) struct Answer {
    pub(crate) healthy: bool,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

/// Reads one request and answers it; `look` gets the path, and says `None` for one that does not exist.
pub(crate) async fn answer(
    mut stream: TcpStream,
    look: impl Fn(&str) -> Option<Answer>,
) -> std::io::Result<()> {
    let mut request = Vec::with_capacity(1024);
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < 16 * 1024 {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let line = String::from_utf8_lossy(&request);
    let path = line.split_whitespace().nth(1).unwrap_or_default();
    let found = look(path.split('?').next().unwrap_or_default());
    let status = match &found {
        Some(Answer { healthy: true, .. }) => "200 OK",
        Some(_) => "503 Service Unavailable",
        None => "404 Not Found",
    };
    let (content_type, body) =
        found.map_or(("text/plain", "not found".to_owned()), |a| (a.content_type, a.body));
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    stream.shutdown().await
}
