//! Kinds that are answered and forgotten: reviews.

use std::sync::Arc;

use http::StatusCode;

use crate::http::respond::{self, Failure};
use crate::http::{RequestBody, Response};
use crate::pipeline::{Call, Core, Target, decode, method_not_allowed};

/// Answers a review.
pub(super) async fn create(
    core: &Arc<Core>,
    call: &Call,
    target: &Target,
    content: RequestBody,
) -> Result<Response, Failure> {
    if call.info.verb != "create" {
        return Err(method_not_allowed());
    }
    let (mut review, _options) = super::body_object(call, content, "CreateOptions").await?;
    decode::check_kind(&mut review, &target.version.api_version(), &target.row.kind)?;
    let answered = core.reviewers.answer(&target.row.kind, &call.user, &target.namespace, review).await?;
    Ok(respond::formed(StatusCode::CREATED, &answered, call.form))
}
