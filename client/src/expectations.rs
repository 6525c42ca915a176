//! What a controller expects its cache to show before it may act again.
//!
//! A controller that created three pods must not count pods again before its watch has shown those three, or it would
//! create them twice. It therefore records the creations and the UIDs of deletions it asked for; the watch's handlers
//! strike them off. Expectations that are not met in five minutes are dropped, so that a lost one only delays.
//! The clock comes in as an argument.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::key::ObjectKey;

/// How long unmet expectations hold a controller back.
pub const EXPIRY: Duration = Duration::from_secs(5 * 60);

#[derive(Debug)]
struct Expected {
    creations: i64,
    deletions: HashSet<String>,
    since: Instant,
}

/// Expectations of one controller, by the key of the object it reconciles.
#[derive(Debug, Default)]
pub struct Expectations {
    by_key: Mutex<HashMap<ObjectKey, Expected>>,
}

impl Expectations {
    /// No expectations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the controller may act on `key`: nothing expected, everything seen, or waited too long.
    pub fn satisfied(&self, key: &ObjectKey, now: Instant) -> bool {
        match self.by_key.lock().get(key) {
            None => true,
            Some(expected) => {
                (expected.creations <= 0 && expected.deletions.is_empty())
                    || now.saturating_duration_since(expected.since) > EXPIRY
            }
        }
    }

    /// Replaces what is expected of `key` by so many creations and the deletion of these UIDs.
    pub fn expect(
        &self,
        key: &ObjectKey,
        creations: usize,
        deletions: impl IntoIterator<Item = String>,
        now: Instant,
    ) {
        let creations = i64::try_from(creations).unwrap_or(i64::MAX);
        let expected = Expected { creations, deletions: deletions.into_iter().collect(), since: now };
        self.by_key.lock().insert(key.clone(), expected);
    }

    /// A creation was seen, or failed and will not be seen.
    pub fn creation_observed(&self, key: &ObjectKey) {
        if let Some(expected) = self.by_key.lock().get_mut(key) {
            expected.creations -= 1;
        }
    }

    /// The deletion of `uid` was seen (or a deletion timestamp on it), or failed and will not be seen.
    pub fn deletion_observed(&self, key: &ObjectKey, uid: &str) {
        if let Some(expected) = self.by_key.lock().get_mut(key) {
            expected.deletions.remove(uid);
        }
    }

    /// Drops everything about an object that is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.by_key.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_waits_for_every_creation_and_deletion_it_asked_for() {
        let (expectations, key, now) = (Expectations::new(), ObjectKey::new("a", "b"), Instant::now());
        assert!(expectations.satisfied(&key, now));
        expectations.expect(&key, 2, [], now);
        expectations.creation_observed(&key);
        assert!(!expectations.satisfied(&key, now));
        expectations.creation_observed(&key);
        assert!(expectations.satisfied(&key, now));
        expectations.expect(&key, 0, ["u1".to_string()], now);
        expectations.deletion_observed(&key, "other");
        assert!(!expectations.satisfied(&key, now));
        expectations.deletion_observed(&key, "u1");
        assert!(expectations.satisfied(&key, now));
    }

    #[test]
    fn unmet_expectations_expire() {
        let (expectations, key, now) = (Expectations::new(), ObjectKey::new("a", "b"), Instant::now());
        expectations.expect(&key, 1, [], now);
        assert!(expectations.satisfied(&key, now + EXPIRY + Duration::from_secs(1)));
    }
}
