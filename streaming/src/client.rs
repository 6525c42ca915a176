//! The client's side of SPDY: asking a streaming server for the upgrade.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    proxy::{self, ProxyError},
    spdy::{Connection, Side},
    upgrade::{SPDY, STREAM_PROTOCOL},
};

/// How much of a refusal is read to tell why.
const REFUSAL_BYTES_MAX: usize = 4096;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server could not be reached or does not speak HTTP.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The server answered with something other than an upgrade.
    #[error("the streaming server answered {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The beginning of the answer.
        message: String,
    },
}

/// Dials a plain-HTTP streaming server by its URL and upgrades to SPDY.
pub async fn connect(url: &Uri, protocols: &[&'static str]) -> Result<Connection, ClientError> {
    connect_over(proxy::dial(url).await?, url, protocols).await
}

/// Upgrades a transport to SPDY, offering the session protocols named.
pub async fn connect_over<T>(
    transport: T,
    url: &Uri,
    protocols: &[&'static str],
) -> Result<Connection, ClientError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let http = |error: hyper::Error| ClientError::Proxy(ProxyError::Http(error));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(transport)).await.map_err(http)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to the streaming server ended");
        }
    });
    let request = upgrade_request(url, protocols).map_err(|error| ClientError::Proxy(error.into()))?;
    let mut response = sender.send_request(request).await.map_err(http)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        return Err(ClientError::Refused {
            status,
            message: String::from_utf8_lossy(&body).trim().to_owned(),
        });
    }
    let upgraded = hyper::upgrade::on(&mut response).await.map_err(http)?;
    Ok(Connection::start(TokioIo::new(upgraded), Side::Client))
}

fn upgrade_request(url: &Uri, protocols: &[&'static str]) -> Result<Request<Empty<Bytes>>, http::Error> {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, url.authority().map_or("localhost", |authority| authority.as_str()))
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, SPDY)
        .body(Empty::new())?;
    for protocol in protocols {
        request.headers_mut().append(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok(request)
}
