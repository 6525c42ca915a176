//! Replies of other servers, kept for a short while. Bounded by number; the oldest go first.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::wire::{Query, code_of, is_truncated, put, ttls};

const ENTRIES_MAX: usize = 4096;
/// Longer than this nothing is kept, whatever its owner allows.
const KEEP_MAX_S: u32 = 30;
/// A reply without any record that says how long it holds.
const KEEP_DEFAULT_S: u32 = 5;
/// Longer replies are rare and not worth the memory.
const REPLY_MAX: usize = 4096;

/// What makes two questions the same to an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    name: String,
    kind: u16,
    class: u16,
    /// EDNS, signatures, checking disabled, recursion desired.
    flags: [bool; 4],
}

#[derive(Debug)]
struct Entry {
    reply: Vec<u8>,
    ttls: Vec<(usize, u32)>,
    stored: Instant,
    until: Instant,
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Key, Entry>,
    order: VecDeque<Key>,
}

impl Key {
    fn of(query: &Query) -> Self {
        let flags = [
            query.edns_size.is_some(),
            query.wants_signatures,
            query.checking_disabled,
            query.recursion_desired,
        ];
        Self { name: query.name.clone(), kind: query.kind, class: query.class, flags }
    }
}

impl Cache {
    /// A reply that still holds, with what is left of its times to live.
    pub(super) fn get(&self, query: &Query, now: Instant) -> Option<Vec<u8>> {
        let entry = self.entries.get(&Key::of(query)).filter(|entry| now < entry.until)?;
        let age = u32::try_from(now.duration_since(entry.stored).as_secs()).unwrap_or(u32::MAX);
        let mut reply = entry.reply.clone();
        for (at, ttl) in &entry.ttls {
            put(&mut reply, *at, &ttl.saturating_sub(age).to_be_bytes());
        }
        Some(reply)
    }

    /// Keeps a reply, if it is one to be kept: an answer, or "no such name".
    pub(super) fn put(&mut self, query: &Query, reply: &[u8], now: Instant) {
        if reply.len() > REPLY_MAX || is_truncated(reply) || !matches!(code_of(reply), 0 | 3) {
            return;
        }
        let Some(ttls) = ttls(reply) else { return };
        let keep = ttls.iter().map(|(_, ttl)| *ttl).min().unwrap_or(KEEP_DEFAULT_S).min(KEEP_MAX_S);
        if keep == 0 {
            return;
        }
        let key = Key::of(query);
        let until = now + Duration::from_secs(u64::from(keep));
        let entry = Entry { reply: reply.to_vec(), ttls, stored: now, until };
        if self.entries.insert(key.clone(), entry).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > ENTRIES_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.entries.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Code, Data, Record, Reply, TYPE_A, u16_at};
    use super::*;

    fn query(name: &str) -> Query {
        let template = Query {
            id: 1,
            name: String::new(),
            kind: TYPE_A,
            class: 1,
            recursion_desired: true,
            checking_disabled: false,
            edns_size: None,
            wants_signatures: false,
            question: Vec::new(),
        };
        template.for_name(name)
    }

    #[test]
    fn a_reply_should_age_and_end() {
        let (mut cache, now, query) = (Cache::default(), Instant::now(), query("example.com"));
        let mut reply = Reply::new(Code::Ok);
        reply.answers.push(Record { name: query.name.clone(), ttl: 20, data: Data::A([1, 2, 3, 4].into()) });
        let bytes = reply.encode(&query, 512);
        cache.put(&query, &bytes, now);
        let later = cache.get(&query, now + Duration::from_secs(7)).unwrap();
        assert_eq!(ttls(&later).unwrap()[0].1, 13);
        assert_eq!(u16_at(&later, 6), Some(1));
        assert!(cache.get(&query, now + Duration::from_secs(20)).is_none());
    }

    #[test]
    fn failures_should_not_be_kept_and_the_size_should_be_bounded() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let failing = query("fails.example");
        cache.put(&failing, &Reply::new(Code::ServerFailure).encode(&failing, 512), now);
        assert!(cache.get(&failing, now).is_none());
        for n in 0..ENTRIES_MAX + 10 {
            let query = query(&format!("n{n}.example"));
            cache.put(&query, &Reply::new(Code::NoSuchName).encode(&query, 512), now);
        }
        assert_eq!(cache.entries.len(), ENTRIES_MAX);
        assert!(cache.get(&query("n0.example"), now).is_none());
    }
}
