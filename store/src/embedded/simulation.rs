//! The engine on a simulated disk: whatever fails and whenever the power goes, what was acknowledged or shown is there,
//! what was refused is not, nothing is half there, and revisions go on. And: every byte of every file is guarded.
//!
//! `STORE_SEEDS` sets how many seeds are tried, `STORE_SEED` replays one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::disk::Disk;
use super::frame::FrameBuffer;
use super::record::encode_compaction;
use super::segment::Segment;
use super::simulated_disk::SimulatedDisk;
use super::{EmbeddedOptions, EmbeddedStore, recovery, snapshot};
use crate::{
    Action, Change, Contents, Precondition, REVISION_MAX, Range, ReadAt, Revision, Store, StoreError,
    WatchEvent, WatchStream, Write,
};

const WRITERS: usize = 3;

/// So small that segments and snapshots come and go all the time.
fn options() -> EmbeddedOptions {
    EmbeddedOptions {
        segment_bytes: 4 << 10,
        compact_bytes: 6 << 10,
        history_bytes: 6 << 10,
        ..EmbeddedOptions::new("/data")
    }
}

fn write(key: &str, action: Action) -> Write {
    Write { key: key.into(), precondition: Precondition::None, action }
}

fn put(key: &str, value: impl Into<Bytes>) -> Write {
    write(key, Action::Put { value: value.into(), time_to_live: None })
}

/// Every transaction writes a counter and its twin, with a filling of any kind behind it.
fn counting(writer: usize, count: u64, random: &mut SmallRng) -> Vec<Write> {
    let filling = vec![[0, b'x'][random.random_range(0..2)]; random.random_range(0..1500)];
    let value = [&count.to_le_bytes()[..], &filling].concat();
    vec![put(&format!("/n/{writer}"), value), put(&format!("/twin/{writer}"), count.to_le_bytes().to_vec())]
}

fn count_of(value: &[u8]) -> u64 {
    u64::from_le_bytes(*value.first_chunk().unwrap())
}

/// What the engine promised so far, over all its lives.
#[derive(Debug, Default)]
struct Promises {
    /// The last attempt of each writer.
    attempted: [u64; WRITERS],
    /// The newest acknowledged one.
    acknowledged: [u64; WRITERS],
    /// Those of which was said that they did not happen.
    refused: BTreeSet<(usize, u64)>,
    /// The newest revision that was acknowledged or shown.
    revision: Revision,
    /// What watches showed of each revision.
    shown: BTreeMap<Revision, Arc<[Change]>>,
}

impl Promises {
    fn note(&mut self, writer: usize, count: u64, result: Result<crate::Committed, StoreError>) {
        match result {
            Ok(committed) => {
                self.acknowledged[writer] = count;
                self.revision = self.revision.max(committed.revision);
            }
            Err(StoreError::OutcomeUnknown(_)) => {}
            Err(StoreError::NoSpace(_) | StoreError::Unavailable(_)) => {
                self.refused.insert((writer, count));
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Checks what a new life begins with.
    async fn check(&self, store: &EmbeddedStore) {
        let all = store.range(Range { prefix: "/".into(), ..Range::default() }).await.unwrap();
        assert!(all.revision >= self.revision, "{} was promised, {} is there", self.revision, all.revision);
        let counts: BTreeMap<&str, u64> =
            all.entries.iter().map(|entry| (&*entry.key, count_of(&entry.value))).collect();
        for writer in 0..WRITERS {
            let count = counts.get(format!("/n/{writer}").as_str()).copied().unwrap_or(0);
            let twin = counts.get(format!("/twin/{writer}").as_str()).copied().unwrap_or(0);
            assert_eq!(count, twin, "half a transaction of writer {writer}");
            assert!(count >= self.acknowledged[writer], "writer {writer} lost {}", self.acknowledged[writer]);
            assert!(count <= self.attempted[writer], "writer {writer} never wrote {count}");
            assert!(!self.refused.contains(&(writer, count)), "writer {writer}: {count} was refused");
        }
    }

    /// Takes in what a watch shows until it reaches `until`: each revision once, in order, and always the same.
    async fn follow(&mut self, watch: &mut WatchStream, mut next: Revision, until: Revision) {
        while next <= until {
            let event = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap();
            let WatchEvent::Changes { revision, changes } = event.unwrap().unwrap() else { continue };
            assert_eq!(revision, next, "a gap or a repetition");
            let before = self.shown.insert(revision, Arc::clone(&changes));
            assert!(before.is_none_or(|before| before == changes), "revision {revision} is another one now");
            self.revision = self.revision.max(revision);
            next += 1;
        }
    }
}

/// One life of the engine, from opening to whatever ends it.
async fn live(disk: &SimulatedDisk, random: &mut SmallRng, promises: &mut Promises) {
    let store = match EmbeddedStore::open_on(Arc::new(disk.clone()), &options(), None) {
        Ok(store) => store,
        Err(StoreError::Setup(_) | StoreError::NoSpace(_)) => return,
        Err(other) => panic!("{other}"),
    };
    promises.check(&store).await;
    // From somewhere in the past, to compare it with what was shown of it.
    let current = store.current_revision().await.unwrap();
    let mut from = current.saturating_sub(random.random_range(0..6)).max(2);
    let mut watch = match store.watch("/", Some(from)).await {
        Err(StoreError::Compacted { oldest, .. }) => {
            from = oldest;
            store.watch("/", Some(oldest)).await.unwrap()
        }
        other => other.unwrap(),
    };
    for _ in 0..random.random_range(1..25) {
        if random.random_ratio(1, 20) {
            // Whatever it says: its history may go, the present may not.
            store.compact(store.current_revision().await.unwrap()).await.ok();
        }
        let transactions: Vec<_> = (0..random.random_range(1..=WRITERS))
            .map(|writer| {
                promises.attempted[writer] += 1;
                let count = promises.attempted[writer];
                (writer, count, counting(writer, count, random))
            })
            .collect();
        let commits = transactions
            .into_iter()
            .map(async |(writer, count, writes)| (writer, count, store.commit(writes).await));
        for (writer, count, result) in futures::future::join_all(commits).await {
            promises.note(writer, count, result);
        }
    }
    let visible = store.current_revision().await.unwrap();
    assert!(visible >= promises.revision);
    promises.follow(&mut watch, from, visible).await;
    if store.health().await.is_ok() {
        promises.check(&store).await;
    }
}

async fn run(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let disk = SimulatedDisk::new(seed);
    let mut promises = Promises::default();
    for _ in 0..6 {
        for _ in 0..random.random_range(0..3) {
            let kind = [ErrorKind::Other, ErrorKind::StorageFull][random.random_range(0..2)];
            disk.fail_after(random.random_range(0..80), kind);
        }
        if random.random() {
            disk.halt_after(random.random_range(0..80));
        }
        live(&disk, &mut random, &mut promises).await;
        disk.heal();
        if random.random() {
            disk.cut_power();
        }
    }
    let store = EmbeddedStore::open_on(Arc::new(disk), &options(), None).unwrap();
    promises.check(&store).await;
    store.commit(counting(0, u64::MAX, &mut random)).await.unwrap();
}

#[tokio::test]
async fn no_fault_and_no_power_cut_breaks_a_promise() {
    let number = |name: &str| std::env::var(name).ok().map(|number| number.parse::<u64>().unwrap());
    let seeds = match number("STORE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STORE_SEEDS").unwrap_or(150),
    };
    for seed in seeds {
        println!("seed {seed}");
        run(seed).await;
    }
}

#[tokio::test]
async fn after_a_failed_sync_there_are_no_more_writes_and_the_health_check_says_so() {
    for failing in 0..200 {
        let disk = SimulatedDisk::new(failing);
        let store = EmbeddedStore::open_on(Arc::new(disk.clone()), &options(), None).unwrap();
        store.commit(vec![put("/a", "1")]).await.unwrap();
        // An append writes and then syncs.
        disk.fail_after(1, ErrorKind::Other);
        let error = store.commit(vec![put("/a", "2")]).await.unwrap_err();
        assert!(matches!(error, StoreError::OutcomeUnknown(_)), "{error}");
        let entry = store.get("/a", ReadAt::Current).await.unwrap().entry.unwrap();
        assert_eq!(&*entry.value, b"1");
        assert!(matches!(store.health().await, Err(StoreError::Unavailable(_))));
        let refused = store.commit(vec![put("/a", "3")]).await.unwrap_err();
        assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
        drop(store);
        // Not by a power cut, but by a restart: the unsynced append is readable, and made durable before it is relied on.
        let store = EmbeddedStore::open_on(Arc::new(disk.clone()), &options(), None).unwrap();
        let found = store.get("/a", ReadAt::Current).await.unwrap().entry.unwrap();
        drop(store);
        disk.cut_power();
        let store = EmbeddedStore::open_on(Arc::new(disk), &options(), None).unwrap();
        assert_eq!(store.get("/a", ReadAt::Current).await.unwrap().entry.unwrap(), found);
    }
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_ends_writes_by_name_and_nothing_else() {
    let disk = SimulatedDisk::new(1);
    let store = EmbeddedStore::open_on(Arc::new(disk.clone()), &options(), None).unwrap();
    store.commit(vec![put("/a", "1")]).await.unwrap();
    let mut watch = store.watch("/", None).await.unwrap();
    disk.protect();
    for attempt in 0..3 {
        let error = store.commit(vec![put("/a", "2")]).await.unwrap_err();
        let said = error.to_string();
        assert!(said.contains("/data") && said.contains("read-only"), "{said}");
        assert_eq!(said.matches("the store is").count(), usize::from(attempt > 0), "{said}");
        // Whether the first one did not get there is for a restart to find out.
        let expected = match attempt {
            0 => matches!(error, StoreError::OutcomeUnknown(_)),
            _ => matches!(error, StoreError::Unavailable(_)),
        };
        assert!(expected, "{error:?}");
        assert_eq!(&*store.get("/a", ReadAt::Current).await.unwrap().entry.unwrap().value, b"1");
    }
    assert!(store.health().await.is_err());
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Progress(2)))));
    drop(store);
    let refused = EmbeddedStore::open_on(Arc::new(disk.clone()), &options(), None).unwrap_err();
    assert!(matches!(refused, StoreError::Setup(_)), "{refused}");
    disk.heal();
    let store = EmbeddedStore::open_on(Arc::new(disk), &options(), None).unwrap();
    assert_eq!(store.commit(vec![put("/a", "3")]).await.unwrap().revision, 3);
}

#[tokio::test]
async fn the_last_revision_is_the_last_and_nothing_is_written_after_it() {
    let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new(1));
    let dir = options().dir;
    let contents = Contents { revision: REVISION_MAX - 2, ..Contents::default() };
    snapshot::write(&*disk, &dir, &contents).unwrap();
    Segment::create(&*disk, &dir, 1, 4 << 10).unwrap();
    let store = EmbeddedStore::open_on(Arc::clone(&disk), &options(), None).unwrap();
    let lifetime = Some(Duration::from_millis(1));
    store.commit(vec![put("/a", "1")]).await.unwrap();
    let last = store
        .commit(vec![write("/t", Action::Put { value: "short".into(), time_to_live: lifetime })])
        .await
        .unwrap();
    assert_eq!(last.revision, REVISION_MAX);
    for attempt in [put("/a", "2"), write("/a", Action::Delete)] {
        let error = store.commit(vec![attempt]).await.unwrap_err();
        assert!(matches!(&error, StoreError::Setup(reason) if reason.contains("revisions")), "{error}");
    }
    // What changes nothing needs no revision.
    store.commit(vec![write("/none", Action::Delete)]).await.unwrap();
    let all = store.range(Range { prefix: "/".into(), ..Range::default() }).await.unwrap();
    assert_eq!((all.entries.len(), all.revision), (2, REVISION_MAX));
    assert!(matches!(store.watch("/", None).await.unwrap().next().await, Some(Ok(WatchEvent::Progress(_)))));
    store.health().await.unwrap();
    drop(store);
    let store = EmbeddedStore::open_on(disk, &options(), None).unwrap();
    assert_eq!(store.range(Range { prefix: "/".into(), ..Range::default() }).await.unwrap(), all);
}

#[tokio::test]
async fn wherever_history_begins_what_is_left_of_the_log_follows_on_the_snapshot() {
    const LAST: Revision = 41;
    let small = EmbeddedOptions {
        segment_bytes: 512,
        compact_bytes: 1,
        history_bytes: usize::MAX,
        ..EmbeddedOptions::new("/data")
    };
    let mut shortened = 0;
    for oldest in 2..=LAST {
        let disk = SimulatedDisk::new(oldest);
        let store = EmbeddedStore::open_on(Arc::new(disk.clone()), &small, None).unwrap();
        for revision in 2..=LAST {
            store.commit(vec![put(&format!("/k/{}", revision % 7), revision.to_string())]).await.unwrap();
        }
        // What is known of the segments is from writing them, or from reading them again.
        let store = if oldest % 2 == 0 {
            drop(store);
            EmbeddedStore::open_on(Arc::new(disk.clone()), &small, None).unwrap()
        } else {
            store
        };
        store.compact(oldest).await.unwrap();
        let everything = async |store: &EmbeddedStore| {
            let mut all = Vec::new();
            for revision in oldest..=LAST {
                let at = ReadAt::Revision(revision);
                all.push(store.range(Range { prefix: "/".into(), at, ..Range::default() }).await.unwrap());
            }
            all
        };
        let before = everything(&store).await;
        // Finishes the snapshot, if there is one, and shortens the log by all that it covers.
        drop(store);
        shortened += usize::from(!disk.contents().contains_key(Path::new("/data/0000000000000001.log")));
        let store = EmbeddedStore::open_on(Arc::new(disk), &small, None).unwrap();
        assert_eq!(everything(&store).await, before, "history from {oldest} on");
    }
    assert!(shortened > 20, "the log was shortened {shortened} times");
}

#[test]
fn a_log_that_compacts_what_it_never_reached_has_a_hole() {
    let (disk, dir) = (SimulatedDisk::new(1), options().dir);
    let mut segment = Segment::create(&disk, &dir, 1, 4 << 10).unwrap();
    let mut frame = FrameBuffer::new();
    encode_compaction(9, frame.payload());
    segment.append(&mut frame).unwrap();
    let error = EmbeddedStore::open_on(Arc::new(disk), &options(), None).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt(reason) if reason.contains("hole")), "{error}");
}

/// A directory with a snapshot and several segments, as it lies there after a kill.
async fn some_directory() -> BTreeMap<PathBuf, Vec<u8>> {
    let disk = SimulatedDisk::new(1);
    let small = EmbeddedOptions {
        segment_bytes: 1 << 10,
        compact_bytes: 2 << 10,
        history_bytes: 2 << 10,
        ..options()
    };
    let store = EmbeddedStore::open_on(Arc::new(disk.clone()), &small, None).unwrap();
    let is_rich = |disk: &SimulatedDisk| {
        let names = disk.contents();
        let count =
            |extension: &str| names.keys().filter(|path| path.extension().unwrap() == extension).count();
        (count("snapshot"), count("log")) == (1, 4)
    };
    for step in 0_u32.. {
        let value = vec![[0, b'x'][step as usize % 2]; step as usize * 37 % 300];
        store.commit(vec![put(&format!("/k/{}", step % 5), value)]).await.unwrap();
        if step > 20 && is_rich(&disk) {
            break;
        }
        assert!(step < 10_000, "there should be a snapshot and some segments by now");
    }
    let contents = disk.contents();
    assert!(is_rich(&SimulatedDisk::holding(&contents)));
    contents
}

fn open(contents: &BTreeMap<PathBuf, Vec<u8>>) -> Result<recovery::Recovered, StoreError> {
    recovery::open(Arc::new(SimulatedDisk::holding(contents)), &options())
}

fn assert_names(error: &StoreError, path: &Path) {
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    let message = error.to_string();
    assert!(message.contains(path.to_str().unwrap()) && message.contains("offset"), "{message}");
}

#[tokio::test]
async fn a_flipped_byte_in_any_file_fails_the_start_with_file_and_offset_and_never_changes_data() {
    let contents = some_directory().await;
    let whole = open(&contents).ok().unwrap();
    let newest = contents.keys().rfind(|path| path.extension().unwrap() == "log").unwrap().clone();
    for (path, bytes) in &contents {
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for at in 0..bytes.len() {
            let mut damaged = contents.clone();
            damaged.get_mut(path).unwrap()[at] ^= 0x21;
            match open(&damaged) {
                Err(error) => assert_names(&error, path),
                Ok(opened) => {
                    assert!(path == &newest && at >= written, "{}: byte {at} may change", path.display());
                    let (opened, whole) = (opened.state.read(), whole.state.read());
                    assert_eq!((&opened.entries, opened.revision), (&whole.entries, whole.revision));
                }
            }
        }
    }
}

#[tokio::test]
async fn a_file_that_is_cut_short_or_missing_fails_the_start_unless_it_is_the_torn_tail() {
    let contents = some_directory().await;
    let newest = contents.keys().rfind(|path| path.extension().unwrap() == "log").unwrap();
    for path in contents.keys() {
        let is_newest = path == newest;
        for length in 0..contents[path].len() {
            let mut cut = contents.clone();
            cut.get_mut(path).unwrap().truncate(length);
            let written = contents[path].iter().rposition(|byte| *byte != 0).unwrap() + 1;
            match open(&cut) {
                Err(error) => assert!(matches!(error, StoreError::Corrupt(_)), "{error}"),
                Ok(_) => {
                    assert!(is_newest && length >= 32 || length >= written, "{} at {length}", path.display())
                }
            }
        }
        let mut missing = contents.clone();
        missing.remove(path);
        match open(&missing) {
            Err(error) => assert!(matches!(error, StoreError::Corrupt(_)), "{error}"),
            Ok(_) => assert!(is_newest, "without {}", path.display()),
        }
    }
}
