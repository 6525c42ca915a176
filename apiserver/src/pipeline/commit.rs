//! From the store's errors to the API's.

use api::{ApiError, Reason};
use store::StoreError;

use crate::http::respond::Failure;

/// What a client hears of a store error that the pipeline cannot deal with itself.
pub(crate) fn failure(error: &StoreError) -> Failure {
    let unavailable =
        |message: String| Failure::from(ApiError::new(Reason::ServiceUnavailable, message)).retry_after(1);
    match error {
        StoreError::Conflict { key, .. } => {
            ApiError::new(Reason::Conflict, format!("the write to {key} lost against another")).into()
        }
        StoreError::Compacted { .. } => ApiError::new(Reason::Expired, error.to_string()).into(),
        StoreError::FutureRevision { .. } | StoreError::Lagged => {
            Failure::from(ApiError::new(Reason::Timeout, error.to_string())).retry_after(1)
        }
        StoreError::OutcomeUnknown(_) => {
            // Not retriable for the server: the client has to look.
            ApiError::new(Reason::Timeout, error.to_string()).into()
        }
        StoreError::Unavailable(_) | StoreError::NoSpace(_) => unavailable(error.to_string()),
        StoreError::Corrupt(_) | StoreError::Setup(_) => ApiError::internal(error.to_string()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: StoreError) -> (serde_json::Value, Option<u32>) {
        let failure = failure(&error);
        (failure.to_status()["code"].take(), failure.retry_after_seconds)
    }

    #[test]
    fn only_what_was_not_done_should_invite_to_a_retry() {
        assert_eq!(told(StoreError::Unavailable("no leader".into())), (503.into(), Some(1)));
        assert_eq!(told(StoreError::NoSpace("full".into())), (503.into(), Some(1)));
        assert_eq!(told(StoreError::OutcomeUnknown("lost".into())), (504.into(), None));
        assert_eq!(told(StoreError::Compacted { requested: 1, oldest: 2 }), (410.into(), None));
    }
}
