//! Asking others over HTTPS, over connections that are kept for a while. The caller limits the time.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Uri;
use http::header::{ACCEPT, CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::RwLock;
use serde_json::Value;

use super::JSON;
use crate::tls;

/// More than this no answer needs: the largest object, in base64, and then some.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a connection is kept that nobody uses, and how many of them.
const IDLE_MAX: Duration = Duration::from_secs(60);
const IDLE_CONNECTIONS_MAX: usize = 16;

type HttpsClient = Client<HttpsConnector<HttpConnector<Via>>, Full<Bytes>>;

/// The connections to one other side. They end with it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    authority_pem: Vec<u8>,
    via: Via,
    client: OnceLock<Result<HttpsClient, String>>,
}

impl Outgoing {
    /// To whom the authority vouches for, PEM; where that is empty, those whom the machine trusts.
    pub fn new(authority_pem: Vec<u8>) -> Self {
        Self { authority_pem, via: Via::default(), client: OnceLock::new() }
    }

    /// Posts a document, or gets one without; the error tells why there is no answer. `host` is connected to instead of
    /// the URL's, whose name the certificate has to bear all the same.
    pub async fn exchange(
        &self,
        url: &str,
        host: Option<String>,
        document: Option<&Value>,
    ) -> Result<Value, String> {
        let uri = https(url)?;
        *self.via.0.write() = host;
        let body = document.map(|document| Bytes::from(document.to_string())).unwrap_or_default();
        let request = http::Request::builder()
            .method(if document.is_some() { "POST" } else { "GET" })
            .uri(uri)
            .header(CONTENT_TYPE, JSON)
            .header(ACCEPT, JSON)
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let client = self.client.get_or_init(|| self.client()).as_ref().map_err(String::clone)?;
        let response = client.request(request).await.map_err(|error| innermost(&error))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = body.map_err(|error| error.to_string())?.to_bytes();
        if !code.is_success() {
            return Err(format!("the server answered {code}"));
        }
        serde_json::from_slice(&bytes).map_err(|error| format!("the answer is no JSON: {error}"))
    }

    fn client(&self) -> Result<HttpsClient, String> {
        let config = tls::outgoing_config(&self.authority_pem).map_err(|error| error.to_string())?;
        let mut connector = HttpConnector::new_with_resolver(self.via.clone());
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_only()
            .enable_http1()
            .wrap_connector(connector);
        Ok(Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector))
    }
}

/// A URL that can be asked; the error tells what it should look like.
pub(crate) fn https(url: &str) -> Result<Uri, String> {
    let uri: Option<Uri> = url.parse().ok();
    let uri = uri.filter(|uri| uri.scheme_str() == Some("https") && uri.host().is_some());
    uri.ok_or_else(|| format!("{url:?} is not a URL of the form https://host[:port]/path"))
}

/// The cause of an error: what is around it says no more than that there was one.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

/// Where names lead: to the one host, if there is one, or else where the machine's resolver says.
#[derive(Clone, Debug, Default)]
struct Via(Arc<RwLock<Option<String>>>);

impl tower::Service<Name> for Via {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let host = self.0.read().clone().unwrap_or_else(|| name.to_string());
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(found.into_iter())
        })
    }
}
