//! HTTP as the pipeline sees it: bodies, paths, queries, negotiation and answers.

pub(crate) mod body;
pub(crate) mod negotiate;
pub(crate) mod outgoing;
pub(crate) mod query;
pub mod request_info;
pub(crate) mod respond;
pub(crate) mod webhook_client;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

/// Any error, as bodies carry it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A request's body, whatever brought it here.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;
/// An answer's body.
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;
/// A request on its way through the pipeline.
pub type Request = http::Request<RequestBody>;
/// Its answer.
pub type Response = http::Response<ResponseBody>;

/// The media type of JSON.
pub(crate) const JSON: &str = "application/json";
/// The media type of YAML.
pub(crate) const YAML: &str = "application/yaml";
