//! OpenAPI v2 and v3 documents: made when first asked for, then served from memory.

use std::sync::Arc;

use crate::http::Response;
use crate::http::query::Query;
use crate::http::respond::Failure;
use crate::pipeline::{Core, no_such_path};

/// The documents made so far.
#[derive(Default)]
pub(crate) struct OpenApi {}

impl OpenApi {
    /// Serves a document.
    pub fn answer(
        &self,
        _core: &Arc<Core>,
        _request: &http::request::Parts,
        _path: &str,
        _query: &Query,
    ) -> Result<Response, Failure> {
        Err(no_such_path())
    }
}
