//! The agent's own API, which the API server asks for logs, streams and figures. Paths and parameters are upstream's;
//! `/gantry/images` is ours.
//!
//! Guarantees: nobody gets anything without being known (a client certificate of the cluster's authority, or a token that
//! the API server vouches for) and allowed (system:masters, or an access review over `nodes/<subresource>`). Streams are
//! never buffered as a whole.

mod access;
mod follow;
mod images;
mod inotify;
mod listener;
mod log_file;
mod logs;
mod metrics;
mod rotate;
mod routes;
mod stats;
mod streams;
mod tls;

pub use listener::Listener;
pub use log_file::tail as log_tail;
pub use rotate::{rotate_logs, rotated as rotated_logs};
pub use stats::{ContainerUsage, Measured, begin as begin_measuring};
pub use tls::ServingCertificate;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

/// Why a request is not answered: the code and a word for people.
#[derive(Debug)]
pub struct Refusal(StatusCode, String);

impl Refusal {
    fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self(code, message.into())
    }

    fn runtime(error: &crate::cri::CriError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

/// An answer in JSON.
fn answer(value: serde_json::Value) -> Response {
    Json(json!(value)).into_response()
}
