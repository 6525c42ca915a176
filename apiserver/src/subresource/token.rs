//! `serviceaccounts/<name>/token`: issues a bound token.

use std::sync::Arc;

use api::field::Look;
use api::{ApiError, FieldError, Reason};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::auth::service_account::{BoundTo, TokenSpec};
use crate::http::respond::{self, Failure};
use crate::http::{RequestBody, Response};
use crate::pipeline::{Call, Core, Target};
use crate::tree::set;

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
/// How long a token lives when nobody says.
const LIFETIME_SECONDS: i64 = 3600;
/// The shortest life that can be asked for.
const LIFETIME_SECONDS_MIN: i64 = 600;
/// The longest.
const LIFETIME_SECONDS_MAX: i64 = 1 << 32;

/// Issues a token.
pub(super) async fn create(
    core: &Arc<Core>,
    call: &Call,
    target: &Target,
    content: RequestBody,
) -> Result<Response, Failure> {
    let (mut request, options) = super::action_body(call, content, (GROUP, "v1", KIND)).await?;
    check_names(&request, target)?;
    let account =
        core.current(&target.whole_object()).await.ok_or_else(|| target.not_found(&target.name))?.tree();
    let uid = api::object::metadata(&account, "uid").unwrap_or_default();
    let asked_uid = api::object::metadata(&request, "uid").unwrap_or_default();
    if !asked_uid.is_empty() && asked_uid != uid {
        let why = format!(
            "the UID in the token request ({asked_uid}) does not match the UID of the service account ({uid})"
        );
        return Err(ApiError::conflict(GROUP, KIND, &target.name, &why).into());
    }
    let spec = token_spec(&request)?;
    core.admission.validate(&call.admission(target, &options), Some(&request)).await?;
    let (token, expires) = core.tokens.issue(&account, &spec, Timestamp::now().as_second())?;
    let expires = Timestamp::from_second(expires)
        .map_err(|e| ApiError::new(Reason::InternalError, e.to_string()))?
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    if spec.audiences.is_empty() {
        set(&mut request, &["spec", "audiences"], json!([core.tokens.default_audience()]));
    }
    set(&mut request, &["spec", "expirationSeconds"], spec.lifetime_seconds);
    let metadata = json!({
        "name": target.name, "namespace": target.namespace, "creationTimestamp": call.now, "uid": uid,
    });
    set(&mut request, &["metadata"], metadata);
    set(&mut request, &["status"], json!({"token": token, "expirationTimestamp": expires}));
    Ok(respond::formed(StatusCode::CREATED, &request, call.form))
}

/// What the body says about its account must be what the path says.
fn check_names(request: &Value, target: &Target) -> Result<(), ApiError> {
    for (field, ours) in [("name", &target.name), ("namespace", &target.namespace)] {
        let said = api::object::metadata(request, field).unwrap_or_default();
        if !said.is_empty() && said != ours {
            let why = format!("must match the service account {field} if specified");
            return Err(invalid(&target.name, &format!("metadata.{field}"), &format!("{said:?}"), &why));
        }
    }
    Ok(())
}

fn token_spec(request: &Value) -> Result<TokenSpec, ApiError> {
    let none = Value::Null;
    let spec = request.get("spec").unwrap_or(&none);
    let lifetime_seconds = spec.int("expirationSeconds").unwrap_or(LIFETIME_SECONDS);
    let fault = |why: &str| invalid("", "spec.expirationSeconds", &lifetime_seconds.to_string(), why);
    if lifetime_seconds < LIFETIME_SECONDS_MIN {
        return Err(fault("may not specify a duration less than 10 minutes"));
    }
    if lifetime_seconds > LIFETIME_SECONDS_MAX {
        return Err(fault("may not specify a duration larger than 2^32 seconds"));
    }
    let audiences = spec.items("audiences").iter().filter_map(|a| a.as_str().map(str::to_string));
    let bound_to =
        spec.at("boundObjectRef").filter(|reference| !reference.is_null()).map(|reference| BoundTo {
            api_version: reference.text("apiVersion").to_string(),
            kind: reference.text("kind").to_string(),
            name: reference.text("name").to_string(),
            uid: reference.text("uid").to_string(),
        });
    Ok(TokenSpec { audiences: audiences.collect(), lifetime_seconds, bound_to })
}

fn invalid(name: &str, field: &str, value: &str, why: &str) -> ApiError {
    let error = FieldError {
        reason: "FieldValueInvalid",
        field: field.to_string(),
        message: format!("Invalid value: {value}: {why}"),
    };
    ApiError::invalid(GROUP, KIND, name, &[error])
}
