//! Answers: JSON, YAML and errors as `Status`.

use api::ApiError;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY};
use http::{HeaderName, StatusCode};
use serde_json::Value;

use super::negotiate::{Encoding, Form};
use super::{JSON, Response, ResponseBody, YAML, body};
use crate::tree::set;

/// Answers from this size on are compressed for clients that ask.
pub(crate) const GZIP_BYTES_MIN: usize = 128 * 1024;

/// A request that failed, with what the error's `Status` carries beyond its cause.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The cause.
    pub error: Box<ApiError>,
    /// With an expired continue token: one that goes on inconsistently.
    pub continue_token: Option<String>,
    /// When a retry may succeed.
    pub retry_after_seconds: Option<u32>,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { error: Box::new(error), continue_token: None, retry_after_seconds: None }
    }
}

impl Failure {
    /// The same failure with the advice to try again.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// The `Status` object.
    pub fn to_status(&self) -> Value {
        let mut status = self.error.to_status();
        if let Some(token) = &self.continue_token {
            set(&mut status, &["metadata", "continue"], token.as_str());
        }
        if let Some(seconds) = self.retry_after_seconds {
            set(&mut status, &["details", "retryAfterSeconds"], seconds);
        }
        status
    }

    /// The answer.
    pub fn into_response(self, encoding: Encoding) -> Response {
        let code =
            StatusCode::from_u16(self.error.reason.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = value(code, &self.to_status(), encoding);
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// An answer of a media type.
pub(crate) fn with_type(code: StatusCode, media_type: &'static str, content: ResponseBody) -> Response {
    let mut response = Response::new(content);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A text answer.
pub(crate) fn text(code: StatusCode, content: impl Into<String>) -> Response {
    with_type(code, "text/plain; charset=utf-8", body::full(content.into()))
}

/// A tree, encoded as asked.
pub(crate) fn value(code: StatusCode, tree: &Value, encoding: Encoding) -> Response {
    match encoding {
        Encoding::Json => with_type(code, JSON, body::full(tree.to_string())),
        Encoding::PrettyJson => {
            let mut out = serde_json::to_vec_pretty(tree).unwrap_or_default();
            out.push(b'\n');
            with_type(code, JSON, body::full(out))
        }
        Encoding::Yaml => match serde_saphyr::to_string(tree) {
            Ok(yaml) => with_type(code, YAML, body::full(yaml)),
            Err(error) => {
                Failure::from(ApiError::internal(format!("the object could not be written as YAML: {error}")))
                    .into_response(Encoding::Json)
            }
        },
    }
}

/// A tree in a form whose view has already been applied; compressed when large.
pub(crate) fn formed(code: StatusCode, tree: &Value, form: Form) -> Response {
    maybe_gzip(value(code, tree, form.encoding), form)
}

/// Compresses a large answer for a client that asked.
pub(crate) fn maybe_gzip(response: Response, form: Form) -> Response {
    use http_body::Body;
    let size = response.body().size_hint();
    let large = size.exact().is_none_or(|bytes| bytes >= GZIP_BYTES_MIN as u64);
    if !form.gzip || !large {
        return response;
    }
    let mut response = response.map(body::Gzip::wrap);
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// Adds `Warning: 299` headers.
pub(crate) fn add_warnings(response: &mut Response, warnings: &[String]) {
    const WARNING: HeaderName = http::header::WARNING;
    for warning in warnings {
        let quoted: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| match c {
                '"' | '\\' => vec!['\\', c],
                other => vec![other],
            })
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
