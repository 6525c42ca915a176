//! Passing an upgrade through to the next server.
//!
//! Guarantees: nothing is buffered beyond one chunk per direction; the end of one direction travels on its own
//! (half-close), and the other goes on; an answer that is not an upgrade comes back with its status, headers and body.

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::upgrade::UpgradeBody;

const CHUNK_BYTES: usize = 32 * 1024;

/// Why an upgrade did not reach the backend. The caller answers 502 or its own kind of error; nothing was sent to the
/// client yet.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The backend's address does not parse or has no host.
    #[error("no usable backend address in {0}")]
    Address(Uri),
    /// The backend does not take the connection.
    #[error("connecting to {0}: {1}")]
    Connect(String, std::io::Error),
    /// The backend does not speak HTTP, or went away.
    #[error("asking the backend for the upgrade: {0}")]
    Http(#[from] hyper::Error),
    /// The request cannot be expressed for the backend.
    #[error("building the backend request: {0}")]
    Request(#[from] http::Error),
}

/// Sends an upgrade request to a backend over `transport` and, when the backend agrees, copies both ways until both
/// directions have ended. `request` carries the URI that the backend is to see (its path and query are sent, and its
/// host if it has one) and the headers of the client; remove what must not travel (credentials) before. Return the
/// response to the client as it is.
pub async fn proxy_upgrade<B, T>(
    mut request: Request<B>,
    transport: T,
) -> Result<Response<UpgradeBody>, ProxyError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let from_client = hyper::upgrade::on(&mut request);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(transport)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to the streaming backend ended");
        }
    });
    let mut response = sender.send_request(backend_request(request)?).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let to_backend = hyper::upgrade::on(&mut response);
        tokio::spawn(copy_both_ways(from_client, to_backend));
    }
    Ok(response.map(BodyExt::boxed_unsync))
}

/// Like [`proxy_upgrade`], to a plain-HTTP backend that is dialled by its URL (the streaming server of a runtime).
pub async fn proxy_to<B>(
    mut request: Request<B>,
    backend: &Uri,
) -> Result<Response<UpgradeBody>, ProxyError> {
    let transport = dial(backend).await?;
    *request.uri_mut() = backend.clone();
    proxy_upgrade(request, transport).await
}

/// Connects to the host and port of a URL.
pub(crate) async fn dial(backend: &Uri) -> Result<TcpStream, ProxyError> {
    let host = backend.host().ok_or_else(|| ProxyError::Address(backend.clone()))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = backend.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|error| ProxyError::Connect(format!("{host}:{port}"), error))?;
    // Keystrokes are small packets that must not wait for company.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    Ok(stream)
}

fn backend_request<B>(request: Request<B>) -> Result<Request<Empty<Bytes>>, http::Error> {
    let (parts, _) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let mut outgoing = Request::builder().method(parts.method).uri(path).body(Empty::new())?;
    *outgoing.headers_mut() = parts.headers;
    // Upgrade requests have no body; a length left over from the client would make the backend wait for one.
    outgoing.headers_mut().remove(header::CONTENT_LENGTH);
    outgoing.headers_mut().remove(header::TRANSFER_ENCODING);
    if let Some(authority) = parts.uri.authority() {
        outgoing.headers_mut().insert(header::HOST, authority.as_str().try_into()?);
    }
    Ok(outgoing)
}

async fn copy_both_ways(client: OnUpgrade, backend: OnUpgrade) {
    let (client, backend) = match tokio::try_join!(client, backend) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "upgrade not completed");
            return;
        }
    };
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    let copied =
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut backend, CHUNK_BYTES, CHUNK_BYTES).await;
    match copied {
        Ok((sent, received)) => tracing::trace!(sent, received, "stream ended"),
        Err(error) => tracing::debug!(%error, "stream broke off"),
    }
}
