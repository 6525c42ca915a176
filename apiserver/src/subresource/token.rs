//! `serviceaccounts/<name>/token`: issues a bound token.

use std::sync::Arc;

use api::FieldError;
use api::field::Look;
use api::{ApiError, Reason};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::auth::service_account::TokenSpec;
use crate::http::respond::{self, Failure};
use crate::http::{RequestBody, Response};
use crate::pipeline::{Call, Core, Target, decode};
use crate::tree::set;

/// How long a token lives when nobody says.
const LIFETIME_SECONDS: i64 = 3600;
/// The shortest life that can be asked for.
const LIFETIME_SECONDS_MIN: i64 = 600;

/// Issues a token.
pub(super) async fn create(
    core: &Arc<Core>,
    call: &Call,
    target: &Target,
    content: RequestBody,
) -> Result<Response, Failure> {
    let (mut request, _options) = super::body_object(call, content, "CreateOptions").await?;
    decode::check_kind(&mut request, "authentication.k8s.io/v1", "TokenRequest")?;
    let account =
        core.current(&target.whole_object()).await.ok_or_else(|| target.not_found(&target.name))?.tree();
    let spec = request.get("spec").cloned().unwrap_or_default();
    let lifetime_seconds = spec.int("expirationSeconds").unwrap_or(LIFETIME_SECONDS);
    if lifetime_seconds < LIFETIME_SECONDS_MIN {
        let error = FieldError {
            reason: "FieldValueInvalid",
            field: "spec.expirationSeconds".to_string(),
            message: format!(
                "Invalid value: {lifetime_seconds}: may not specify a duration less than 10 minutes"
            ),
        };
        return Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", &target.name, &[error]).into());
    }
    let audiences: Vec<String> =
        spec.items("audiences").iter().filter_map(|a| a.as_str().map(str::to_string)).collect();
    let bound_to =
        spec.at("boundObjectRef").map(|r| (r.text("kind").to_string(), r.text("name").to_string()));
    let token_spec = TokenSpec { audiences: audiences.clone(), lifetime_seconds, bound_to };
    let (token, expires) = core.tokens.issue(&account, &token_spec, Timestamp::now().as_second())?;
    let expires = Timestamp::from_second(expires)
        .map_err(|e| ApiError::new(Reason::InternalError, e.to_string()))?
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    if audiences.is_empty() {
        set(&mut request, &["spec", "audiences"], json!([core.tokens.default_audience()]));
    }
    set(&mut request, &["spec", "expirationSeconds"], lifetime_seconds);
    let metadata = json!({
        "name": target.name, "namespace": target.namespace, "creationTimestamp": call.now,
        "uid": account.pointer("/metadata/uid").cloned().unwrap_or(Value::Null),
    });
    set(&mut request, &["metadata"], metadata);
    set(&mut request, &["status"], json!({"token": token, "expirationTimestamp": expires}));
    Ok(respond::formed(StatusCode::CREATED, &request, call.form))
}
