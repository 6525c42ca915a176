//! Kinds that are answered and forgotten: reviews.

use std::sync::Arc;

use api::ServedVersion;
use http::StatusCode;

use crate::http::respond::{self, Failure};
use crate::http::{RequestBody, Response};
use crate::pipeline::{Call, Core, Target, method_not_allowed};

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
    let ServedVersion { group, version } = &target.version;
    let (review, _options) = super::action_body(call, content, (group, version, &target.row.kind)).await?;
    let answered = core.reviewers.answer(&target.row.kind, &call.user, &target.namespace, review).await?;
    Ok(respond::formed(StatusCode::CREATED, &answered, call.form))
}
