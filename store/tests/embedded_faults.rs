//! The embedded engine with torn files and on a full disk, with the real file system. What a disk can do beyond that is
//! simulated in the engine's own tests.
//!
//! Full and read-only disks are small tmpfs, which need root; without it, the tests say so and pass.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use nix::mount::MsFlags;
use store::care::{self, Place};
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use store::{Action, Precondition, Range, Revision, Store, StoreError, WatchEvent, Write};
use tempfile::TempDir;

fn put(key: &str, value: impl Into<Bytes>) -> Write {
    Write {
        key: key.into(),
        precondition: Precondition::None,
        action: Action::Put { value: value.into(), time_to_live: None },
    }
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

/// A small file system of its own, unmounted when dropped.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        match mount(dir.path(), MsFlags::empty()) {
            Ok(()) => Some(Self { dir }),
            Err(error) => {
                println!("skipped: a small disk needs root to mount one ({error})");
                None
            }
        }
    }

    /// Nothing can be written any more.
    fn protect(&self) {
        mount(self.dir.path(), MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY).unwrap();
    }
}

fn mount(dir: &Path, flags: MsFlags) -> nix::Result<()> {
    nix::mount::mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some("size=4m"))
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(self.dir.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

async fn write_until_refused(store: &EmbeddedStore, kept: &mut usize) -> StoreError {
    for _ in 0..100 {
        match store.commit(vec![put(&format!("/k/{kept}"), vec![7; 50_000])]).await {
            Ok(_) => *kept += 1,
            Err(error) => return error,
        }
    }
    panic!("the disk should be full by now");
}

/// A snapshot that is being tried may take the space for a moment, and gives it back when it does not suffice.
async fn write_until_taken(store: &EmbeddedStore, number: usize) -> Revision {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match store.commit(vec![put(&format!("/k/{number}"), vec![7; 50_000])]).await {
            Ok(committed) => return committed.revision,
            Err(StoreError::NoSpace(_)) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn on_a_full_disk_writes_are_refused_reads_go_on_and_space_brings_writes_back() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.dir.path().join("data");
    // Segments so small that some are begun, and snapshots wanted, while there is no space.
    let options = EmbeddedOptions {
        segment_bytes: 256 << 10,
        compact_bytes: 256 << 10,
        history_bytes: 64 << 10,
        ..EmbeddedOptions::new(&dir)
    };
    let mut store = EmbeddedStore::open(options.clone()).unwrap();
    let ballast = ["a", "b", "c"].map(|name| disk.dir.path().join(name));
    for ballast in &ballast {
        std::fs::write(ballast, vec![1; 512 << 10]).unwrap();
    }
    let mut kept = 0;
    for ballast in ballast {
        let error = write_until_refused(&store, &mut kept).await;
        assert!(matches!(error, StoreError::NoSpace(_)) && error.to_string().contains("data"), "{error}");
        assert_eq!(count(&store).await, kept);
        let again = store.commit(vec![put("/k/again", vec![7; 50_000])]).await.unwrap_err();
        assert!(matches!(again, StoreError::NoSpace(_)), "{again}");
        // Even a start is possible, and shows everything.
        drop(store);
        store = EmbeddedStore::open(options.clone()).unwrap();
        assert_eq!(count(&store).await, kept);
        let mut watch = store.watch("/k/", None).await.unwrap();
        assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Progress(_)))));
        std::fs::remove_file(&ballast).unwrap();
        let after = write_until_taken(&store, kept).await;
        kept += 1;
        match watch.next().now_or_never() {
            Some(Some(Ok(WatchEvent::Changes { revision, .. }))) => assert_eq!(revision, after),
            other => panic!("{other:?}"),
        }
    }
    drop(store);
    let store = EmbeddedStore::open(options).unwrap();
    assert_eq!(count(&store).await, kept);
}

#[tokio::test]
async fn a_read_only_disk_is_named_at_the_start_and_can_still_be_checked_and_copied() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.dir.path().join("data");
    filled(&dir, 20).await;
    disk.protect();
    let fresh = disk.dir.path().join("fresh");
    for dir in [&dir, &fresh] {
        let error = EmbeddedStore::open(EmbeddedOptions::new(dir)).unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, StoreError::Setup(_)), "{said}");
        assert!(said.contains(dir.to_str().unwrap()) && said.contains("Read-only file system"), "{said}");
    }
    assert_eq!(care::verify(&dir).await.unwrap().entries.len(), 20);
    assert_eq!(care::read(&Place::Directory(dir)).await.unwrap().entries.len(), 20);
}
