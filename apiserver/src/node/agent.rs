//! Connections to the nodes' agents, and to pods and services.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use api::field::Look;
use api::{ApiError, Reason};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::Config;
use crate::objects::Objects;
use crate::tls::{self, TlsError};

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// The longest document that an agent is believed.
const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The agent's port when the node does not say.
const AGENT_PORT: u16 = 10250;

/// Dials agents with the API server's own certificate.
#[derive(Clone)]
pub(crate) struct AgentClient {
    tls: Arc<rustls::ClientConfig>,
    workload_tls: Arc<rustls::ClientConfig>,
}

/// A connection to something that serves HTTP/1.1.
pub(crate) enum Upstream {
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
}

/// Where an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentAddress {
    pub host: String,
    pub port: u16,
}

impl AgentAddress {
    /// Where a node's agent listens, by the node's status.
    pub fn of(objects: &Objects, node: &str) -> Result<Self, ApiError> {
        let object =
            objects.get("core/nodes", "", node).ok_or_else(|| ApiError::not_found("", "nodes", node))?;
        Self::of_node(&object).ok_or_else(|| {
            ApiError::new(
                Reason::ServiceUnavailable,
                format!("no preferred addresses found; node {node:?} has none"),
            )
        })
    }

    fn of_node(node: &Value) -> Option<Self> {
        let status = node.get("status")?;
        let by_type = |wanted: &str| {
            status.items("addresses").iter().find(|a| a.text("type") == wanted).map(|a| a.text("address"))
        };
        let host = ["InternalIP", "Hostname", "ExternalIP"].iter().find_map(|t| by_type(t))?.to_string();
        let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
        let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0).unwrap_or(AGENT_PORT);
        Some(Self { host, port })
    }

    /// `10.0.0.1:10250`, as a Host header has it.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl AgentClient {
    /// With the identity of the configuration.
    pub fn new(config: &Config) -> Result<Self, TlsError> {
        let agents = tls::agent_config(&config.agent_client, &config.agent_ca_pem)?;
        Ok(Self { tls: Arc::new(agents), workload_tls: Arc::new(tls::credulous_config()?) })
    }

    /// Connects to an agent.
    pub async fn dial_agent(&self, address: &AgentAddress) -> Result<Upstream, ApiError> {
        Self::dial_tls(&self.tls, address).await
    }

    async fn dial_tls(
        config: &Arc<rustls::ClientConfig>,
        address: &AgentAddress,
    ) -> Result<Upstream, ApiError> {
        let stream = dial(&address.host, address.port).await?;
        let name = ServerName::try_from(address.host.clone())
            .map_err(|e| ApiError::internal(format!("{} is no host name: {e}", address.host)))?;
        let handshake = TlsConnector::from(config.clone()).connect(name, stream);
        match tokio::time::timeout(CONNECT_MAX, handshake).await {
            Ok(Ok(stream)) => Ok(Upstream::Tls(Box::new(stream))),
            Ok(Err(error)) => Err(unreachable(&address.authority(), &error.to_string())),
            Err(_) => Err(unreachable(&address.authority(), "the TLS handshake takes too long")),
        }
    }

    /// Asks an agent for a JSON document.
    pub async fn get_json(&self, address: &AgentAddress, path: &str) -> Result<Value, ApiError> {
        let stream = self.dial_agent(address).await?;
        let broken = |error: hyper::Error| unreachable(&address.authority(), &error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let request = http::Request::get(path)
            .header(http::header::HOST, address.authority())
            .body(Empty::<bytes::Bytes>::new())
            .map_err(|e| ApiError::internal(e.to_string()))?;
        let answered = tokio::time::timeout(CONNECT_MAX, sender.send_request(request)).await;
        let mute = |_| unreachable(&address.authority(), "it does not answer: i/o timeout");
        let response = answered.map_err(mute)?.map_err(broken)?;
        let code = response.status();
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await;
        connection.abort();
        let bytes = body.map_err(|error| unreachable(&address.authority(), &error.to_string()))?.to_bytes();
        if !code.is_success() {
            return Err(unreachable(&address.authority(), &format!("{path} answers {code}")));
        }
        serde_json::from_slice(&bytes).map_err(|e| ApiError::internal(format!("{path} of an agent: {e}")))
    }

    /// Connects to a pod or an endpoint of a service. With TLS it is believed whatever certificate it shows, as upstream:
    /// nobody says which would be right.
    pub async fn dial_workload(&self, address: &AgentAddress, tls: bool) -> Result<Upstream, ApiError> {
        if tls {
            return Self::dial_tls(&self.workload_tls, address).await;
        }
        Ok(Upstream::Plain(dial(&address.host, address.port).await?))
    }
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, ApiError> {
    let stream = match tokio::time::timeout(CONNECT_MAX, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(&format!("{host}:{port}"), &error.to_string())),
        Err(_) => return Err(unreachable(&format!("{host}:{port}"), "i/o timeout")),
    };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    Ok(stream)
}

fn unreachable(address: &str, why: &str) -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, format!("error dialing backend: dial tcp {address}: {why}"))
}

impl AsyncRead for Upstream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_agent_should_be_where_its_node_says() {
        let node = json!({"status": {
            "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.2"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10255}}}});
        assert_eq!(AgentAddress::of_node(&node).unwrap().authority(), "10.0.0.2:10255");
        assert_eq!(AgentAddress::of_node(&json!({"status": {}})), None);
    }
}
