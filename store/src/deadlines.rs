//! Which keys go away by themselves, and when.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

/// The deadlines of keys, in milliseconds of Unix time. A clone is free, as of the live entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deadlines {
    by_key: OrdMap<Arc<str>, u64>,
    by_time: OrdSet<(u64, Arc<str>)>,
}

impl Deadlines {
    /// Sets or removes the deadline of a key.
    pub(crate) fn set(&mut self, key: &Arc<str>, deadline_ms: Option<u64>) {
        let old = match deadline_ms {
            Some(deadline) => self.by_key.insert(Arc::clone(key), deadline),
            None => self.by_key.remove(key),
        };
        if let Some(old) = old {
            self.by_time.remove(&(old, Arc::clone(key)));
        }
        if let Some(deadline) = deadline_ms {
            self.by_time.insert((deadline, Arc::clone(key)));
        }
    }

    /// The deadline of a key.
    pub(crate) fn get(&self, key: &str) -> Option<u64> {
        self.by_key.get(key).copied()
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<u64> {
        self.by_time.get_min().map(|(deadline, _)| *deadline)
    }

    /// Up to `limit` keys whose time has come, earliest first.
    pub(crate) fn due(&self, now_ms: u64, limit: usize) -> Vec<Arc<str>> {
        let due = self.by_time.iter().take_while(|(deadline, _)| *deadline <= now_ms);
        due.take(limit).map(|(_, key)| Arc::clone(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_deadline_of_a_key_counts() {
        let mut deadlines = Deadlines::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        deadlines.set(&a, Some(10));
        deadlines.set(&b, Some(20));
        deadlines.set(&a, Some(30));
        assert_eq!((deadlines.next(), deadlines.get("a")), (Some(20), Some(30)));
        assert_eq!(deadlines.due(30, 9), [Arc::clone(&b), Arc::clone(&a)]);
        assert_eq!(deadlines.due(30, 1), [Arc::clone(&b)]);
        deadlines.set(&b, None);
        deadlines.set(&a, None);
        assert_eq!((deadlines.next(), deadlines.due(99, 9).len()), (None, 0));
    }
}
