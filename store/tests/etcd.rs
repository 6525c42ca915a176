//! The etcd backend passes the suite against a real etcd, and what it promises when etcd goes away.
//! Needs `etcd` on the path (Debian: `etcd-server`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

mod suite;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use store::etcd::{EtcdOptions, EtcdStore};
use store::{Range, ReadAt, Store, StoreError, WatchEvent};
use suite::history::{self, Plan};
use suite::model::seeds;
use suite::{PATIENCE, create, next_changes, put, range};
use testbed::Etcd;

async fn open() -> (Etcd, Arc<dyn Store>) {
    let etcd = Etcd::start(1);
    let store = etcd.connect().await;
    (etcd, Arc::new(store))
}

store_suite!(open);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories_are_linearizable_and_watched_rightly() {
    let etcd = Etcd::start(1);
    for seed in seeds(2) {
        // Each on keys of its own.
        let options = EtcdOptions { prefix: format!("/history-{seed}"), ..etcd.options() };
        let store: Arc<dyn Store> = Arc::new(Etcd::connect_with(options).await);
        let plan = Plan { seed, clients: 6, steps: 60, watchers: 4, pause: Duration::ZERO };
        let outcome = history::run(Arc::clone(&store), store, plan).await.unwrap();
        assert!(outcome.acknowledged > 30 && outcome.unknown == 0 && outcome.resumed > 0, "{outcome:?}");
    }
}

#[tokio::test]
async fn a_range_larger_than_a_page_is_read_whole() {
    let (_etcd, store) = open().await;
    for chunk in 0..12 {
        let writes = (0..100).map(|n| put(&format!("/k/{chunk:02}{n:02}"), "v")).collect();
        store.commit(writes).await.unwrap();
    }
    let all = store.range(range("/k/")).await.unwrap();
    assert_eq!((all.entries.len(), all.remaining), (1200, 0));
    assert!(all.entries.is_sorted_by_key(|entry| entry.key.clone()));
    let some = store.range(Range { limit: 1100, ..range("/k/") }).await.unwrap();
    assert_eq!((some.entries.len(), some.remaining), (1100, 100));
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_after_etcd_restarts() {
    let (mut etcd, store) = open().await;
    let mut watch = store.watch("/k/", None).await.unwrap();
    let first = store.commit(vec![put("/k/a", "1")]).await.unwrap().revision;
    assert_eq!(next_changes(&mut watch).await.0, first);
    etcd.kill(0);
    etcd.run(0);
    let second = loop {
        // Unconditional: whoever loses the answer has to look, which this test does by the value.
        match store.commit(vec![create("/k/b", "2")]).await {
            Ok(committed) => break committed.revision,
            Err(StoreError::OutcomeUnknown(_) | StoreError::Unavailable(_)) => {}
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(next_changes(&mut watch).await.0, second);
}

#[tokio::test]
async fn under_repeated_kills_of_etcd_no_write_is_applied_twice_or_lost() {
    let (mut etcd, store) = open().await;
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut at = store.commit(vec![create("/n", "0")]).await.unwrap().revision;
            let mut unknown = 0;
            for step in 1..=400 {
                let mut write = put("/n", &step.to_string());
                write.precondition = store::Precondition::ModRevision(at);
                match store.commit(vec![write]).await {
                    Ok(committed) => {
                        let previous = committed.previous[0].as_ref().unwrap();
                        assert_eq!(previous.mod_revision, at, "step {step}");
                        at = committed.revision;
                    }
                    Err(StoreError::OutcomeUnknown(_)) => {
                        unknown += 1;
                        at = store.get("/n", ReadAt::Current).await.unwrap().entry.unwrap().mod_revision;
                    }
                    Err(other) => panic!("step {step}: {other}"),
                }
            }
            unknown
        })
    };
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        etcd.kill(0);
        etcd.run(0);
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    let unknown = tokio::time::timeout(Duration::from_secs(60), writer).await.unwrap().unwrap();
    assert_eq!(unknown, 0, "conditional puts can always be found out about");
    let entry = store.get("/n", ReadAt::Current).await.unwrap().entry.unwrap();
    assert_eq!((&*entry.value, entry.version), (&b"400"[..], 401));
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let mut options = EtcdOptions::new(vec!["http://127.0.0.1:1".into()]);
    options.connect_timeout = Duration::from_millis(500);
    let error = EtcdStore::connect(options).await.unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn a_watch_catches_up_with_revisions_that_others_made() {
    let (etcd, store) = open().await;
    let mut watch = store.watch("/k/", None).await.unwrap();
    store.commit(vec![put("/k/a", "1")]).await.unwrap();
    let mut other = etcd.options();
    other.prefix = "/elsewhere".into();
    let other = EtcdStore::connect(other).await.unwrap();
    for round in 0..5 {
        let theirs = other.commit(vec![put("/k/a", "theirs")]).await.unwrap().revision;
        let revision = store.current_revision().await.unwrap();
        assert!(revision >= theirs);
        let caught_up = async {
            loop {
                match watch.next().await.unwrap().unwrap() {
                    WatchEvent::Progress(seen) if seen >= revision => return,
                    WatchEvent::Progress(_) => {}
                    WatchEvent::Changes { changes, .. } => assert_eq!((round, changes.len()), (0, 1)),
                }
            }
        };
        tokio::time::timeout(PATIENCE, caught_up).await.expect("the watch should catch up");
    }
    // What was written to find that out is nobody's business.
    let all = store.range(Range::default()).await.unwrap();
    assert_eq!(all.entries.iter().map(|entry| &*entry.key).collect::<Vec<_>>(), ["/k/a"]);
}

#[tokio::test]
async fn history_is_given_up_after_its_time() {
    let etcd = Etcd::start(1);
    drop(etcd.connect().await);
    let mut options = etcd.options();
    options.history_age = Some(Duration::from_millis(300));
    let store = EtcdStore::connect(options).await.unwrap();
    let old = store.commit(vec![put("/a", "1")]).await.unwrap().revision;
    let deadline = Instant::now() + PATIENCE;
    loop {
        store.commit(vec![put("/a", "2")]).await.unwrap();
        match store.get("/a", ReadAt::Revision(old)).await {
            Err(StoreError::Compacted { .. }) => break,
            Err(other) => panic!("{other}"),
            Ok(_) => assert!(Instant::now() < deadline, "the history should have gone"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(store.get("/a", ReadAt::Current).await.unwrap().entry.is_some());
}
