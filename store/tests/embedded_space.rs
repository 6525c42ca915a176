//! How much disk the embedded engine uses for many updates of few keys.
//!
//! In short, with all bounds an eighth of the defaults; with `STORE_UPDATES=1000000`, with the defaults.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

use std::path::Path;
use std::time::{Duration, Instant};

use store::embedded::{EmbeddedOptions, EmbeddedStore};
use store::{Action, Precondition, ReadAt, Store, StoreError, Write};
use tempfile::TempDir;

const KEYS: u64 = 1000;
const WRITERS: u64 = 64;

/// What the files of a directory hold in it.
fn directory_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().metadata());
    // Between listing and looking a file may go.
    files.filter_map(Result::ok).map(|file| file.len()).sum()
}

async fn update(store: &EmbeddedStore, number: u64) {
    let value = format!("{number:01024}");
    let action = Action::Put { value: value.into(), time_to_live: None };
    let write =
        Write { key: format!("/k/{}", number % KEYS).into(), precondition: Precondition::None, action };
    store.commit(vec![write]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_updates_of_few_keys_leave_little_behind() {
    let dir = TempDir::new().unwrap();
    let defaults = EmbeddedOptions::new(dir.path());
    let long = std::env::var("STORE_UPDATES").ok().map(|updates| updates.parse::<u64>().unwrap());
    let (updates, share) = long.map_or((40_000, 8), |updates| (updates, 1));
    let options = EmbeddedOptions {
        history_bytes: defaults.history_bytes / share as usize,
        segment_bytes: defaults.segment_bytes / share,
        compact_bytes: defaults.compact_bytes / share,
        ..defaults
    };
    let store = EmbeddedStore::open(options.clone()).unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in (writer..updates).step_by(WRITERS as usize) {
                update(&store, number).await;
            }
        })
    });
    let mut writing = Box::pin(futures::future::join_all(writers));
    let mut most = 0;
    while tokio::time::timeout(Duration::from_millis(20), &mut writing).await.is_err() {
        most = most.max(directory_bytes(dir.path()));
    }
    let (mut left, bound) = (directory_bytes(dir.path()), (64 << 20) / share);
    println!("{updates} updates: at most {} MB, at the end {} MB", most / 1_000_000, left / 1_000_000);
    assert!(most > bound / 8, "the directory was not looked at while it grew: {most}");
    assert!(most < (256 << 20) / share, "the directory grew to {most} bytes");
    let revision = store.current_revision().await.unwrap();
    assert_eq!(revision, updates + 1);
    store.compact(revision).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while left > bound / 2 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
        left = directory_bytes(dir.path());
    }
    println!("after compaction {} MB", left / 1_000_000);
    assert!(left <= bound, "{left} bytes are left");
    drop(store);
    let store = EmbeddedStore::open(options).unwrap();
    assert_eq!(store.current_revision().await.unwrap(), revision);
    let entry = store.get("/k/7", ReadAt::Current).await.unwrap().entry.unwrap();
    assert_eq!(entry.version, updates / KEYS);
}

#[tokio::test]
async fn history_goes_when_its_time_has_come_even_if_nothing_else_happens() {
    let dir = TempDir::new().unwrap();
    let options =
        EmbeddedOptions { history_age: Duration::from_millis(300), ..EmbeddedOptions::new(dir.path()) };
    let store = EmbeddedStore::open(options).unwrap();
    for number in 0..10 {
        update(&store, number).await;
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match store.get("/k/0", ReadAt::Revision(3)).await {
            Err(StoreError::Compacted { .. }) => break,
            Err(other) => panic!("{other}"),
            Ok(_) => assert!(Instant::now() < deadline, "the history should have gone"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.current_revision().await.unwrap(), 11);
}
