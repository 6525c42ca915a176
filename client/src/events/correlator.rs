//! Decides what becomes of an event: new, a repetition, part of a combined one, or noise. Pure.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;

use jiff::{SignedDuration, Timestamp};

use super::{EventType, Happening};

const DISTINCT_MESSAGES_MAX: usize = 10;
const COMBINE_WINDOW: SignedDuration = SignedDuration::from_mins(10);
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
const COMBINED_PREFIX: &str = "(combined from similar events): ";

/// What to do with an event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// Create it.
    New { message: String },
    /// Raise the count of this one.
    Repeat { name: String, message: String, count: i32 },
    /// The object has had too many.
    Drop,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Similar {
    uid: String,
    name: String,
    field: String,
    kind: EventType,
    reason: String,
}

impl Similar {
    fn of(happening: &Happening) -> Self {
        Self {
            uid: happening.about.uid.clone().unwrap_or_default(),
            name: happening.about.name.clone().unwrap_or_default(),
            field: happening.about.field_path.clone().unwrap_or_default(),
            kind: happening.kind,
            reason: happening.reason.clone(),
        }
    }
}

struct Group {
    messages: HashSet<String>,
    last: Timestamp,
}

struct Written {
    name: String,
    count: i32,
}

struct Bucket {
    tokens: f64,
    at: Timestamp,
}

/// Remembers what was written. When it holds too much it forgets everything, which costs a repeated event, no more.
pub(super) struct Correlator {
    capacity: usize,
    groups: HashMap<Similar, Group>,
    written: HashMap<(Similar, String), Written>,
    buckets: HashMap<String, Bucket>,
}

impl Correlator {
    pub(super) fn new(capacity: NonZeroUsize) -> Self {
        Self {
            capacity: capacity.get(),
            groups: HashMap::new(),
            written: HashMap::new(),
            buckets: HashMap::new(),
        }
    }

    pub(super) fn judge(&mut self, happening: &Happening) -> Verdict {
        if self.groups.len() + self.written.len() + self.buckets.len() > self.capacity {
            self.groups.clear();
            self.written.clear();
            self.buckets.clear();
        }
        let similar = Similar::of(happening);
        let identity = self.identity(&similar, happening);
        let message = if identity.is_empty() {
            format!("{COMBINED_PREFIX}{}", happening.message)
        } else {
            happening.message.clone()
        };
        if !self.spend_token(happening) {
            return Verdict::Drop;
        }
        match self.written.get_mut(&(similar, identity)) {
            Some(written) => {
                written.count = written.count.saturating_add(1);
                Verdict::Repeat { name: written.name.clone(), message, count: written.count }
            }
            None => Verdict::New { message },
        }
    }

    pub(super) fn written(&mut self, happening: &Happening, verdict: &Verdict, name: String) {
        let (message, count) = match verdict {
            Verdict::New { message } => (message, 1),
            Verdict::Repeat { message, count, .. } => (message, *count),
            Verdict::Drop => return,
        };
        let identity =
            if message.starts_with(COMBINED_PREFIX) { String::new() } else { happening.message.clone() };
        self.written.insert((Similar::of(happening), identity), Written { name, count });
    }

    /// The message, or nothing when the event joins the combined one of its group.
    fn identity(&mut self, similar: &Similar, happening: &Happening) -> String {
        let group = self
            .groups
            .entry(similar.clone())
            .or_insert_with(|| Group { messages: HashSet::new(), last: happening.at });
        if happening.at.duration_since(group.last) > COMBINE_WINDOW {
            group.messages.clear();
        }
        group.last = happening.at;
        if group.messages.len() < DISTINCT_MESSAGES_MAX || group.messages.contains(&happening.message) {
            group.messages.insert(happening.message.clone());
            return happening.message.clone();
        }
        String::new()
    }

    fn spend_token(&mut self, happening: &Happening) -> bool {
        let about = &happening.about;
        let key = format!("{:?}/{:?}/{:?}", about.uid, about.namespace, about.name);
        let bucket = self.buckets.entry(key).or_insert(Bucket { tokens: BURST, at: happening.at });
        let passed = happening.at.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + passed * REFILL_PER_SECOND).min(BURST);
        bucket.at = happening.at;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;

    fn happening(message: &str, second: i64) -> Happening {
        Happening {
            about: ObjectReference {
                uid: Some("u".into()),
                name: Some("p".into()),
                ..ObjectReference::default()
            },
            kind: EventType::Warning,
            reason: "BackOff".into(),
            message: message.into(),
            at: Timestamp::from_second(second).unwrap(),
        }
    }

    fn correlator() -> Correlator {
        Correlator::new(NonZeroUsize::new(1000).unwrap())
    }

    #[test]
    fn the_same_again_raises_a_count() {
        let mut correlator = correlator();
        let first = happening("m", 0);
        let verdict = correlator.judge(&first);
        assert_eq!(verdict, Verdict::New { message: "m".into() });
        correlator.written(&first, &verdict, "p.1".into());
        let repeat = Verdict::Repeat { name: "p.1".into(), message: "m".into(), count: 2 };
        assert_eq!(correlator.judge(&happening("m", 1)), repeat);
    }

    #[test]
    fn many_different_messages_become_one_combined_event() {
        let mut correlator = correlator();
        for number in 0..10 {
            let new = happening(&format!("m{number}"), 0);
            assert!(matches!(correlator.judge(&new), Verdict::New { message } if message == new.message));
        }
        let eleventh = happening("m10", 1);
        let verdict = correlator.judge(&eleventh);
        assert_eq!(verdict, Verdict::New { message: "(combined from similar events): m10".into() });
        correlator.written(&eleventh, &verdict, "p.c".into());
        assert!(matches!(correlator.judge(&happening("m11", 2)), Verdict::Repeat { count: 2, .. }));
    }

    #[test]
    fn an_object_cannot_flood() {
        let mut correlator = correlator();
        let verdicts: Vec<_> = (0..30).map(|_| correlator.judge(&happening("m", 0))).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Drop).count(), 5);
        assert_ne!(correlator.judge(&happening("m", 400)), Verdict::Drop);
    }
}
