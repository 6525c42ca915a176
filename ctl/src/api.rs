//! Requests as plain JSON trees: what the server says is shown as it is, whatever the kind.

use anyhow::{Context, anyhow};
use futures::{Stream, StreamExt, TryStreamExt};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use tokio_util::codec::{FramedRead, LinesCodec};

/// A refusal by the server, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{}", describe(.status))]
pub struct Refusal {
    /// The `Status` object.
    pub status: Value,
    /// The HTTP status code.
    pub code: u16,
}

fn describe(status: &Value) -> String {
    let message = status.get("message").and_then(Value::as_str).unwrap_or("the server gave no reason");
    match status.get("reason").and_then(Value::as_str) {
        Some("Unauthorized") => format!(
            "error: You must be logged in to the server (Unauthorized): the token or client certificate was refused; it may have expired, or be of another cluster: {message}"
        ),
        Some(reason) if !reason.is_empty() => format!("Error from server ({reason}): {message}"),
        _ => format!("Error from server: {message}"),
    }
}

/// Whether an error is the server's 404 about an object.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.code == 404)
}

/// How a patch is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own, by merge keys.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchKind {
    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// The server's side of the conversation.
#[derive(Clone)]
pub struct Api {
    client: Client,
    server: String,
}

impl Api {
    /// Asks through this client. Where the server is, is for messages.
    pub fn new(client: Client, server: &str) -> Self {
        Self { client, server: server.trim_end_matches('/').to_string() }
    }

    /// The client, for what is not plain JSON.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// GET, as JSON.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.get_as(path, "application/json").await
    }

    /// GET in another form, for example a table.
    pub async fn get_as(&self, path: &str, accept: &str) -> anyhow::Result<Value> {
        let request = Request::builder().method(Method::GET).uri(path).header(ACCEPT, accept);
        self.json(request.body(Body::empty())?).await
    }

    /// GET of text.
    pub async fn get_text(&self, path: &str) -> anyhow::Result<String> {
        let response = self.send(Request::builder().uri(path).body(Body::empty())?).await?;
        let bytes = response.into_body().collect_bytes().await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// POST.
    pub async fn create(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        self.write(Method::POST, path, object).await
    }

    /// PUT.
    pub async fn replace(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        self.write(Method::PUT, path, object).await
    }

    /// DELETE, with its options.
    pub async fn delete(&self, path: &str, options: &Value) -> anyhow::Result<Value> {
        self.write(Method::DELETE, path, options).await
    }

    /// PATCH. The flag says whether the object was created by it.
    pub async fn patch(&self, path: &str, kind: PatchKind, patch: &Value) -> anyhow::Result<(Value, bool)> {
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(path)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, kind.content_type());
        let response = self.send(request.body(Body::from(serde_json::to_vec(patch)?))?).await?;
        let created = response.status() == http::StatusCode::CREATED;
        Ok((read_json(response).await?, created))
    }

    /// The body of a GET as it arrives.
    pub async fn stream(
        &self,
        path: &str,
    ) -> anyhow::Result<impl Stream<Item = std::io::Result<bytes::Bytes>> + Send + use<>> {
        let response = self.send(Request::builder().uri(path).body(Body::empty())?).await?;
        Ok(response.into_body().into_data_stream().map_err(std::io::Error::other))
    }

    /// A watch: one JSON tree per event.
    pub async fn watch(
        &self,
        path: &str,
        accept: &str,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<Value>> + Send + use<>> {
        let request = Request::builder().uri(path).header(ACCEPT, accept).body(Body::empty())?;
        let body = self.send(request).await?.into_body().into_data_stream().map_err(std::io::Error::other);
        let reader = tokio_util::io::StreamReader::new(Box::pin(body));
        let lines = FramedRead::new(reader, LinesCodec::new());
        Ok(lines
            .map(|line| serde_json::from_str(&line?).context("the watch sent something that is not JSON")))
    }

    /// Any request with a body that is streamed.
    pub async fn send_body(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Body,
    ) -> anyhow::Result<Value> {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, content_type);
        self.json(request.body(body)?).await
    }

    async fn write(&self, method: Method, path: &str, object: &Value) -> anyhow::Result<Value> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json");
        self.json(request.body(Body::from(serde_json::to_vec(object)?))?).await
    }

    async fn json(&self, request: Request<Body>) -> anyhow::Result<Value> {
        read_json(self.send(request).await?).await
    }

    async fn send(&self, request: Request<Body>) -> anyhow::Result<Response<Body>> {
        let response = self.client.send(request).await.map_err(|error| unreachable(&self.server, &error))?;
        show_warnings(&response);
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let bytes = response.into_body().collect_bytes().await?;
        let status = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| serde_json::json!({"message": String::from_utf8_lossy(&bytes).trim()}));
        Err(Refusal { status, code }.into())
    }
}

async fn read_json(response: Response<Body>) -> anyhow::Result<Value> {
    let bytes = response.into_body().collect_bytes().await?;
    serde_json::from_slice(&bytes).context("the server answered with something that is not JSON")
}

/// The server tells through these headers what is legal but not wise.
fn show_warnings(response: &Response<Body>) {
    for warning in response.headers().get_all("warning") {
        let text = warning.to_str().unwrap_or_default();
        let message = text.split_once('"').map_or(text, |(_, rest)| rest.trim_end_matches('"'));
        eprintln!("Warning: {}", message.replace("\\\"", "\""));
    }
}

/// What a connection that failed means, and what to do about it.
fn unreachable(server: &str, error: &(dyn std::error::Error + 'static)) -> anyhow::Error {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    let why = deepest.to_string();
    let refused = deepest
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    let lower = why.to_ascii_lowercase();
    if refused {
        return anyhow!(
            "error: the API server at {server} cannot be reached: connection refused. Is it running? `gantry up` starts one; --kubeconfig, --context and --server choose another"
        );
    }
    if lower.contains("expired") {
        return anyhow!(
            "error: a certificate between here and {server} has expired ({why}); check the clock, or take a fresh kubeconfig from the server"
        );
    }
    if lower.contains("unknownissuer") || lower.contains("badsignature") || lower.contains("unknown ca") {
        return anyhow!(
            "error: the certificate of {server} is not trusted ({why}): it was not made by the certificate authority in the kubeconfig. Take the kubeconfig of this very cluster"
        );
    }
    if lower.contains("certificate") || lower.contains("notvalidforname") {
        return anyhow!(
            "error: TLS with {server} failed: {why}; check the kubeconfig's certificates and the server's name"
        );
    }
    anyhow!("error: the API server at {server} cannot be reached: {why}; check the address in the kubeconfig")
}

trait IntoDataStream {
    fn into_data_stream(self) -> http_body_util::BodyDataStream<Body>;
}

impl IntoDataStream for Body {
    fn into_data_stream(self) -> http_body_util::BodyDataStream<Body> {
        http_body_util::BodyDataStream::new(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    #[test]
    fn a_connection_that_failed_says_where_why_and_what_to_do() {
        let of = |error: Error| unreachable("https://10.0.0.1:6443", &error).to_string();
        let refused = of(Error::from(ErrorKind::ConnectionRefused));
        assert!(refused.contains("https://10.0.0.1:6443") && refused.contains("gantry up"), "{refused}");
        let untrusted = of(Error::other("invalid peer certificate: UnknownIssuer"));
        assert!(untrusted.contains("not trusted") && untrusted.contains("kubeconfig"), "{untrusted}");
        let expired = of(Error::other("invalid peer certificate: Expired"));
        assert!(expired.contains("expired") && expired.contains("clock"), "{expired}");
    }

    #[test]
    fn an_expired_token_is_told_as_such() {
        let status = serde_json::json!({"reason": "Unauthorized", "message": "Unauthorized"});
        assert!(Refusal { status, code: 401 }.to_string().contains("may have expired"));
    }
}
