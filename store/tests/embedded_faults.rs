//! The embedded engine under SIGKILL, torn and damaged files, a full disk and a second process.
//!
//! The test binary runs itself as the victim: the test named `victim` does nothing unless it is told a directory. The
//! full-disk test mounts a small tmpfs and needs root; without it, it says so and passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use store::{Action, Precondition, Range, ReadAt, Store, StoreError, Write};
use tempfile::TempDir;

const VICTIM_DIR: &str = "STORE_TEST_VICTIM_DIR";
const WRITERS: usize = 8;

fn put(key: &str, value: impl Into<Bytes>) -> Write {
    Write {
        key: key.into(),
        precondition: Precondition::None,
        action: Action::Put { value: value.into(), time_to_live: None },
    }
}

/// Small segments, so that rotation, snapshots and removal happen all the time.
fn busy_options(dir: &Path) -> EmbeddedOptions {
    EmbeddedOptions {
        segment_bytes: 32 << 10,
        compact_bytes: 64 << 10,
        history_bytes: 16 << 10,
        ..EmbeddedOptions::new(dir)
    }
}

/// Writes counters as fast as it can and prints each one that was acknowledged, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Some(dir) = std::env::var_os(VICTIM_DIR) else { return };
    let store = EmbeddedStore::open(busy_options(Path::new(&dir))).unwrap();
    println!("ready");
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let key = format!("/n/{writer}");
            let at = |entry: Option<store::Entry>| {
                entry.map_or(0, |entry| {
                    let text = String::from_utf8(entry.value.to_vec()).unwrap();
                    text.split(' ').next().unwrap().parse::<u64>().unwrap()
                })
            };
            let mut count = at(store.get(&key, ReadAt::Current).await.unwrap().entry);
            loop {
                count += 1;
                let filling = "x".repeat((count as usize * 37) % 3000);
                // Two keys in one transaction: after a crash both have it or none.
                let writes = [
                    put(&key, format!("{count} {filling}")),
                    put(&format!("/twin{key}"), format!("{count}")),
                ];
                store.commit(writes.into()).await.unwrap();
                println!("{writer} {count}");
                std::io::stdout().flush().unwrap();
            }
        })
    });
    futures::future::join_all(writers).await;
}

fn start_victim(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn after_every_kill_each_acknowledged_write_is_there_and_no_transaction_is_half_there() {
    let dir = TempDir::new().unwrap();
    let mut rng = SmallRng::seed_from_u64(1);
    let mut acknowledged: HashMap<String, u64> = HashMap::new();
    for round in 0..20 {
        let mut victim = start_victim(dir.path());
        let output = BufReader::new(victim.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let mut seen = HashMap::new();
            for line in output.lines().map_while(Result::ok) {
                if let Some((writer, count)) = line.split_once(' ')
                    && let (Ok(writer), Ok(count)) = (writer.parse::<usize>(), count.parse::<u64>())
                {
                    seen.insert(format!("/n/{writer}"), count);
                }
            }
            seen
        });
        tokio::time::sleep(Duration::from_millis(rng.random_range(30..250))).await;
        victim.kill().unwrap();
        victim.wait().unwrap();
        acknowledged.extend(reader.join().unwrap());
        let store = EmbeddedStore::open(busy_options(dir.path())).unwrap();
        let all = store.range(Range { prefix: "/".into(), ..Range::default() }).await.unwrap();
        let counts: HashMap<&str, u64> = all
            .entries
            .iter()
            .map(|entry| {
                let text = std::str::from_utf8(&entry.value).unwrap();
                (&*entry.key, text.split(' ').next().unwrap().parse().unwrap())
            })
            .collect();
        for (key, count) in &acknowledged {
            let there = counts.get(key.as_str()).copied().unwrap_or(0);
            assert!(there >= *count, "round {round}: {key} was acknowledged at {count} and is at {there}");
            assert!(there <= count + 1, "round {round}: {key} is at {there}, acknowledged {count}");
            assert_eq!(
                counts.get(format!("/twin{key}").as_str()),
                Some(&there),
                "round {round}: half a transaction"
            );
        }
    }
    assert!(
        acknowledged.values().sum::<u64>() > 500,
        "the victims should have got some work done: {acknowledged:?}"
    );
}

async fn filled(dir: &Path, writes: usize) {
    let store = EmbeddedStore::open(EmbeddedOptions::new(dir)).unwrap();
    for n in 0..writes {
        store.commit(vec![put(&format!("/k/{n}"), format!("value {n}"))]).await.unwrap();
    }
}

fn log_file(dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().unwrap()
}

/// The log without the zeros that it was extended with.
fn written(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    bytes
}

async fn count(store: &EmbeddedStore) -> usize {
    store.range(Range { prefix: "/k/".into(), ..Range::default() }).await.unwrap().entries.len()
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_the_rest_is_there() {
    let dir = TempDir::new().unwrap();
    filled(dir.path(), 20).await;
    let path = log_file(dir.path());
    let whole = written(&path);
    for cut in 1..40 {
        std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let store = EmbeddedStore::open(EmbeddedOptions::new(dir.path())).unwrap();
        assert_eq!(count(&store).await, 19, "cut {cut}");
        // And it goes on from there.
        store.commit(vec![put("/k/new", "v")]).await.unwrap();
        drop(store);
        let store = EmbeddedStore::open(EmbeddedOptions::new(dir.path())).unwrap();
        assert_eq!(count(&store).await, 20, "cut {cut}");
        drop(store);
        std::fs::write(&path, &whole).unwrap();
    }
}

#[tokio::test]
async fn a_flipped_byte_anywhere_fails_the_start_with_file_and_offset() {
    let dir = TempDir::new().unwrap();
    filled(dir.path(), 20).await;
    let path = log_file(dir.path());
    let whole = written(&path);
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        std::fs::write(&path, &flipped).unwrap();
        match EmbeddedStore::open(EmbeddedOptions::new(dir.path())) {
            Err(StoreError::Corrupt(message)) => {
                assert!(message.contains(path.to_str().unwrap()) && message.contains("offset"), "{message}");
            }
            Err(other) => panic!("byte {at}: {other}"),
            Ok(_) => panic!("byte {at}: opened"),
        }
        assert_eq!(std::fs::read(&path).unwrap(), flipped, "a damaged file is left as it is");
    }
    std::fs::write(&path, &whole).unwrap();
    let store = EmbeddedStore::open(EmbeddedOptions::new(dir.path())).unwrap();
    assert_eq!(count(&store).await, 20);
}

#[tokio::test]
async fn a_damaged_snapshot_or_a_missing_segment_fails_the_start() {
    let dir = TempDir::new().unwrap();
    // First so that a snapshot is taken, then so that segments stay.
    let keep = EmbeddedOptions { compact_bytes: 1 << 30, ..busy_options(dir.path()) };
    for options in [busy_options(dir.path()), keep] {
        let store = EmbeddedStore::open(options).unwrap();
        for n in 0..400 {
            store.commit(vec![put(&format!("/k/{}", n % 40), "v".repeat(1000))]).await.unwrap();
        }
    }
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let snapshot = files.iter().find(|path| path.extension().is_some_and(|e| e == "snapshot")).unwrap();
    let whole = std::fs::read(snapshot).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::write(snapshot, damaged).unwrap();
    let error = EmbeddedStore::open(busy_options(dir.path())).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt(message) if message.contains(".snapshot")), "{error}");
    std::fs::write(snapshot, whole).unwrap();
    let segments: Vec<_> = files.iter().filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    assert!(segments.len() > 2);
    std::fs::remove_file(segments[segments.len() / 2]).unwrap();
    let error = EmbeddedStore::open(busy_options(dir.path())).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt(message) if message.contains("missing")), "{error}");
}

#[tokio::test]
async fn a_second_process_is_refused_with_the_directory_and_the_first_ones_pid() {
    let dir = TempDir::new().unwrap();
    let mut victim = start_victim(dir.path());
    let mut output = BufReader::new(victim.stdout.take().unwrap()).lines();
    output.find(|line| line.as_ref().is_ok_and(|line| line.contains("ready"))).unwrap().unwrap();
    let error = EmbeddedStore::open(EmbeddedOptions::new(dir.path())).unwrap_err().to_string();
    let pid = victim.id().to_string();
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(error.contains(&pid) && error.contains(dir.path().to_str().unwrap()), "{error}");
    EmbeddedStore::open(EmbeddedOptions::new(dir.path())).unwrap();
}

/// A small file system of its own, unmounted when dropped.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let flags = nix::mount::MsFlags::empty();
        match nix::mount::mount(Some("tmpfs"), dir.path(), Some("tmpfs"), flags, Some("size=3m")) {
            Ok(()) => Some(Self { dir }),
            Err(error) => {
                println!("skipped: a full disk needs root to mount one ({error})");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(self.dir.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test]
async fn on_a_full_disk_writes_are_refused_reads_go_on_and_space_brings_writes_back() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.dir.path().join("data");
    let store = Arc::new(EmbeddedStore::open(EmbeddedOptions::new(&dir)).unwrap());
    let ballast = disk.dir.path().join("ballast");
    std::fs::write(&ballast, vec![1; 512 << 10]).unwrap();
    let mut kept = 0;
    let error = loop {
        match store.commit(vec![put(&format!("/k/{kept}"), vec![7; 50_000])]).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 100, "the disk should be full by now");
    };
    assert!(matches!(error, StoreError::NoSpace(_)), "{error}");
    assert_eq!(count(&store).await, kept);
    let again = store.commit(vec![put("/k/again", vec![7; 50_000])]).await.unwrap_err();
    assert!(matches!(again, StoreError::NoSpace(_)), "{again}");
    std::fs::remove_file(&ballast).unwrap();
    store.commit(vec![put("/k/after", vec![7; 50_000])]).await.unwrap();
    drop(store);
    let store = EmbeddedStore::open(EmbeddedOptions::new(&dir)).unwrap();
    assert_eq!(count(&store).await, kept + 1);
}
