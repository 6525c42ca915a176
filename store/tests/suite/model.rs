//! The sequential model: what a store must hold after every revision, and why.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::SmallRng;
use store::{Action, Change, Entry, Precondition, Revision, Write};

/// The entries by key.
pub type State = BTreeMap<String, Entry>;

/// All states that ever were, and what led to them.
#[derive(Clone, Debug)]
pub struct Model {
    states: BTreeMap<Revision, State>,
    changes: BTreeMap<Revision, Vec<String>>,
}

impl Model {
    /// An empty store at a revision.
    pub fn starting_at(revision: Revision) -> Self {
        Self { states: BTreeMap::from([(revision, State::new())]), changes: BTreeMap::new() }
    }

    /// The newest revision that changed anything.
    pub fn revision(&self) -> Revision {
        *self.states.last_key_value().unwrap().0
    }

    pub fn state(&self) -> &State {
        self.states.last_key_value().unwrap().1
    }

    /// The state as of a revision.
    pub fn state_at(&self, revision: Revision) -> &State {
        self.states.range(..=revision).next_back().expect("a revision after the start").1
    }

    /// The keys that a revision changed, in the transaction's order.
    pub fn changed_at(&self, revision: Revision) -> &[String] {
        self.changes.get(&revision).map_or(&[], Vec::as_slice)
    }

    /// The revisions in a range that changed something under a prefix.
    pub fn revisions_under<'a>(
        &'a self,
        prefix: &'a str,
        revisions: std::ops::Range<Revision>,
    ) -> impl Iterator<Item = Revision> + 'a {
        // An empty range is none, wherever it ends.
        let end = revisions.end.max(revisions.start);
        let changes = self.changes.range(revisions.start..end);
        changes.filter(move |(_, keys)| keys.iter().any(|key| key.starts_with(prefix))).map(|(at, _)| *at)
    }

    /// Applies a transaction as the next revision, if it changes anything. The error is the key whose condition fails.
    pub fn apply(&mut self, writes: &[Write]) -> Result<(), String> {
        self.apply_at(self.revision() + 1, writes)
    }

    pub fn apply_at(&mut self, revision: Revision, writes: &[Write]) -> Result<(), String> {
        let mut state = self.state().clone();
        if let Some(failed) = writes.iter().find(|write| !holds(write, &state)) {
            return Err(failed.key.to_string());
        }
        let mut changed = Vec::new();
        for write in writes {
            let current = state.get(&*write.key).cloned();
            match &write.action {
                Action::Put { value, .. } => {
                    let entry = Entry {
                        key: write.key.clone(),
                        value: value.clone(),
                        create_revision: current.as_ref().map_or(revision, |entry| entry.create_revision),
                        mod_revision: revision,
                        version: current.map_or(1, |entry| entry.version + 1),
                    };
                    state.insert(write.key.to_string(), entry);
                    changed.push(write.key.to_string());
                }
                Action::Delete if current.is_some() => {
                    state.remove(&*write.key);
                    changed.push(write.key.to_string());
                }
                Action::Delete | Action::Nothing => {}
            }
        }
        if !changed.is_empty() {
            self.states.insert(revision, state);
            self.changes.insert(revision, changed);
        }
        Ok(())
    }

    /// Whether a change is what really happened to its key at a revision.
    pub fn knows(&self, revision: Revision, change: &Change) -> bool {
        let (before, after) = (self.state_at(revision - 1), self.state_at(revision));
        match change {
            Change::Put { entry, previous } => {
                after.get(&*entry.key) == Some(entry) && before.get(&*entry.key) == previous.as_ref()
            }
            Change::Delete { key, previous, revision: at } => {
                *at == revision && !after.contains_key(&**key) && before.get(&**key) == previous.as_ref()
            }
        }
    }
}

/// Whether a write's condition holds.
pub fn holds(write: &Write, state: &State) -> bool {
    let current = state.get(&*write.key);
    match write.precondition {
        Precondition::None => true,
        Precondition::Absent => current.is_none(),
        Precondition::ModRevision(revision) => current.is_some_and(|entry| entry.mod_revision == revision),
    }
}

/// A random transaction on few keys, conditional on what is known of them, rightly or wrongly.
pub fn random_transaction(
    rng: &mut SmallRng,
    keys: u32,
    known: impl Fn(&str) -> Option<Revision>,
    mut value: impl FnMut(&mut SmallRng) -> Vec<u8>,
) -> Vec<Write> {
    let mut writes: Vec<Write> = Vec::new();
    for _ in 0..rng.random_range(1..4) {
        let key = format!("/{}/{}", ["a", "b"][rng.random_range(0..2)], rng.random_range(0..keys));
        if writes.iter().any(|other| *other.key == *key) {
            continue;
        }
        let precondition = match (rng.random_range(0..5), known(&key)) {
            (0, _) => Precondition::Absent,
            (1 | 2, Some(revision)) => Precondition::ModRevision(revision),
            (3, Some(revision)) => Precondition::ModRevision(revision - 1),
            _ => Precondition::None,
        };
        let action = if rng.random_range(0..4) == 0 {
            Action::Delete
        } else {
            Action::Put { value: value(rng).into(), time_to_live: None }
        };
        writes.push(Write { key: key.into(), precondition, action });
    }
    writes
}

/// The seed to replay, or as many as wanted.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    let replay = std::env::var("STORE_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    replay.map_or(0..count, |seed| seed..seed + 1)
}
