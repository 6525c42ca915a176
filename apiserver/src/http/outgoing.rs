//! Asking others over HTTPS: one request on a connection of its own. The caller limits the time.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::JSON;
use crate::tls;

/// More than this no answer needs: the largest object, in base64, and then some.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where a request goes.
pub(crate) struct Destination {
    /// What the certificate has to say.
    pub name: String,
    /// What is connected to.
    pub host: String,
    pub port: u16,
    /// With the query.
    pub path: String,
    /// Who vouches for it, PEM; empty for those whom the machine trusts.
    pub authority_pem: Vec<u8>,
}

impl Destination {
    /// The destination of `https://host[:port]/path`; `None` when it is no such URL.
    pub fn of_url(url: &str, authority_pem: &[u8]) -> Option<Self> {
        let parsed: http::Uri = url.parse().ok()?;
        let host = parsed.host().filter(|_| parsed.scheme_str() == Some("https"))?;
        let host = host.trim_matches(['[', ']']).to_string();
        Some(Self {
            name: host.clone(),
            host,
            port: parsed.port_u16().unwrap_or(443),
            path: parsed.path_and_query().map_or("/", |path| path.as_str()).to_string(),
            authority_pem: authority_pem.to_vec(),
        })
    }
}

/// Posts a document, or gets one without; the error tells why there is no answer.
pub(crate) async fn exchange(to: &Destination, document: Option<&Value>) -> Result<Value, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let config = tls::outgoing_config(&to.authority_pem).map_err(|error| said(&error))?;
    let stream = TcpStream::connect((to.host.as_str(), to.port)).await.map_err(|error| said(&error))?;
    let name = ServerName::try_from(to.name.clone()).map_err(|error| said(&error))?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.map_err(|error| said(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| said(&error))?;
    let driving = tokio::spawn(connection);
    let body = document.map(|document| Bytes::from(document.to_string())).unwrap_or_default();
    let request = http::Request::builder()
        .method(if document.is_some() { "POST" } else { "GET" })
        .uri(to.path.as_str())
        .header(HOST, format!("{}:{}", to.name, to.port))
        .header(CONTENT_TYPE, JSON)
        .header(ACCEPT, JSON)
        .body(Full::new(body))
        .map_err(|error| said(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| said(&error))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = body.map_err(|error| said(&error))?.to_bytes();
        if !code.is_success() {
            return Err(format!("the server answered {code}"));
        }
        serde_json::from_slice(&bytes).map_err(|error| format!("the answer is no JSON: {error}"))
    }
    .await;
    driving.abort();
    answer
}
