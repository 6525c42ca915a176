//! Time as the runtime interface wants it: nanoseconds since 1970.

/// Now. The realtime clock, because these times are shown to people.
pub(crate) fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
