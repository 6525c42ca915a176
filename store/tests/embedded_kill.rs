//! The embedded engine under SIGKILL, and its directory under a second process.
//!
//! The test binary runs itself as the victim: the test named `victim` does nothing unless it is told a directory.
//! `STORE_KILL_ROUNDS` sets how often it dies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use store::{Action, Change, Entry, Precondition, Range, ReadAt, Revision, Store, WatchEvent, Write};
use tempfile::TempDir;

const VICTIM_DIR: &str = "STORE_TEST_VICTIM_DIR";
const VICTIM_WATCHES_FROM: &str = "STORE_TEST_VICTIM_WATCHES_FROM";
const WRITERS: usize = 8;
/// How far the victim's watch may be behind; the history has room for far more.
const LAG_MAX: u64 = 50;

fn put(key: &str, value: String) -> Write {
    let action = Action::Put { value: value.into(), time_to_live: None };
    Write { key: key.into(), precondition: Precondition::None, action }
}

/// Small segments, so that rotation, snapshots and removal happen all the time.
fn busy_options(dir: &Path) -> EmbeddedOptions {
    EmbeddedOptions {
        segment_bytes: 128 << 10,
        compact_bytes: 256 << 10,
        history_bytes: 1 << 20,
        ..EmbeddedOptions::new(dir)
    }
}

fn count_of(entry: &Entry) -> u64 {
    std::str::from_utf8(&entry.value).unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// Writes counters as fast as it can, and prints each one that was acknowledged and each one that its watch showed,
/// until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Some(dir) = std::env::var_os(VICTIM_DIR) else { return };
    let store = EmbeddedStore::open(busy_options(Path::new(&dir))).unwrap();
    println!("ready");
    let from: Revision = std::env::var(VICTIM_WATCHES_FROM).unwrap().parse().unwrap();
    let mut watch = store.watch("/n/", Some(from)).await.unwrap();
    let seen = Arc::new(AtomicU64::new(from - 1));
    for writer in 0..WRITERS {
        let (store, seen) = (store.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            let key = format!("/n/{writer}");
            let mut count =
                store.get(&key, ReadAt::Current).await.unwrap().entry.as_ref().map_or(0, count_of);
            loop {
                while store.current_revision().await.unwrap() > seen.load(Ordering::Relaxed) + LAG_MAX {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                count += 1;
                let filling = "x".repeat((count as usize * 37) % 3000);
                // Two keys in one transaction: after a crash both have it or none.
                let twin = put(&format!("/twin{key}"), count.to_string());
                let committed =
                    store.commit(vec![put(&key, format!("{count} {filling}")), twin]).await.unwrap();
                println!("acknowledged {writer} {count} {}", committed.revision);
            }
        });
    }
    loop {
        if let WatchEvent::Changes { revision, changes } = watch.next().await.unwrap().unwrap() {
            let Change::Put { entry, .. } = &changes[0] else { panic!("{changes:?}") };
            println!("seen {revision} {} {}", entry.key, count_of(entry));
            seen.store(revision, Ordering::Relaxed);
        }
    }
}

fn start_victim(dir: &Path, watches_from: Revision) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM_DIR, dir)
        .env(VICTIM_WATCHES_FROM, watches_from.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What all the victims said, taken together.
struct Told {
    /// The newest acknowledged count by key.
    acknowledged: HashMap<String, u64>,
    /// The newest revision that was acknowledged or shown.
    revision: Revision,
    /// The next revision that a watch has to show, and the counts by key that it has shown.
    next: Revision,
    shown: HashMap<String, u64>,
}

impl Told {
    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["acknowledged", writer, count, revision] => {
                self.acknowledged.insert(format!("/n/{writer}"), count.parse().unwrap());
                self.revision = self.revision.max(revision.parse().unwrap());
            }
            ["seen", revision, key, count] => {
                let (revision, count): (Revision, u64) = (revision.parse().unwrap(), count.parse().unwrap());
                self.show(revision, key, count);
            }
            _ => {}
        }
    }

    /// Every revision has one counter in it, which grows by one: no gap, no repetition, no other past after a crash.
    fn show(&mut self, revision: Revision, key: &str, count: u64) {
        assert_eq!(revision, self.next, "a gap or a repetition");
        let before = self.shown.insert(key.to_owned(), count).unwrap_or(0);
        assert_eq!(count, before + 1, "{key} at revision {revision}");
        self.next = revision + 1;
        self.revision = self.revision.max(revision);
    }

    /// Compares what is there after a kill, and what a watch that is resumed shows of it.
    async fn check(&mut self, store: &EmbeddedStore) {
        let all = store.range(Range { prefix: "/".into(), ..Range::default() }).await.unwrap();
        assert!(all.revision >= self.revision, "at {} after {}", all.revision, self.revision);
        let counts: HashMap<&str, u64> =
            all.entries.iter().map(|entry| (&*entry.key, count_of(entry))).collect();
        for writer in 0..WRITERS {
            let key = format!("/n/{writer}");
            let there = counts.get(key.as_str()).copied().unwrap_or(0);
            let acknowledged = self.acknowledged.get(&key).copied().unwrap_or(0);
            // The victim may have died between an acknowledgement and printing it, and the next commit.
            assert!(there >= acknowledged, "{key} was acknowledged at {acknowledged} and is at {there}");
            assert!(there <= acknowledged + 2, "{key} is at {there}, acknowledged {acknowledged}");
            let twin = counts.get(format!("/twin{key}").as_str()).copied().unwrap_or(0);
            assert_eq!(twin, there, "half a transaction of {key}");
            self.acknowledged.insert(key, there);
        }
        let mut watch = store.watch("/n/", Some(self.next)).await.unwrap();
        while self.next <= all.revision {
            if let WatchEvent::Changes { revision, changes } = watch.next().await.unwrap().unwrap() {
                let Change::Put { entry, .. } = &changes[0] else { panic!("{changes:?}") };
                self.show(revision, &entry.key, count_of(entry));
            }
        }
    }
}

#[tokio::test]
async fn after_every_kill_each_acknowledged_write_is_there_and_watches_resume_without_gap_or_repetition() {
    let rounds = std::env::var("STORE_KILL_ROUNDS").map_or(20, |rounds| rounds.parse::<usize>().unwrap());
    let dir = TempDir::new().unwrap();
    let mut rng = SmallRng::seed_from_u64(1);
    let mut told = Told { acknowledged: HashMap::new(), revision: 1, next: 2, shown: HashMap::new() };
    for round in 0..rounds {
        let mut victim = start_victim(dir.path(), told.next);
        let output = victim.stdout.take().unwrap();
        let reader = std::thread::spawn(move || std::io::read_to_string(output).unwrap());
        // Some die while they recover, most of them under load.
        tokio::time::sleep(Duration::from_millis(rng.random_range(5..250))).await;
        victim.kill().unwrap();
        victim.wait().unwrap();
        for line in reader.join().unwrap().split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            told.take(line);
        }
        // Every other time the next victim has to cope by itself.
        if round % 2 == 0 {
            told.check(&EmbeddedStore::open(busy_options(dir.path())).unwrap()).await;
        }
    }
    told.check(&EmbeddedStore::open(busy_options(dir.path())).unwrap()).await;
    println!("{rounds} kills, {} revisions", told.revision);
    assert!(
        told.revision > 10 * rounds as u64,
        "the victims should have got some work done: {}",
        told.revision
    );
}

#[tokio::test]
async fn a_second_process_is_refused_with_the_directory_and_the_first_ones_name() {
    let dir = TempDir::new().unwrap();
    let mut victim = start_victim(dir.path(), 2);
    let mut output = BufReader::new(victim.stdout.take().unwrap()).lines();
    output.find(|line| line.as_ref().is_ok_and(|line| line.contains("ready"))).unwrap().unwrap();
    // The lock is on the directory: removing files in it frees nothing.
    std::fs::remove_file(dir.path().join("lock")).unwrap();
    let nameless = EmbeddedStore::open(EmbeddedOptions::new(dir.path())).unwrap_err().to_string();
    std::fs::write(dir.path().join("lock"), victim.id().to_string()).unwrap();
    let error = EmbeddedStore::open(EmbeddedOptions::new(dir.path())).unwrap_err().to_string();
    let (pid, name) = (victim.id(), std::fs::read_to_string(format!("/proc/{}/comm", victim.id())).unwrap());
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(nameless.contains("another process"), "{nameless}");
    let owner = format!("{} (pid {pid})", name.trim());
    assert!(error.contains(&owner) && error.contains(dir.path().to_str().unwrap()), "{error}");
    EmbeddedStore::open(EmbeddedOptions::new(dir.path())).unwrap();
}
