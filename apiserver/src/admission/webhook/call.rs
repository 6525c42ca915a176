//! Asking a webhook: one HTTPS request on a connection of its own, within the webhook's time.
//!
//! A service is reached at its cluster address, as upstream; one without (a headless one) cannot be.

use std::sync::Arc;

use api::field::Look;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::hook::{Hook, Place};
use crate::objects::Objects;
use crate::tls;

/// More than this no answer needs: the largest object, in base64, and then some.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where a request goes.
struct Destination {
    /// What the certificate has to say.
    name: String,
    /// What is connected to.
    host: String,
    port: u16,
    path: String,
}

/// Asks; the error tells why there is no answer.
pub(super) async fn ask(objects: &Objects, hook: &Hook, question: &Value) -> Result<Value, String> {
    let destination = destination(objects, &hook.place)?;
    let shown = format!("https://{}:{}{}", destination.name, destination.port, destination.path);
    let seconds = hook.timeout.as_secs();
    let url = format!("{shown}?timeout={seconds}s");
    match tokio::time::timeout(hook.timeout, exchange(hook, &destination, question, seconds)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(why)) => Err(format!("failed to call webhook: Post {url:?}: {why}")),
        Err(_) => Err(format!("failed to call webhook: Post {url:?}: context deadline exceeded")),
    }
}

async fn exchange(hook: &Hook, to: &Destination, question: &Value, seconds: u64) -> Result<Value, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let config = tls::outgoing_config(&hook.authority_pem).map_err(|error| said(&error))?;
    let stream = TcpStream::connect((to.host.as_str(), to.port)).await.map_err(|error| said(&error))?;
    let name = ServerName::try_from(to.name.clone()).map_err(|error| said(&error))?;
    let stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| said(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| said(&error))?;
    let driving = tokio::spawn(connection);
    let request = http::Request::post(format!("{}?timeout={seconds}s", to.path))
        .header(HOST, format!("{}:{}", to.name, to.port))
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .body(Full::new(Bytes::from(question.to_string())))
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

fn destination(objects: &Objects, place: &Place) -> Result<Destination, String> {
    match place {
        Place::Url(url) => {
            let invalid = || {
                format!(
                    "could not get REST client: {url:?} is not a URL of the form https://host[:port]/path"
                )
            };
            let parsed: http::Uri = url.parse().map_err(|_| invalid())?;
            let host = parsed.host().filter(|_| parsed.scheme_str() == Some("https")).ok_or_else(invalid)?;
            Ok(Destination {
                name: host.trim_matches(['[', ']']).to_string(),
                host: host.trim_matches(['[', ']']).to_string(),
                port: parsed.port_u16().unwrap_or(443),
                path: parsed.path().to_string(),
            })
        }
        Place::Service { namespace, name, port, path } => {
            let service = objects
                .get("core/services", namespace, name)
                .ok_or_else(|| format!("failed to call webhook: service {name:?} not found"))?;
            let spec = service.get("spec").unwrap_or(&Value::Null);
            let host = match (spec.text("type"), spec.text("clusterIP")) {
                ("ExternalName", _) => spec.text("externalName"),
                (_, "" | "None") => {
                    return Err(format!(
                        "failed to call webhook: cannot route to service {name:?} without a cluster IP"
                    ));
                }
                (_, address) => {
                    if !spec.items("ports").iter().any(|known| known.int("port") == Some(i64::from(*port))) {
                        return Err(format!(
                            "failed to call webhook: no service port {port} found for service {name:?}"
                        ));
                    }
                    address
                }
            };
            let path = if path.is_empty() { "/" } else { path };
            Ok(Destination {
                name: format!("{name}.{namespace}.svc"),
                host: host.to_string(),
                port: *port,
                path: path.to_string(),
            })
        }
    }
}
