//! The embedded engine passes the suite, and what only it promises.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

mod suite;

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use store::{Range, ReadAt, Store, StoreError, WatchEvent};
use suite::history::{self, Plan};
use suite::model::seeds;
use suite::{delete, directory_in_memory, next_changes, put};
use tempfile::TempDir;

async fn open() -> (TempDir, Arc<dyn Store>) {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(EmbeddedOptions::new(dir.path().join("data"))).unwrap();
    (dir, Arc::new(store))
}

store_suite!(open);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories_are_linearizable_and_watched_rightly() {
    for seed in seeds(6) {
        let dir = directory_in_memory();
        let options = EmbeddedOptions {
            // Segments and snapshots change underneath.
            segment_bytes: 16 << 10,
            compact_bytes: 32 << 10,
            progress_interval: Duration::from_millis(20),
            ..EmbeddedOptions::new(dir.path())
        };
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(options).unwrap());
        let plan = Plan { seed, clients: 8, steps: 150, watchers: 6, pause: Duration::ZERO };
        let outcome = history::run(Arc::clone(&store), store, plan).await.unwrap();
        assert!(outcome.acknowledged > 100 && outcome.resumed > 0, "{outcome:?}");
        assert_eq!((outcome.refused, outcome.unknown), (0, 0), "{outcome:?}");
    }
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_reopening_history_included() {
    let dir = TempDir::new().unwrap();
    let options = EmbeddedOptions::new(dir.path());
    let store = EmbeddedStore::open(options.clone()).unwrap();
    for step in 0..50 {
        store.commit(vec![put(&format!("/k/{}", step % 7), &step.to_string())]).await.unwrap();
    }
    store.commit(vec![delete("/k/3")]).await.unwrap();
    let before = store.range(Range { prefix: "/".into(), ..Range::default() }).await.unwrap();
    let at = ReadAt::Revision(before.revision - 20);
    let past = store.range(Range { prefix: "/".into(), at, ..Range::default() }).await.unwrap();
    drop(store);
    let store = EmbeddedStore::open(options).unwrap();
    assert_eq!(store.range(Range { prefix: "/".into(), ..Range::default() }).await.unwrap(), before);
    assert_eq!(store.range(Range { prefix: "/".into(), at, ..Range::default() }).await.unwrap(), past);
    let mut watch = store.watch("/", Some(before.revision)).await.unwrap();
    assert!(
        matches!(watch.next().await, Some(Ok(WatchEvent::Changes { revision, .. })) if revision == before.revision)
    );
}

#[tokio::test]
async fn snapshots_keep_the_directory_small_and_the_data_whole() {
    let dir = TempDir::new().unwrap();
    let options = EmbeddedOptions {
        segment_bytes: 64 << 10,
        compact_bytes: 128 << 10,
        history_bytes: 32 << 10,
        ..EmbeddedOptions::new(dir.path())
    };
    let store = EmbeddedStore::open(options.clone()).unwrap();
    let value = "v".repeat(1000);
    for step in 0..2000 {
        store.commit(vec![put(&format!("/k/{}", step % 50), &format!("{step}{value}"))]).await.unwrap();
    }
    let before = store.range(Range { prefix: "/".into(), ..Range::default() }).await.unwrap();
    drop(store);
    let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap()).collect();
    let snapshots =
        files.iter().filter(|file| file.file_name().to_string_lossy().ends_with(".snapshot")).count();
    let logs = files.iter().filter(|file| file.file_name().to_string_lossy().ends_with(".log")).count();
    assert_eq!(snapshots, 1);
    assert!(logs < 12, "2 MB were written in segments of 64 KB; {logs} are left");
    let store = EmbeddedStore::open(options).unwrap();
    assert_eq!(store.range(Range { prefix: "/".into(), ..Range::default() }).await.unwrap(), before);
}

#[tokio::test]
async fn a_time_to_live_survives_a_restart() {
    let dir = TempDir::new().unwrap();
    let options = EmbeddedOptions::new(dir.path());
    let store = EmbeddedStore::open(options.clone()).unwrap();
    let mut write = put("/t", "short");
    write.action =
        store::Action::Put { value: "short".into(), time_to_live: Some(Duration::from_millis(700)) };
    store.commit(vec![write]).await.unwrap();
    drop(store);
    let store = EmbeddedStore::open(options).unwrap();
    assert!(store.get("/t", ReadAt::Current).await.unwrap().entry.is_some());
    let mut watch = store.watch("/t", None).await.unwrap();
    let deletion = async { while !matches!(watch.next().await, Some(Ok(WatchEvent::Changes { .. }))) {} };
    tokio::time::timeout(Duration::from_secs(5), deletion).await.unwrap();
    assert!(store.get("/t", ReadAt::Current).await.unwrap().entry.is_none());
}

#[tokio::test]
async fn an_event_is_queued_before_the_write_is_acknowledged() {
    let (_dir, store) = open().await;
    let mut watch = store.watch("/", None).await.unwrap();
    assert!(matches!(watch.next().now_or_never(), Some(Some(Ok(WatchEvent::Progress(_))))));
    for _ in 0..100 {
        let revision = store.commit(vec![put("/a", "1")]).await.unwrap().revision;
        match watch.next().now_or_never() {
            Some(Some(Ok(WatchEvent::Changes { revision: seen, .. }))) => assert_eq!(seen, revision),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_watcher_for_which_too_much_waits_is_ended_and_never_blocks_the_writer() {
    let dir = TempDir::new().unwrap();
    let options = EmbeddedOptions { watch_queue_bytes: 1 << 20, ..EmbeddedOptions::new(dir.path()) };
    let store = EmbeddedStore::open(options).unwrap();
    let (slow, mut keeps_up) = (store.watch("/", None).await.unwrap(), store.watch("/", None).await.unwrap());
    let value = "x".repeat(100_000);
    for _ in 0..50 {
        let revision = store.commit(vec![put("/a", &value)]).await.unwrap().revision;
        assert_eq!(next_changes(&mut keeps_up).await.0, revision);
    }
    let events: Vec<_> = slow.collect().await;
    assert!(matches!(events.last(), Some(Err(StoreError::Lagged))));
    // The start, and as many of 100 kB as fit into a MiB.
    assert_eq!(events.len(), 1 + 10 + 1);
}

#[tokio::test]
async fn an_event_larger_than_a_watchers_queue_reaches_a_watcher_that_has_nothing_waiting() {
    let dir = TempDir::new().unwrap();
    let options = EmbeddedOptions { watch_queue_bytes: 1000, ..EmbeddedOptions::new(dir.path()) };
    let store = EmbeddedStore::open(options).unwrap();
    let mut watch = store.watch("/", None).await.unwrap();
    for _ in 0..3 {
        let revision = store.commit(vec![put("/a", &"x".repeat(5000))]).await.unwrap().revision;
        assert_eq!(next_changes(&mut watch).await.0, revision);
    }
}

#[tokio::test]
async fn a_watcher_of_a_quiet_prefix_hears_of_progress() {
    let dir = TempDir::new().unwrap();
    let options =
        EmbeddedOptions { progress_interval: Duration::from_millis(50), ..EmbeddedOptions::new(dir.path()) };
    let store = EmbeddedStore::open(options).unwrap();
    let mut watch = store.watch("/quiet/", None).await.unwrap();
    watch.next().await.unwrap().unwrap();
    let revision = store.commit(vec![put("/loud", "1")]).await.unwrap().revision;
    let progress = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.unwrap();
    assert!(matches!(progress, Some(Ok(WatchEvent::Progress(seen))) if seen == revision));
}

#[tokio::test]
async fn the_memory_of_a_value_is_shared_with_readers_and_watchers() {
    let (_dir, store) = open().await;
    let mut watch = store.watch("/", None).await.unwrap();
    store.commit(vec![put("/a", "a value")]).await.unwrap();
    let read = store.get("/a", ReadAt::Current).await.unwrap().entry.unwrap();
    watch.next().await.unwrap().unwrap();
    match watch.next().await.unwrap().unwrap() {
        WatchEvent::Changes { changes, .. } => match &changes[0] {
            store::Change::Put { entry, .. } => assert_eq!(entry.value.as_ptr(), read.value.as_ptr()),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}
