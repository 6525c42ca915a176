//! How much of a disk's life a write costs. Alone in its process, because the kernel counts by process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

use store::embedded::{EmbeddedOptions, EmbeddedStore};
use store::{Action, Precondition, Store, Write};
use tempfile::TempDir;

/// What this process sent towards disks so far.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn a_small_write_costs_the_disk_a_few_blocks() {
    const WRITES: u64 = 300;
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(EmbeddedOptions::new(dir.path())).unwrap();
    let before = written();
    for number in 0..WRITES {
        let action = Action::Put { value: format!("{number:01024}").into(), time_to_live: None };
        let write = Write { key: "/k".into(), precondition: Precondition::None, action };
        store.commit(vec![write]).await.unwrap();
    }
    let each = (written() - before) / WRITES;
    println!("{each} bytes for each KB");
    // A KB touches one or two blocks of 4 KB; the file is extended by a MB now and then.
    assert!(each < 16 << 10, "{each} bytes were written for each KB");
}
