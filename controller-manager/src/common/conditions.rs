//! Small helpers about time and conditions.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Seconds from an API field as a span.
pub(crate) fn seconds(count: impl Into<i64>) -> SignedDuration {
    SignedDuration::from_secs(count.into())
}

/// How long to sleep until `at`; nothing when it has passed.
pub(crate) fn until(at: Timestamp, now: Timestamp) -> std::time::Duration {
    at.duration_since(now).try_into().unwrap_or_default()
}

/// Sets a condition; its transition time moves only with its status. Returns whether anything changed.
pub(crate) fn set_condition(conditions: &mut Vec<Condition>, mut new: Condition) -> bool {
    match conditions.iter_mut().find(|known| known.type_ == new.type_) {
        Some(known) => {
            if known.status == new.status {
                new.last_transition_time = known.last_transition_time.clone();
            }
            let changed = *known != new;
            *known = new;
            changed
        }
        None => {
            conditions.push(new);
            true
        }
    }
}

/// A condition that begins now.
pub(crate) fn condition(
    type_: &str,
    status: bool,
    reason: &str,
    message: impl Into<String>,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    Condition {
        type_: type_.into(),
        status: if status { "True" } else { "False" }.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: generation,
        last_transition_time: Time(now),
    }
}
