//! The server: built over a store, called in process or over TLS, drained when told to stop.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use api::ResourceTable;
use http::HeaderValue;
use http::header::USER_AGENT;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::RwLock;
use store::{Store, StoreError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{Audit, PeerAddress};
use crate::auth::{PeerCertificates, UserInfo};
use crate::cache::Cache;
use crate::config::{Config, Identity};
use crate::flow::Flow;
use crate::http::{Request, Response};
use crate::idle::Activity;
use crate::node::AgentClient;
use crate::objects::Objects;
use crate::pipeline::Core;
use crate::quota::Quotas;
use crate::tls::{self, ServingCertificate, TlsError};

/// So many connections at once; more are closed as they come. Each takes some tens of kilobytes.
const CONNECTIONS_MAX: usize = 8192;
/// So many requests at once on one connection, as upstream.
const STREAMS_MAX: u32 = 250;
/// What is written ahead of a client that does not read, per request; and what the head of a request may take.
const BUFFER_BYTES: usize = 64 * 1024;

/// Why a server cannot be built or run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store cannot be read, or the first objects cannot be written.
    #[error("the store cannot be used: {0}")]
    Store(#[from] StoreError),
    /// The listener cannot be bound: the port is in use, or the address is not this machine's.
    #[error("cannot listen on {address}: {why}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// The system's words, and what to do.
        why: String,
    },
    /// Something the server needs to begin with cannot be made.
    #[error("{0}")]
    Setup(String),
}

/// An API server.
#[derive(Clone)]
pub struct Server {
    core: Arc<Core>,
    serving: Arc<ServingCertificate>,
    /// Ends what runs beside the listener.
    background: CancellationToken,
}

impl Server {
    /// Reads the store into the cache and makes what a new cluster starts with.
    pub async fn build(config: Config, store: Arc<dyn Store>) -> Result<Self, ServerError> {
        let serving = ServingCertificate::new(&config.serving)?;
        let agents = AgentClient::new(&config)?;
        let table = Arc::new(RwLock::new(Arc::new(ResourceTable::built_in())));
        let background = CancellationToken::new();
        let current = table.clone();
        let row_of = move |name: &str| {
            let (group, plural) = name.split_once('/')?;
            let group = if group == "core" { "" } else { group };
            current.read().group_resource(group, plural).cloned()
        };
        let cache = Cache::start(store.clone(), Box::new(row_of), background.clone()).await?;
        let objects = Objects::new(cache.clone(), store.clone());
        let parts = crate::plugins::Plugins::new(&config, &objects, &table).map_err(ServerError::Setup)?;
        let core = Arc::new(Core {
            authenticators: parts.authenticators,
            authorizers: parts.authorizers,
            admission: parts.admission,
            reviewers: parts.reviewers,
            tokens: parts.tokens,
            policy_checks: parts.policy_checks,
            store,
            cache,
            quotas: Quotas::new(objects.clone()),
            flow: Flow::new(objects.clone()),
            objects,
            table,
            audit: Audit::new(config.security.audit.as_ref()).map_err(ServerError::Setup)?,
            metrics: Default::default(),
            openapi: Default::default(),
            summaries: Default::default(),
            agents,
            stopping: CancellationToken::new(),
            config,
        });
        crate::bootstrap::ensure(&core).await?;
        crate::custom::refresh(&core);
        tokio::spawn(crate::custom::follow(core.clone(), background.clone()));
        tokio::spawn(crate::service::follow(core.clone(), background.clone()));
        tokio::spawn(crate::bootstrap::keep(core.clone(), background.clone()));
        tokio::spawn(crate::flow::keep(core.clone(), background.clone()));
        Ok(Self { core, serving, background })
    }

    /// A client in this process that acts as `user`. The same authorization applies as over the network.
    pub fn client(&self, user: UserInfo) -> kube::Client {
        kube::Client::new(InProcess { core: self.core.clone(), user }, "default")
    }

    /// Reads objects without a request; for parts that run in the server itself.
    pub fn objects(&self) -> Objects {
        self.core.objects.clone()
    }

    /// New connections are served with this certificate.
    pub fn replace_certificate(&self, identity: &Identity) -> Result<(), ServerError> {
        Ok(self.serving.replace(identity)?)
    }

    /// Serves the network until told to stop, then lets requests in flight end.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), ServerError> {
        let listener = self.bind().await?;
        self.serve(listener, shutdown).await
    }

    /// Binds the listener, so that a port in use is known before anything else is started.
    pub async fn bind(&self) -> Result<TcpListener, ServerError> {
        let address = self.core.config.bind_address;
        TcpListener::bind(address).await.map_err(|error| {
            let hint = match error.kind() {
                std::io::ErrorKind::AddrInUse => {
                    "; another process listens there: stop it, or choose another --secure-port"
                }
                std::io::ErrorKind::AddrNotAvailable => "; the address is not one of this machine's",
                _ => "",
            };
            ServerError::Bind { address, why: format!("{error}{hint}") }
        })
    }

    /// Serves a listener that [`Self::bind`] has bound.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServerError> {
        let config = tls::server_config(self.serving.clone(), &self.core.config.client_ca_pem)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let connections = TaskTracker::new();
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let (stream, peer) = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of file descriptors, most likely: those in use have to be closed first.
                        tracing::warn!(%error, "a connection was not accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                tracing::warn!(%peer, "a connection was refused: there are too many");
                continue;
            };
            let serving = self.clone().connection(stream, peer, acceptor.clone());
            connections.spawn(async move {
                serving.await;
                drop(place);
            });
        }
        drop(listener);
        self.core.stopping.cancel();
        let drain = Duration::from_secs(self.core.config.drain_seconds);
        connections.close();
        if tokio::time::timeout(drain, connections.wait()).await.is_err() {
            tracing::info!("connections that did not end in time are cut");
        }
        self.core.audit.flush().await;
        self.background.cancel();
        Ok(())
    }

    async fn connection(self, stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor) {
        let patience = self.core.config.security.patience;
        if let Err(error) = set_options(&stream, patience.stalled) {
            tracing::debug!(%error, %peer, "the options of a connection");
        }
        let handshake = tokio::time::timeout(patience.handshake, acceptor.accept(stream)).await;
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, %peer, "TLS handshake failed");
                return;
            }
            Err(_) => return,
        };
        let certificates = stream
            .get_ref()
            .1
            .peer_certificates()
            .map(|list| PeerCertificates::new(list.iter().map(|c| c.clone().into_owned()).collect()));
        let core = self.core.clone();
        let activity = Activity::new();
        let seen = activity.clone();
        let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(PeerAddress(peer));
            if let Some(certificates) = &certificates {
                request.extensions_mut().insert(certificates.clone());
            }
            let (core, busy) = (core.clone(), seen.begin());
            let request: Request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            async move {
                // On the heap, where it ends with the answer's beginning: what follows may go on for hours.
                let answer: Pin<Box<dyn Future<Output = Response> + Send>> = Box::pin(core.serve(request));
                Ok::<Response, Infallible>(busy.until_end_of(answer.await))
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(patience.head)
            .max_buf_size(BUFFER_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_send_buf_size(BUFFER_BYTES)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.core.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = activity.untaken_for(patience.stalled) => {
                tracing::debug!(%peer, "a client does not read what it has asked for");
                return;
            }
            () = activity.unused_for(patience.head) => {
                connection.as_mut().graceful_shutdown();
                // A request may have come just now. Who has not even begun to speak is not waited for.
                drop(activity.begin());
                tokio::select! {
                    ended = connection => ended,
                    () = activity.unused_for(patience.handshake) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %peer, "connection ended");
        }
    }
}

/// Small answers go out at once; who is gone, or does not read what it asked for, is let go.
fn set_options(stream: &TcpStream, stalled: Duration) -> nix::Result<()> {
    let seconds = u32::try_from(stalled.as_secs()).unwrap_or(u32::MAX).max(1);
    setsockopt(stream, sockopt::TcpNoDelay, &true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &30)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &10)?;
    setsockopt(stream, sockopt::TcpKeepCount, &3)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &seconds.saturating_mul(1000))
}

/// The name under which the parts of a cluster write, which is whom managed fields name.
fn agent(user: &str) -> Option<&'static str> {
    match user {
        "system:kube-scheduler" => Some("kube-scheduler"),
        "system:kube-controller-manager" => Some("kube-controller-manager"),
        _ if user.starts_with("system:node:") => Some("kubelet"),
        _ => None,
    }
}

/// The pipeline as a tower service, for one user.
struct InProcess {
    core: Arc<Core>,
    user: UserInfo,
}

impl tower::Service<http::Request<kube::client::Body>> for InProcess {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<kube::client::Body>) -> Self::Future {
        let mut request: Request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        request.extensions_mut().insert(self.user.clone());
        if let Some(agent) = agent(&self.user.name) {
            request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(agent));
        }
        let core = self.core.clone();
        Box::pin(async move { Ok(core.serve(request).await) })
    }
}
