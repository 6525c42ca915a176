//! The etcd backend passes the suite against a real etcd, and what it promises when etcd goes away.
//! Needs `etcd` on the path (Debian: `etcd-server`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

mod suite;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use store::etcd::{EtcdOptions, EtcdStore};
use store::{ReadAt, Store, StoreError, WatchEvent};
use suite::{create, put};
use tempfile::TempDir;

/// A real etcd on loopback, stopped when dropped.
struct Etcd {
    process: Option<Child>,
    dir: TempDir,
    client_port: u16,
    peer_port: u16,
}

impl Etcd {
    fn start() -> Self {
        let free_port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut etcd = Self {
            process: None,
            dir: TempDir::new().unwrap(),
            client_port: free_port(),
            peer_port: free_port(),
        };
        etcd.run();
        etcd
    }

    fn run(&mut self) {
        let client = self.url();
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.dir.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--logger", "zap"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd should be installed (Debian: etcd-server)");
        self.process = Some(process);
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    async fn connect(&self) -> EtcdStore {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let mut options = EtcdOptions::new(vec![self.url()]);
            options.connect_timeout = Duration::from_secs(1);
            match EtcdStore::connect(options).await {
                Ok(store) => return store,
                Err(error) if Instant::now() > deadline => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn open() -> (Etcd, Arc<dyn Store>) {
    let etcd = Etcd::start();
    let store = etcd.connect().await;
    (etcd, Arc::new(store))
}

store_suite!(open;
    revisions_grow_by_one_per_transaction,
    entries_carry_their_history,
    a_failed_precondition_writes_nothing_and_says_what_is_there,
    deleting_what_is_not_there_makes_no_revision,
    of_racing_creations_one_wins,
    counters_that_race_lose_no_step,
    ranges_are_in_order_paged_and_consistent,
    older_revisions_read_as_they_were,
    the_future_and_the_compacted_past_are_refused,
    a_watch_delivers_each_change_once_in_order_with_what_was_there,
    changes_of_one_revision_come_together,
    a_watch_from_an_older_revision_replays_and_then_follows,
    watchers_under_load_miss_nothing,
    a_time_to_live_ends_in_a_deletion,
    large_values_and_large_ranges_come_through,
    a_malformed_transaction_is_refused,
);

#[tokio::test]
async fn a_range_larger_than_a_page_is_read_whole() {
    let (_etcd, store) = open().await;
    for chunk in 0..12 {
        let writes = (0..100).map(|n| put(&format!("/k/{chunk:02}{n:02}"), "v")).collect();
        store.commit(writes).await.unwrap();
    }
    let range = store::Range { prefix: "/k/".into(), ..store::Range::default() };
    let all = store.range(range.clone()).await.unwrap();
    assert_eq!((all.entries.len(), all.remaining), (1200, 0));
    assert!(all.entries.is_sorted_by_key(|entry| entry.key.clone()));
    let some = store.range(store::Range { limit: 1100, ..range }).await.unwrap();
    assert_eq!((some.entries.len(), some.remaining), (1100, 100));
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_after_etcd_restarts() {
    let (mut etcd, store) = open().await;
    let mut watch = store.watch("/k/", None).await.unwrap();
    let first = store.commit(vec![put("/k/a", "1")]).await.unwrap().revision;
    let changes = async |watch: &mut store::WatchStream| loop {
        let event = tokio::time::timeout(Duration::from_secs(30), watch.next()).await.unwrap();
        if let WatchEvent::Changes { revision, .. } = event.unwrap().unwrap() {
            return revision;
        }
    };
    assert_eq!(changes(&mut watch).await, first);
    etcd.kill();
    etcd.run();
    let second = loop {
        // Unconditional: whoever loses the answer has to look, which this test does by the value.
        match store.commit(vec![create("/k/b", "2")]).await {
            Ok(committed) => break committed.revision,
            Err(StoreError::OutcomeUnknown(_) | StoreError::Unavailable(_)) => {}
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(changes(&mut watch).await, second);
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
        etcd.kill();
        etcd.run();
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
    let mut other = EtcdOptions::new(vec![etcd.url()]);
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
        tokio::time::timeout(Duration::from_secs(5), caught_up).await.expect("the watch should catch up");
    }
    // What was written to find that out is nobody's business.
    let all = store.range(store::Range::default()).await.unwrap();
    assert_eq!(all.entries.iter().map(|entry| &*entry.key).collect::<Vec<_>>(), ["/k/a"]);
}

#[tokio::test]
async fn history_is_given_up_after_its_time() {
    let etcd = Etcd::start();
    drop(etcd.connect().await);
    let mut options = EtcdOptions::new(vec![etcd.url()]);
    options.history_age = Some(Duration::from_millis(300));
    let store = EtcdStore::connect(options).await.unwrap();
    let old = store.commit(vec![put("/a", "1")]).await.unwrap().revision;
    let deadline = Instant::now() + Duration::from_secs(10);
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
