//! Flow control: how many requests run at once.
//!
//! Guarantees that a flood of writes waits in a bounded queue, and is answered 429 beyond it, instead of taking all
//! memory. Watches and streams do not count. Not yet: priority levels and fairness between users.

use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Reason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::request_info::RequestInfo;
use crate::http::respond::Failure;

/// Mutating requests at once.
const WRITES_MAX: usize = 400;
/// Lists at once: each may hold a large answer.
const LISTS_MAX: usize = 200;
/// How long a request waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// The limits.
pub(crate) struct Flow {
    writes: Arc<Semaphore>,
    lists: Arc<Semaphore>,
}

impl Flow {
    /// Nobody inside.
    pub fn new() -> Self {
        Self { writes: Arc::new(Semaphore::new(WRITES_MAX)), lists: Arc::new(Semaphore::new(LISTS_MAX)) }
    }

    /// Waits for a turn; 429 when there is none in time.
    pub async fn admit(&self, info: &RequestInfo) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        let streams =
            matches!(info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy");
        let limit = match info.verb {
            "create" | "update" | "patch" | "delete" | "deletecollection" if !streams => &self.writes,
            "list" => &self.lists,
            _ => return Ok(None),
        };
        match tokio::time::timeout(WAIT_MAX, limit.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            _ => {
                let error =
                    ApiError::new(Reason::TooManyRequests, "too many requests, please try again later.");
                Err(Failure::from(error).retry_after(1))
            }
        }
    }
}
