//! What a watch must be, by the names that etcd's robustness tests use: ordered, unique, atomic, reliable, resumable and
//! bookmarkable.

use std::collections::BTreeSet;

use store::{Revision, WatchEvent};

use super::model::Model;

/// What one watcher saw, over all its interruptions.
#[derive(Clone, Debug)]
pub struct Watched {
    pub prefix: String,
    /// Each watch from its first revision on. A resumed one begins after what was seen.
    pub parts: Vec<(Revision, Vec<WatchEvent>)>,
}

/// What a watch must not do.
#[derive(Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A change came after a later one.
    Disordered(Revision),
    /// A change came twice.
    Repeated(Revision),
    /// Not all changes of a revision came together.
    Torn(Revision),
    /// A change never came.
    Missed(Revision),
    /// A change was missing from a watch that was resumed, at its begin.
    MissedOnResumption(Revision),
    /// A progress mark was past a change that had not come.
    EarlyMark { mark: Revision, missing: Revision },
    /// A change came that never happened, or not so.
    Untrue(Revision),
}

/// Checks what a watcher saw until all changes up to `until` were due.
pub fn check(watched: &Watched, model: &Model, until: Revision) -> Result<(), Flaw> {
    let mut follower = Follower::new(&watched.prefix, 0);
    for (part, (from, events)) in watched.parts.iter().enumerate() {
        assert!(part == 0 || *from == follower.next, "the recorder should resume after what was seen");
        follower.next = *from;
        for (place, event) in events.iter().enumerate() {
            let resumed = part > 0 && place == 0;
            follower.take(model, event, &events[place + 1..]).map_err(|flaw| match flaw {
                Flaw::Missed(revision) if resumed => Flaw::MissedOnResumption(revision),
                flaw => flaw,
            })?;
        }
    }
    follower.is_complete(model, until)
}

/// Compares one watch with the model, event by event.
pub struct Follower {
    prefix: String,
    next: Revision,
    delivered: BTreeSet<Revision>,
}

impl Follower {
    pub fn new(prefix: &str, from: Revision) -> Self {
        Self { prefix: prefix.to_owned(), next: from, delivered: BTreeSet::new() }
    }

    /// Checks one event. `later` are the ones that came after it, as far as known.
    pub fn take(&mut self, model: &Model, event: &WatchEvent, later: &[WatchEvent]) -> Result<(), Flaw> {
        let (revision, changes) = match event {
            WatchEvent::Changes { revision, changes } => (*revision, changes),
            WatchEvent::Progress(mark) => {
                if let Some(missing) = self.missing(model, mark + 1) {
                    return Err(Flaw::EarlyMark { mark: *mark, missing });
                }
                self.next = self.next.max(mark + 1);
                return Ok(());
            }
        };
        let expected: Vec<&str> = self.keys_at(model, revision);
        if self.delivered.contains(&revision) {
            // The rest of it, or all of it again?
            let all = changes.len() == expected.len();
            return Err(if all { Flaw::Repeated(revision) } else { Flaw::Torn(revision) });
        }
        if revision < self.next {
            return Err(Flaw::Disordered(revision));
        }
        if let Some(missing) = self.missing(model, revision) {
            let is_it = |event: &WatchEvent| matches!(event, WatchEvent::Changes { revision, .. } if *revision == missing);
            let comes_later = later.iter().any(is_it);
            return Err(if comes_later { Flaw::Disordered(missing) } else { Flaw::Missed(missing) });
        }
        let seen: Vec<&str> = changes.iter().map(|change| &**change.key()).collect();
        if seen.len() < expected.len() {
            return Err(Flaw::Torn(revision));
        }
        if seen != expected || !changes.iter().all(|change| model.knows(revision, change)) {
            return Err(Flaw::Untrue(revision));
        }
        self.delivered.insert(revision);
        self.next = revision + 1;
        Ok(())
    }

    /// Whether all changes up to `until` came.
    pub fn is_complete(&self, model: &Model, until: Revision) -> Result<(), Flaw> {
        self.missing(model, until + 1).map_or(Ok(()), |missed| Err(Flaw::Missed(missed)))
    }

    fn missing(&self, model: &Model, end: Revision) -> Option<Revision> {
        model.revisions_under(&self.prefix, self.next..end).next()
    }

    fn keys_at<'a>(&self, model: &'a Model, revision: Revision) -> Vec<&'a str> {
        let keys = model.changed_at(revision).iter().map(String::as_str);
        keys.filter(|key| key.starts_with(&self.prefix)).collect()
    }
}
