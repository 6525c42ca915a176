//! The agent API's listener: TLS, and one task per connection.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::tls;
use crate::Error;
use crate::agent_state::Agent;
use crate::config::Config;

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

    /// Serves until shutdown.
    pub async fn serve(self, agent: Arc<Agent>, shutdown: CancellationToken) {
        let router: Router = Router::new().route("/healthz", get(|| async { "ok" }));
        let _ = agent;
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            let Ok((stream, _)) = accepted else { continue };
            let (acceptor, router) = (self.acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = TowerToHyperService::new(router);
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to the agent API ended");
                }
            });
        }
    }
}
