//! Files sent to the API server as they are read: an archive of gigabytes takes no more memory than a small one.
//!
//! kube's client takes whole bodies only, so this makes an HTTP client of its own from the same configuration.

use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use futures::TryStreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use kube::Config;
use kube::client::ConfigExt;
use serde_json::Value;
use tokio_util::io::ReaderStream;
use tower::{BoxError, Layer, ServiceExt};

use crate::api::Refusal;

const CHUNK_BYTES: usize = 256 * 1024;

/// Sends a file as the body of a POST, and answers what the server says.
pub async fn post_file(
    config: &Config,
    path: &str,
    content_type: &str,
    file: &Path,
) -> anyhow::Result<Value> {
    let opened = tokio::fs::File::open(file)
        .await
        .with_context(|| format!("error: cannot read {}", file.display()))?;
    let length = opened.metadata().await?.len();
    let chunks = ReaderStream::with_capacity(opened, CHUNK_BYTES);
    let body = StreamBody::new(chunks.map_ok(http_body::Frame::data));
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(CONTENT_TYPE, content_type)
        .header(CONTENT_LENGTH, length)
        .body(body.boxed_unsync())?;
    let client = Client::builder(TokioExecutor::new()).build(config.rustls_https_connector()?);
    let client = tower::util::MapErrLayer::new(BoxError::from).layer(client);
    let client = config.extra_headers_layer()?.layer(client);
    let client = tower::util::option_layer(config.auth_layer()?).layer(client);
    let client = config.base_uri_layer().layer(client);
    let response = client
        .oneshot(request)
        .await
        .map_err(|error| anyhow::anyhow!("the API server could not be sent {}: {error}", file.display()))?;
    let code = response.status();
    let answer: Bytes = response
        .into_body()
        .collect()
        .await
        .context("the connection broke off before the answer")?
        .to_bytes();
    if code.is_success() {
        return Ok(serde_json::from_slice(&answer).unwrap_or_default());
    }
    let status = serde_json::from_slice(&answer)
        .unwrap_or_else(|_| serde_json::json!({"message": String::from_utf8_lossy(&answer), "reason": code.canonical_reason()}));
    Err(Refusal { status, code: code.as_u16() }.into())
}
