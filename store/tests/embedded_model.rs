//! The embedded engine against a model: random transactions, reopening, compaction, expiry, with every revision that
//! must be readable read, and every watch compared with what happened. `STORE_SEED` replays one seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

mod suite;

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use store::{Range, ReadAt, Revision, Store, StoreError, WatchStream};
use suite::checker::is_range;
use suite::directory_in_memory;
use suite::model::{Model, random_transaction, seeds};
use suite::watching::Follower;

/// Reads now and at any older revision, of which those from `oldest` on must be there.
async fn check_reads(store: &EmbeddedStore, model: &Model, oldest: Revision, rng: &mut SmallRng) {
    for revision in [model.revision(), rng.random_range(1..=model.revision())] {
        let at = if revision == model.revision() { ReadAt::Current } else { ReadAt::Revision(revision) };
        let prefix = ["/", "/a/", "/b/1"][rng.random_range(0..3)].to_owned();
        let range = Range { prefix, limit: rng.random_range(0..8), at, after: None };
        match store.range(range.clone()).await {
            Ok(read) => {
                assert!(revision >= oldest, "revision {revision} was compacted");
                assert!(read.revision == revision && is_range(&range, &read, model), "{range:?}: {read:?}");
            }
            Err(StoreError::Compacted { oldest, .. }) => {
                assert!(revision < oldest, "{revision} is refused, {oldest} is said to be there");
                assert!(revision < model.revision(), "the present is always readable");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// Everything that happened under a watch's prefix must be there by now, and nothing else.
fn check_watch(follower: &mut Follower, stream: &mut WatchStream, model: &Model) {
    while let Some(event) = stream.next().now_or_never() {
        follower.take(model, &event.unwrap().unwrap(), &[]).unwrap();
    }
    follower.is_complete(model, model.revision()).unwrap();
}

async fn run(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    // What the disk does is the simulation's business.
    let dir = directory_in_memory();
    let options = EmbeddedOptions {
        segment_bytes: 8 << 10,
        compact_bytes: 16 << 10,
        history_bytes: rng.random_range(4..64) << 10,
        history_age: Duration::from_secs(3600),
        ..EmbeddedOptions::new(dir.path())
    };
    let mut store = EmbeddedStore::open(options.clone()).unwrap();
    let (mut model, mut oldest) = (Model::starting_at(1), 1);
    let mut watches: Vec<(Follower, WatchStream)> = Vec::new();
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
                oldest = oldest.max(revision);
            }
            4..8 => {
                let prefix = ["/", "/a/", "/b/2"][rng.random_range(0..3)];
                let next = rng.random_range(1..=model.revision() + 1);
                match store.watch(prefix, Some(next)).await {
                    Ok(stream) => watches.push((Follower::new(prefix, next), stream)),
                    Err(StoreError::Compacted { oldest, .. }) => assert!(next < oldest),
                    Err(other) => panic!("{other}"),
                }
            }
            _ => {
                let known = |key: &str| model.state().get(key).map(|entry| entry.mod_revision);
                let value = |rng: &mut SmallRng| vec![rng.random::<u8>(); rng.random_range(0..600)];
                let writes = random_transaction(&mut rng, 30, known, value);
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
        check_reads(&store, &model, oldest, &mut rng).await;
        for (follower, stream) in &mut watches {
            check_watch(follower, stream, &model);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_does_what_the_model_does() {
    for seed in seeds(15) {
        println!("seed {seed}");
        run(seed).await;
    }
}
