//! How an outcome is told to clients: a `Status` object, or plain words for those from before it.

use bytes::Bytes;
use serde_json::json;

use super::Outcome;

/// The outcome as a `metav1.Status`, as protocols from version 4 on expect it.
pub(super) fn status_object(outcome: &Outcome) -> Bytes {
    let object = match outcome {
        Outcome::Status(bytes) => return bytes.clone(),
        Outcome::Exited(0) => json!({"metadata": {}, "status": "Success"}),
        Outcome::Exited(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": message(*code),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Outcome::Failed(reason) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("Internal error occurred: {reason}"),
            "reason": "InternalError",
            "details": {"causes": [{"message": reason}]},
            "code": 500,
        }),
    };
    Bytes::from(object.to_string())
}

/// The outcome in words, for older protocols; nothing on success.
pub(super) fn plain_message(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Exited(0) => None,
        Outcome::Exited(code) => Some(message(*code)),
        Outcome::Failed(reason) => Some(reason.clone()),
        Outcome::Status(bytes) => {
            let status: serde_json::Value = serde_json::from_slice(bytes).ok()?;
            let failed = status.get("status").and_then(|status| status.as_str()) != Some("Success");
            failed
                .then(|| status.get("message").and_then(|text| text.as_str()).unwrap_or("failed").to_owned())
        }
    }
}

fn message(code: i32) -> String {
    format!("command terminated with non-zero exit code: exit status {code}")
}
