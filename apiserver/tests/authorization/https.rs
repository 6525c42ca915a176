//! A small HTTPS server, as a webhook or an identity provider would be.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pki::{Authority, Leaf, Usage};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

pub type Answer = Pin<Box<dyn Future<Output = (u16, String)> + Send>>;
type Handler = Arc<dyn Fn(String, Value) -> Answer + Send + Sync>;

pub struct HttpsServer {
    pub address: SocketAddr,
    /// How many connections there have been.
    pub connections: Arc<AtomicUsize>,
    /// Path and body of every request.
    pub seen: Arc<Mutex<Vec<(String, Value)>>>,
    _stop: DropGuard,
}

impl HttpsServer {
    /// One that stops when it is dropped. Its certificate is for `localhost`, 127.0.0.1 and one more name.
    pub async fn start(
        authority: &Authority,
        name: &str,
        handler: impl Fn(String, Value) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, authority, name, handler).await
    }

    /// One at an address of this machine.
    pub async fn start_at(
        address: Ipv4Addr,
        authority: &Authority,
        name: &str,
        handler: impl Fn(String, Value) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let leaf = Leaf {
            common_name: "hook".to_string(),
            organization: None,
            dns_names: vec!["localhost".to_string(), name.to_string()],
            addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            usage: Usage::Server,
            lifetime: Duration::from_secs(3600),
        };
        let pair = authority.issue(&leaf, jiff::Timestamp::now()).unwrap();
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(pair.certificate_pem.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (handler, noted): (Handler, _) = (Arc::new(handler), seen.clone());
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(stopped.run_until_cancelled_owned(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(acceptor.clone(), stream, handler.clone(), noted.clone()));
            }
        }));
        Self { address, connections, seen, _stop: stop.drop_guard() }
    }

    /// How often a path was asked for.
    pub fn count(&self, path: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|(seen, _)| seen == path).count()
    }

    /// The last body that a path got.
    pub fn last(&self, path: &str) -> Value {
        let seen = self.seen.lock().unwrap();
        seen.iter().rev().find(|(seen, _)| seen == path).unwrap().1.clone()
    }
}

async fn serve(
    acceptor: TlsAcceptor,
    stream: tokio::net::TcpStream,
    handler: Handler,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
) {
    // A client that does not trust the certificate leaves.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let (handler, seen) = (handler.clone(), seen.clone());
        async move {
            let path = request.uri().path().to_string();
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            seen.lock().unwrap().push((path.clone(), body.clone()));
            let (code, text) = handler(path, body).await;
            let response = http::Response::builder().status(code).header("content-type", "application/json");
            Ok::<_, Infallible>(response.body(Full::new(bytes::Bytes::from(text))).unwrap())
        }
    });
    // Clients come and go as they like.
    let _ended =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
