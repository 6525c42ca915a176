//! The agent API's listener: TLS, and one task per connection.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::access::{Access, Caller};
use super::{routes, tls};
use crate::Error;
use crate::agent_state::Agent;
use crate::config::Config;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// Between two requests of one connection as well: longer than clients keep idle connections, so that none is reused just
/// as it is closed here.
const HEADERS: Duration = Duration::from_secs(120);
/// After a failed accept (no file descriptors left), before the next.
const BREATH: Duration = Duration::from_millis(100);

/// A bound listener.
pub struct Listener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    port: u16,
}

impl Listener {
    /// Binds the configured address.
    pub async fn bind(config: &Config) -> Result<Self, Error> {
        let address = config.serving.address;
        let tls = tls::server_config(config.serving.certificate.clone(), &config.serving.client_ca_pem)?;
        let listener =
            TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
        let bound = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
        Ok(Self { listener, acceptor: TlsAcceptor::from(Arc::new(tls)), port: bound.port() })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Serves until shutdown; streams end with it.
    pub async fn serve(self, agent: Arc<Agent>, shutdown: CancellationToken) {
        let router = routes::router(agent.clone(), Arc::new(Access::new(agent)));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let serving = serve_one(stream, self.acceptor.clone(), router.clone());
                    let shutdown = shutdown.clone();
                    tokio::spawn(async move { shutdown.run_until_cancelled(serving).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "the agent API cannot accept a connection");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }
}

async fn serve_one(stream: TcpStream, acceptor: TlsAcceptor, router: Router) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake with the agent API failed");
            return;
        }
        Err(_) => return,
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let caller = certificate.and_then(|certificate| Caller::of_certificate(certificate));
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        if let Some(caller) = &caller {
            request.extensions_mut().insert(caller.clone());
        }
        router.clone().call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the agent API ended");
    }
}
