//! The question that a webhook is asked, and its answer.

use api::field::Look;
use api::{ApiError, Reason, ServedVersion};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schema::decode::{self, Limits};
use schema::patch::json::JsonPatch;
use serde_json::{Value, json};

use crate::admission::AdmissionRequest;
use crate::admission::described::{described, shown};

/// The `AdmissionReview` for a request, in the version that the webhook wants to see the object in.
pub(super) fn question(
    uid: &str,
    review_version: &str,
    request: &AdmissionRequest<'_>,
    object: Option<&Value>,
    version: &ServedVersion,
) -> Value {
    let mut asked = described(request, version);
    crate::tree::set(&mut asked, &["uid"], uid);
    crate::tree::set(&mut asked, &["object"], shown(request, version, object).into_owned());
    crate::tree::set(&mut asked, &["oldObject"], shown(request, version, request.old).into_owned());
    json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{review_version}"), "request": asked})
}

/// What a webhook answers.
pub(super) struct Verdict {
    /// Why not, when the request is refused.
    pub refusal: Option<ApiError>,
    pub patch: Option<JsonPatch>,
    pub warnings: Vec<String>,
    /// For the audit log.
    pub annotations: Vec<(String, String)>,
}

/// Reads an answer. An answer that makes no sense is an error, as a webhook that does not answer is.
pub(super) fn verdict(
    hook: &str,
    uid: &str,
    review_version: &str,
    may_patch: bool,
    review: &Value,
) -> Result<Verdict, String> {
    let invalid = |why: String| format!("received invalid webhook response: {why}");
    let answer = review.at("response").ok_or_else(|| invalid("webhook response was absent".to_string()))?;
    let is_strict = review_version == "v1";
    if is_strict && answer.text("uid") != uid {
        return Err(invalid(format!("expected response.uid={uid:?}, got {:?}", answer.text("uid"))));
    }
    if is_strict
        && (review.text("kind") != "AdmissionReview" || review.text("apiVersion") != "admission.k8s.io/v1")
    {
        let got = format!("{}, Kind={}", review.text("apiVersion"), review.text("kind"));
        return Err(invalid(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {got}"
        )));
    }
    let (patch, patch_type) = (answer.text("patch"), answer.text("patchType"));
    let fault = match (may_patch, patch.is_empty(), patch_type.is_empty()) {
        (false, false, _) => Some("validating webhook may not return response.patch"),
        (false, true, false) => Some("validating webhook may not return response.patchType"),
        (true, false, true) if is_strict => {
            Some("webhook returned response.patch but not response.patchType")
        }
        (true, true, false) if is_strict => {
            Some("webhook returned response.patchType but not response.patch")
        }
        _ => None,
    };
    if let Some(fault) = fault {
        return Err(invalid(fault.to_string()));
    }
    if !["", "JSONPatch"].contains(&patch_type) {
        return Err(format!("unsupported patch type {patch_type:?}"));
    }
    let patch = (!patch.is_empty()).then(|| read_patch(patch)).transpose()?;
    let annotations = answer
        .entries("auditAnnotations")
        .filter_map(|(key, value)| Some((format!("{hook}/{key}"), value.as_str()?.to_string())));
    Ok(Verdict {
        refusal: (!answer.flag("allowed"))
            .then(|| refusal(hook, answer.get("status").unwrap_or(&Value::Null))),
        patch,
        warnings: answer
            .items("warnings")
            .iter()
            .filter_map(|text| text.as_str().map(str::to_string))
            .collect(),
        annotations: annotations.collect(),
    })
}

fn read_patch(text: &str) -> Result<JsonPatch, String> {
    let undecodable =
        |why: &dyn std::fmt::Display| format!("received undecodable patch in webhook response: {why}");
    let bytes = STANDARD.decode(text).map_err(|error| undecodable(&error))?;
    let patch = decode::json(&bytes, &Limits::default()).map_err(|error| undecodable(&error))?;
    JsonPatch::parse(&patch.value).map_err(|error| undecodable(&error))
}

/// A refusal with the webhook's own words, reason and code.
fn refusal(hook: &str, status: &Value) -> ApiError {
    let code = status.int("code").and_then(|code| u16::try_from(code).ok()).unwrap_or(0);
    let why = match (status.text("message"), status.text("reason")) {
        ("", "") => " without explanation".to_string(),
        ("", reason) => format!(": {reason}"),
        (message, _) => format!(": {message}"),
    };
    let reason = reason_of(code, status.text("reason"));
    let mut error = ApiError::new(reason, format!("admission webhook {hook:?} denied the request{why}"));
    error.details = status.at("details").map(|details| Box::new(details.clone()));
    error
}

/// The reason of a refusal: by its code, and among those of the same code by its name.
fn reason_of(code: u16, name: &str) -> Reason {
    match (code, name) {
        (401, _) => Reason::Unauthorized,
        (403, _) | (0, "Forbidden") => Reason::Forbidden,
        (404, _) | (0, "NotFound") => Reason::NotFound,
        (405, _) => Reason::MethodNotAllowed,
        (406, _) => Reason::NotAcceptable,
        (409, "AlreadyExists") => Reason::AlreadyExists,
        (409, _) | (0, "Conflict") => Reason::Conflict,
        (410, _) => Reason::Gone,
        (413, _) => Reason::RequestEntityTooLarge,
        (415, _) => Reason::UnsupportedMediaType,
        (422, _) | (0, "Invalid") => Reason::Invalid,
        (429, _) => Reason::TooManyRequests,
        (503, _) => Reason::ServiceUnavailable,
        (504, _) => Reason::Timeout,
        (500.., _) => Reason::InternalError,
        _ => Reason::BadRequest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(may_patch: bool, response: Value) -> Result<Verdict, String> {
        let review =
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        verdict("hook.example.com", "u1", "v1", may_patch, &review)
    }

    #[test]
    fn answers_that_make_no_sense_are_told_in_upstreams_words() {
        let patch = STANDARD.encode("[]");
        for (may_patch, response, told) in [
            (true, Value::Null, "webhook response was absent"),
            (true, json!({"uid": "u2", "allowed": true}), "expected response.uid=\"u1\", got \"u2\""),
            (true, json!({"uid": "u1", "patch": patch}), "response.patch but not response.patchType"),
            (
                true,
                json!({"uid": "u1", "patchType": "JSONPatch"}),
                "response.patchType but not response.patch",
            ),
            (
                false,
                json!({"uid": "u1", "patch": patch, "patchType": "JSONPatch"}),
                "may not return response.patch",
            ),
            (
                true,
                json!({"uid": "u1", "patch": patch, "patchType": "Merge"}),
                "unsupported patch type \"Merge\"",
            ),
            (true, json!({"uid": "u1", "patch": "!", "patchType": "JSONPatch"}), "undecodable patch"),
        ] {
            let error = read(may_patch, response).err().unwrap();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_refusal_keeps_the_webhooks_words_and_code() {
        let refused = |status: Value| {
            read(false, json!({"uid": "u1", "allowed": false, "status": status})).unwrap().refusal.unwrap()
        };
        let error = refused(json!({"message": "no", "code": 403}));
        assert_eq!(
            (error.reason, error.message.as_str()),
            (Reason::Forbidden, "admission webhook \"hook.example.com\" denied the request: no")
        );
        assert_eq!(
            refused(Value::Null).message,
            "admission webhook \"hook.example.com\" denied the request without explanation"
        );
        assert_eq!(refused(json!({"code": 200})).reason, Reason::BadRequest);
    }
}
