//! The embedded engine against a model: random transactions, reopening, compaction, expiry, with every revision that
//! must be readable read, and every watch compared with what happened. `STORE_SEED` replays one seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use store::{
    Action, Change, Entry, Precondition, Range, ReadAt, Revision, Store, StoreError, WatchEvent, WatchStream,
    Write,
};
use tempfile::TempDir;

type State = BTreeMap<String, Entry>;

/// What must be there: every state that ever was, and what led to it.
struct Model {
    states: BTreeMap<Revision, State>,
    changes: BTreeMap<Revision, Vec<String>>,
    /// Nothing older is promised.
    oldest: Revision,
}

impl Model {
    fn revision(&self) -> Revision {
        *self.states.last_key_value().unwrap().0
    }

    fn state(&self) -> &State {
        self.states.last_key_value().unwrap().1
    }

    /// The next state, or the key whose precondition fails.
    fn apply(&mut self, writes: &[Write]) -> Result<(), String> {
        let mut state = self.state().clone();
        for write in writes {
            let current = state.get(&*write.key);
            let holds = match write.precondition {
                Precondition::None => true,
                Precondition::Absent => current.is_none(),
                Precondition::ModRevision(revision) => {
                    current.is_some_and(|entry| entry.mod_revision == revision)
                }
            };
            if !holds {
                return Err(write.key.to_string());
            }
        }
        let revision = self.revision() + 1;
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
                Action::Delete => {}
            }
        }
        if !changed.is_empty() {
            self.states.insert(revision, state);
            self.changes.insert(revision, changed);
        }
        Ok(())
    }
}

fn random_write(rng: &mut SmallRng, state: &State) -> Write {
    let key = format!("/{}/{}", ["a", "b"][rng.random_range(0..2)], rng.random_range(0..30));
    let precondition = match (rng.random_range(0..5), state.get(&key)) {
        (0, _) => Precondition::Absent,
        (1 | 2, Some(entry)) => Precondition::ModRevision(entry.mod_revision),
        (3, Some(entry)) => Precondition::ModRevision(entry.mod_revision - 1),
        _ => Precondition::None,
    };
    let action = if rng.random_range(0..4) == 0 {
        Action::Delete
    } else {
        let value = vec![rng.random::<u8>(); rng.random_range(0..600)];
        Action::Put { value: value.into(), time_to_live: None }
    };
    Write { key: key.into(), precondition, action }
}

async fn check_reads(store: &EmbeddedStore, model: &Model, rng: &mut SmallRng) {
    let revisions = [model.revision(), rng.random_range(1..=model.revision())];
    for revision in revisions {
        let at = if revision == model.revision() { ReadAt::Current } else { ReadAt::Revision(revision) };
        let prefix = ["/", "/a/", "/b/1"][rng.random_range(0..3)].to_owned();
        let limit = rng.random_range(0..8);
        let read = store.range(Range { prefix: prefix.clone(), limit, at, ..Range::default() }).await;
        let read = match read {
            Ok(read) => read,
            Err(StoreError::Compacted { oldest, .. }) => {
                assert!(revision < oldest, "{revision} is refused, {oldest} is said to be there");
                assert!(revision < model.revision(), "the present is always readable");
                continue;
            }
            Err(other) => panic!("{other}"),
        };
        assert!(revision >= model.oldest, "revision {revision} was compacted");
        let expected: Vec<&Entry> =
            model.states[&revision].values().filter(|entry| entry.key.starts_with(&prefix)).collect();
        let shown = if limit == 0 { expected.len() } else { limit.min(expected.len()) };
        assert_eq!(read.entries.iter().collect::<Vec<_>>(), expected[..shown], "revision {revision}");
        assert_eq!((read.remaining, read.revision), (expected.len() - shown, revision));
    }
}

/// A watch and the first revision that it has not shown.
struct Watching {
    prefix: &'static str,
    next: Revision,
    stream: WatchStream,
}

impl Watching {
    /// Everything that happened under the prefix must be there by now, in order, and nothing else.
    fn check(&mut self, model: &Model) {
        while let Some(event) = self.stream.next().now_or_never() {
            let WatchEvent::Changes { revision, changes } = event.unwrap().unwrap() else { continue };
            let skipped = (self.next..revision).filter(|skipped| self.concerns(model, *skipped));
            assert_eq!(skipped.count(), 0, "a watch skipped something before {revision}");
            let keys: Vec<&str> = changes
                .iter()
                .map(|change| match change {
                    Change::Put { entry, previous } => {
                        assert_eq!(Some(entry), model.states[&revision].get(&*entry.key));
                        assert_eq!(previous.as_ref(), model.states[&(revision - 1)].get(&*entry.key));
                        &*entry.key
                    }
                    Change::Delete { key, previous, .. } => {
                        assert_eq!(previous.as_ref(), model.states[&(revision - 1)].get(&**key));
                        &**key
                    }
                })
                .collect();
            let expected = model.changes[&revision].iter().filter(|key| key.starts_with(self.prefix));
            assert_eq!(keys, expected.collect::<Vec<_>>(), "revision {revision}");
            self.next = revision + 1;
        }
        let missed = (self.next..=model.revision()).filter(|missed| self.concerns(model, *missed));
        assert_eq!(missed.count(), 0, "a watch is behind an acknowledged write");
    }

    fn concerns(&self, model: &Model, revision: Revision) -> bool {
        model.changes.get(&revision).is_some_and(|keys| keys.iter().any(|key| key.starts_with(self.prefix)))
    }
}

async fn run(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let dir = TempDir::new().unwrap();
    let options = EmbeddedOptions {
        segment_bytes: 8 << 10,
        compact_bytes: 16 << 10,
        history_bytes: rng.random_range(4..64) << 10,
        history_age: Duration::from_secs(3600),
        ..EmbeddedOptions::new(dir.path())
    };
    let mut store = EmbeddedStore::open(options.clone()).unwrap();
    let mut model =
        Model { states: BTreeMap::from([(1, State::new())]), changes: BTreeMap::new(), oldest: 1 };
    let mut watches: Vec<Watching> = Vec::new();
    for _ in 0..800 {
        match rng.random_range(0..100) {
            0..2 => {
                watches.clear();
                drop(store);
                store = EmbeddedStore::open(options.clone()).unwrap();
                assert_eq!(store.current_revision().await.unwrap(), model.revision());
            }
            2..4 => {
                let revision = rng.random_range(1..=model.revision());
                store.compact(revision).await.unwrap();
                model.oldest = model.oldest.max(revision);
            }
            4..8 => {
                let prefix = ["/", "/a/", "/b/2"][rng.random_range(0..3)];
                let next = rng.random_range(1..=model.revision() + 1);
                match store.watch(prefix, Some(next)).await {
                    Ok(stream) => watches.push(Watching { prefix, next, stream }),
                    Err(StoreError::Compacted { oldest, .. }) => assert!(next < oldest),
                    Err(other) => panic!("{other}"),
                }
            }
            _ => {
                let mut writes: Vec<Write> = Vec::new();
                for _ in 0..rng.random_range(1..4) {
                    let write = random_write(&mut rng, model.state());
                    if writes.iter().all(|other| other.key != write.key) {
                        writes.push(write);
                    }
                }
                let before = model.state().clone();
                match (store.commit(writes.clone()).await, model.apply(&writes)) {
                    (Ok(committed), Ok(())) => {
                        assert_eq!(committed.revision, model.revision());
                        let previous = writes.iter().map(|write| before.get(&*write.key).cloned());
                        assert_eq!(committed.previous, previous.collect::<Vec<_>>());
                    }
                    (Err(StoreError::Conflict { key, current, .. }), Err(expected)) => {
                        assert_eq!(key, expected);
                        assert_eq!(current.map(|entry| *entry), before.get(&key).cloned());
                    }
                    (actual, expected) => panic!("{actual:?}, expected {expected:?}"),
                }
            }
        }
        check_reads(&store, &model, &mut rng).await;
        for watch in &mut watches {
            watch.check(&model);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_does_what_the_model_does() {
    let replay = std::env::var("STORE_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    for seed in replay.map_or(0..15, |seed| seed..seed + 1) {
        println!("seed {seed}");
        run(seed).await;
    }
}
