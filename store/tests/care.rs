//! Copies, moves and checks: nothing is lost, revisions only grow, and what cannot work is said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

mod suite;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use store::care::{self, Place};
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use store::etcd::{EtcdOptions, EtcdStore};
use store::{Contents, ReadAt, Revision, Store, StoreError};
use suite::{PATIENCE, commit, create, delete, put, range, short_lived, update, value_of};
use tempfile::TempDir;
use testbed::Etcd;

fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(EmbeddedOptions::new(dir)).unwrap()
}

fn place(dir: &Path) -> Place {
    Place::Directory(dir.to_owned())
}

fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    result.expect_err("it should be refused").to_string()
}

/// A store with some past, and what is in it.
async fn filled(dir: &Path) -> Contents {
    let store = open(dir);
    for step in 0..60 {
        // Some keys are written again later.
        let writes = (step * 5..step * 5 + 5)
            .map(|n| put(&format!("/registry/core/pods/{:03}", n % 250), &format!("{n} {}", "x".repeat(n))));
        commit(&store, writes.collect::<Vec<_>>()).await;
    }
    commit(&store, [delete("/registry/core/pods/007"), short_lived("/registry/core/events/e", PATIENCE)])
        .await;
    drop(store);
    care::read(&place(dir)).await.unwrap()
}

fn same_data(one: &Contents, other: &Contents) -> bool {
    let values = |contents: &Contents| -> Vec<_> {
        contents.entries.values().map(|entry| (Arc::clone(&entry.key), entry.value.clone())).collect()
    };
    values(one) == values(other)
}

/// What everybody who knew the store at `known` must find after a move.
async fn check_moved(store: &dyn Store, known: Revision, before: &Contents) {
    let all = store.range(range("/")).await.unwrap();
    assert_eq!(all.entries.len(), before.entries.len());
    assert!(all.revision > known);
    for old in [known, known - 20] {
        let read = store.range(store::Range { at: ReadAt::Revision(old), ..range("/") }).await.unwrap_err();
        assert!(matches!(read, StoreError::Compacted { .. }), "{read}");
        let watch = store.watch("/", Some(old + 1)).await.err().expect("an old watch should be refused");
        assert!(matches!(watch, StoreError::Compacted { .. }), "{watch}");
    }
    let one = all.entries.first().unwrap();
    let written = commit(store, [update(&one.key, "changed", one.mod_revision)]).await;
    assert!(written.revision > all.revision);
    let entry = store.get(&one.key, ReadAt::Current).await.unwrap().entry.unwrap();
    assert_eq!(entry.mod_revision, written.revision);
    let present = store.watch("/", Some(all.revision + 1)).await;
    assert!(present.is_ok(), "a watch from the present should start");
}

#[tokio::test]
async fn a_store_moves_to_etcd_and_back_and_its_revisions_only_grow() {
    let (dir, etcd) = (TempDir::new().unwrap(), Etcd::start(1));
    drop(etcd.connect().await);
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let before = filled(&old).await;
    let there = Place::Etcd(etcd.options());
    let moved = care::migrate(&place(&old), &there).await.unwrap();
    assert_eq!((moved.keys, moved.from), (before.entries.len(), before.revision));
    assert!(moved.to > moved.from);

    let store = etcd.connect().await;
    let contents = care::read(&there).await.unwrap();
    assert!(same_data(&contents, &before), "every key with its value");
    assert!(contents.entries.values().all(|entry| entry.mod_revision > before.revision));
    assert!(contents.ends_ms("/registry/core/events/e").is_some(), "what ends by itself still does");
    assert_eq!(contents.revision, moved.to);
    check_moved(&store, before.revision, &before).await;
    // Another server counts the same.
    let other = etcd.connect().await;
    assert_eq!(other.current_revision().await.unwrap(), store.current_revision().await.unwrap());
    drop((store, other));

    let again = refused(care::migrate(&place(&old), &there).await);
    assert!(again.contains("already holds"), "{again}");
    let known = care::read(&there).await.unwrap();
    let back = care::migrate(&there, &place(&new)).await.unwrap();
    assert!(back.to > known.revision);
    check_moved(&open(&new), known.revision, &known).await;
}

#[tokio::test]
async fn a_move_that_was_interrupted_is_no_store_and_can_be_done_again() {
    let (dir, etcd) = (TempDir::new().unwrap(), Etcd::start(1));
    drop(etcd.connect().await);
    let before = filled(dir.path()).await;
    let half = [("/gantry\0origin", "\"unfinished\""), ("/gantry/registry/core/pods/half", "half")];
    let client = etcd_client::Client::connect([etcd.url(0)], None).await.unwrap();
    for (key, value) in half {
        client.kv_client().put(key, value, None).await.unwrap();
    }
    let error = refused(EtcdStore::connect(etcd.options()).await);
    assert!(error.contains("interrupted"), "{error}");
    care::migrate(&place(dir.path()), &Place::Etcd(etcd.options())).await.unwrap();
    assert!(same_data(&care::read(&Place::Etcd(etcd.options())).await.unwrap(), &before));
}

#[tokio::test]
async fn of_moves_to_the_same_place_at_once_at_most_one_is_done_and_is_done_whole() {
    let (dir, etcd) = (TempDir::new().unwrap(), Etcd::start(1));
    drop(etcd.connect().await);
    let sources = [dir.path().join("a"), dir.path().join("b")];
    let before = [filled(&sources[0]).await, filled(&sources[1]).await];
    drop(open(&sources[1]).commit(vec![create("/registry/core/pods/b", "b's own")]).await.unwrap());
    for round in 0..8 {
        let options = EtcdOptions { prefix: format!("/round-{round}"), ..etcd.options() };
        let there = Place::Etcd(options.clone());
        let moves = [0, 1].map(|n| {
            let (from, to) = (place(&sources[n]), there.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(n as u64 * round * 3)).await;
                care::migrate(&from, &to).await
            })
        });
        let mut done = Vec::new();
        for (n, outcome) in futures::future::join_all(moves).await.into_iter().enumerate() {
            match outcome.unwrap() {
                Ok(moved) => done.push((n, moved)),
                Err(StoreError::Setup(reason)) => {
                    assert!(reason.contains("already holds") || reason.contains("meanwhile"), "{reason}");
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(done.len() <= 1, "round {round}: {done:?}");
        if done.is_empty() {
            // Each disturbed the other; then there is no store, until it is done again.
            done.push((0, care::migrate(&place(&sources[0]), &there).await.unwrap()));
        }
        let expected = care::read(&place(&sources[done[0].0])).await.unwrap();
        assert!(same_data(&care::read(&there).await.unwrap(), &expected), "round {round}");
    }
    assert!(same_data(&before[0], &care::read(&place(&sources[0])).await.unwrap()));
}

#[tokio::test]
async fn a_copy_that_would_leave_no_revisions_is_not_restored() {
    let dir = TempDir::new().unwrap();
    let contents = filled(&dir.path().join("a")).await;
    let target = place(&dir.path().join("b"));
    for floor in [u64::MAX, store::REVISION_MAX, store::REVISION_MAX / 2 + 1] {
        let error = refused(care::restore(contents.clone(), &target, floor).await);
        assert!(error.contains("run out"), "{error}");
    }
    let highest = store::REVISION_MAX / 2;
    assert_eq!(care::restore(contents, &target, highest).await.unwrap(), highest + 1);
    let restored = open(&dir.path().join("b"));
    assert_eq!(commit(&restored, [put("/after", "1")]).await.revision, highest + 2);
}

#[tokio::test]
async fn a_copy_made_under_load_is_of_one_revision() {
    let dir = TempDir::new().unwrap();
    let options = EmbeddedOptions {
        // Files come and go all the time.
        segment_bytes: 32 << 10,
        compact_bytes: 64 << 10,
        history_bytes: 16 << 10,
        ..EmbeddedOptions::new(dir.path().join("store"))
    };
    let store = EmbeddedStore::open(options).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        async move {
            let mut step = 0;
            while !stop.load(Ordering::Relaxed) {
                step += 1;
                let text = format!("{step} {}", "x".repeat(step * 37 % 3000));
                commit(&store, [put("/one", &text), put("/two", &text)]).await;
            }
        }
    });
    let mut last = 0;
    for round in 0..20 {
        let acknowledged = store.current_revision().await.unwrap();
        let copy = care::read(&place(&dir.path().join("store"))).await.unwrap();
        assert!(copy.revision >= acknowledged && copy.revision >= last, "what was acknowledged is in it");
        last = copy.revision;
        let value = |key: &str| copy.entries.get(key).map(|entry| entry.value.clone());
        assert_eq!(value("/one"), value("/two"), "round {round}");
    }
    let used = refused(care::verify(&dir.path().join("store")).await);
    assert!(used.contains("in use"), "{used}");
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let now = store.current_revision().await.unwrap();
    drop(store);
    assert_eq!(care::verify(&dir.path().join("store")).await.unwrap().revision, now);
}

#[tokio::test]
async fn a_copy_comes_back_whole_with_a_revision_that_nobody_has_seen() {
    let dir = TempDir::new().unwrap();
    let (data, file, restored) = (dir.path().join("a"), dir.path().join("copy"), dir.path().join("b"));
    let before = filled(&data).await;
    care::save(before.clone(), &file).await.unwrap();
    let loaded = care::load(&file).await.unwrap();
    assert_eq!(loaded, before);
    // Meanwhile the store went on.
    let store = open(&data);
    let lost = commit(&store, [create("/lost", "1")]).await.revision;
    drop(store);
    let revision = care::restore(loaded, &place(&restored), before.revision + 1000).await.unwrap();
    assert!(revision > lost);
    let store = open(&restored);
    assert_eq!(store.current_revision().await.unwrap(), revision);
    assert_eq!(value_of(&store, "/lost").await, None);
    check_moved(&store, revision - 1, &before).await;
    drop(store);
    let store = open(&restored);
    assert!(store.current_revision().await.unwrap() > revision, "and it goes on after a restart");
}

#[tokio::test]
async fn a_restore_that_was_interrupted_is_no_empty_store_and_can_be_done_again() {
    let dir = TempDir::new().unwrap();
    let (data, restored) = (dir.path().join("a"), dir.path().join("b"));
    let before = filled(&data).await;
    std::fs::create_dir(&restored).unwrap();
    std::fs::write(restored.join("00000000000000000042.snapshot.unfinished"), "half").unwrap();
    for _ in 0..2 {
        let error = refused(EmbeddedStore::open(EmbeddedOptions::new(&restored)).map(|_| ()));
        assert!(error.contains("interrupted") && error.contains("restore it again"), "{error}");
    }
    care::restore(before.clone(), &place(&restored), before.revision).await.unwrap();
    check_moved(&open(&restored), before.revision, &before).await;
    // What a compaction has left beside its log is nothing to stop for.
    std::fs::write(data.join("00000000000000009999.snapshot.unfinished"), "half").unwrap();
    assert!(same_data(&care::read(&place(&data)).await.unwrap(), &before));
    drop(open(&data));
}

#[tokio::test]
async fn a_copy_that_is_damaged_cut_short_or_something_else_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("copy");
    care::save(filled(&dir.path().join("store")).await, &file).await.unwrap();
    let again = refused(care::save(Contents::default(), &file).await);
    assert!(again.contains("exists"), "{again}");
    let whole = std::fs::read(&file).unwrap();
    let refused_with = async |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let error = refused(care::load(&file).await);
        assert!(error.contains(file.to_str().unwrap()), "{error}");
        error
    };
    for length in [0, 10, 31, 32, 100, whole.len() / 2, whole.len() - 1] {
        refused_with(&whole[..length]).await;
    }
    for at in (0..whole.len()).step_by(997) {
        let mut flipped = whole.clone();
        flipped[at] ^= 4;
        refused_with(&flipped).await;
    }
    refused_with(&[&whole[..], b"more"].concat()).await;
    let other = refused_with(b"apiVersion: v1\nkind: List\n").await;
    assert!(other.contains("not a snapshot"), "{other}");
}

#[tokio::test]
async fn what_cannot_be_cared_for_is_said() {
    let dir = TempDir::new().unwrap();
    let (data, missing) = (dir.path().join("store"), dir.path().join("missing"));
    let contents = filled(&data).await;
    let full = refused(care::restore(contents.clone(), &place(&data), 0).await);
    assert!(full.contains("not empty"), "{full}");
    for error in [refused(care::read(&place(&missing)).await), refused(care::verify(&missing).await)] {
        assert!(error.contains(missing.to_str().unwrap()), "{error}");
    }
    let empty = TempDir::new().unwrap();
    let nothing = refused(care::read(&place(empty.path())).await);
    assert!(nothing.contains("no store in"), "{nothing}");
    let below = refused(care::read(&place(&data.join("store"))).await);
    assert!(below.contains("no store in") && below.contains("name the directory that holds it"), "{below}");
    let store = open(&data);
    let used = refused(care::migrate(&place(&data), &place(&dir.path().join("new"))).await);
    assert!(used.contains("in use"), "{used}");
    drop(store);
    let nobody = EtcdOptions {
        connect_timeout: Duration::from_millis(500),
        ..EtcdOptions::new(vec!["http://127.0.0.1:1".into()])
    };
    let unreachable = refused(care::migrate(&place(&data), &Place::Etcd(nobody)).await);
    assert!(unreachable.contains("127.0.0.1:1"), "{unreachable}");
    let log = std::fs::read_dir(&data).unwrap().map(|file| file.unwrap().path());
    let log: PathBuf = log.filter(|path| path.extension().is_some_and(|kind| kind == "log")).max().unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let damaged = refused(care::verify(&data).await);
    assert!(damaged.contains(log.to_str().unwrap()) && damaged.contains("offset"), "{damaged}");
}
