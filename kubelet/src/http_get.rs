//! One HTTP request, as probes and hooks make it: a connection of its own, no redirects followed, certificates not
//! verified (as upstream: the kubelet does not know what pods call themselves).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// As much of an answer as is read.
const BODY_BYTES_MAX: usize = 10 << 10;

/// What was answered.
pub struct Answer {
    /// The status code.
    pub code: u16,
}

/// A port by number, or by the name that the container gives it.
pub fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    let number = number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
    number.ok_or_else(|| format!("couldn't find port: {port:?}"))
}

/// Makes the request; an error says why there was no answer.
pub async fn get(
    container: &Container,
    action: &HTTPGetAction,
    pod_ip: &str,
    limit: Duration,
) -> Result<Answer, String> {
    let number = port(container, &action.port)?;
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let path = action.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
    let shown_host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
    let url = format!("{scheme}://{shown_host}:{number}{path}");
    let asking = ask(action, host, number, &path, scheme == "https");
    match tokio::time::timeout(limit, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("Get \"{url}\": {error}")),
        Err(_) => Err(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

async fn ask(action: &HTTPGetAction, host: &str, port: u16, path: &str, tls: bool) -> Result<Answer, String> {
    let stream = connect(host, port).await?;
    if !tls {
        return exchange(TokioIo::new(stream), action, host, port, path).await;
    }
    let connector = tokio_rustls::TlsConnector::from(Arc::new(unverified()?));
    let name = ServerName::try_from(host.to_string()).map_err(|error| error.to_string())?;
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    exchange(TokioIo::new(stream), action, host, port, path).await
}

/// Opens a connection to a name or an address.
pub async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let address: Result<std::net::IpAddr, _> = host.parse();
    let connected = match address {
        Ok(address) => TcpStream::connect(SocketAddr::new(address, port)).await,
        Err(_) => TcpStream::connect((host, port)).await,
    };
    connected.map_err(|error| {
        let reason = if error.kind() == std::io::ErrorKind::ConnectionRefused {
            "connect: connection refused".to_string()
        } else {
            error.to_string()
        };
        format!("dial tcp {host}:{port}: {reason}")
    })
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: TokioIo<S>,
    action: &HTTPGetAction,
    host: &str,
    port: u16,
    path: &str,
) -> Result<Answer, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let mut request = http::Request::get(path);
    let mut has = std::collections::HashSet::new();
    for header in action.http_headers.iter().flatten() {
        has.insert(header.name.to_lowercase());
        request = request.header(header.name.as_str(), header.value.as_str());
    }
    for (name, value) in [
        ("host", format!("{host}:{port}")),
        ("user-agent", "kube-probe/1.36".to_string()),
        ("accept", "*/*".to_string()),
        ("connection", "close".to_string()),
    ] {
        if !has.contains(name) {
            request = request.header(name, value);
        }
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let reply = sender.send_request(request).await.map_err(|error| error.to_string());
    let answer = match reply {
        Ok(reply) => {
            let code = reply.status().as_u16();
            // The server may finish its answer; one that is too long or breaks off does not change what the code said.
            drop(Limited::new(reply.into_body(), BODY_BYTES_MAX).collect().await);
            Ok(Answer { code })
        }
        Err(error) => Err(error),
    };
    driver.abort();
    answer
}

fn unverified() -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    Ok(config)
}

#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn serve_once(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let n = stream.read(&mut head).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&head[..n]).into_owned()
        });
        (port, task)
    }

    fn action(port: IntOrString, headers: serde_json::Value) -> HTTPGetAction {
        let mut action: HTTPGetAction = serde_json::from_value(
            serde_json::json!({"path": "health?x=1", "port": 1, "httpHeaders": headers}),
        )
        .unwrap();
        action.port = port;
        action
    }

    #[tokio::test]
    async fn a_request_carries_the_probes_headers_and_tells_the_code() {
        let (port, served) = serve_once("HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno").await;
        let container: Container = serde_json::from_value(
            serde_json::json!({"name": "a", "ports": [{"name": "web", "containerPort": port}]}),
        )
        .unwrap();
        let action = action(
            IntOrString::String("web".into()),
            serde_json::json!([{"name": "Host", "value": "me.example"}]),
        );
        let answer = get(&container, &action, "127.0.0.1", Duration::from_secs(5)).await.unwrap();
        assert_eq!(answer.code, 503);
        let head = served.await.unwrap();
        assert!(head.starts_with("GET /health?x=1 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("host: me.example\r\n") && head.contains("user-agent: kube-probe/"), "{head}");
    }

    #[tokio::test]
    async fn nobody_there_and_nobody_answering_are_told_apart() {
        let container = Container::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = i32::from(listener.local_addr().unwrap().port());
        let silent = action(IntOrString::Int(port), serde_json::json!([]));
        let error = get(&container, &silent, "127.0.0.1", Duration::from_millis(100)).await.err().unwrap();
        assert!(error.contains("context deadline exceeded"), "{error}");
        drop(listener);
        let error = get(&container, &silent, "127.0.0.1", Duration::from_secs(5)).await.err().unwrap();
        assert!(error.ends_with("connect: connection refused"), "{error}");
    }
}
