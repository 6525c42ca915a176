//! What every backend must do: [`semantics`] as functions over the trait, of which `store_suite!` makes one test each for
//! one backend, and [`history`]: random concurrent use, recorded and [checked](checker) against a [sequential
//! model](model).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.
#![allow(dead_code)] // No backend's tests use everything.

pub mod checker;
pub mod history;
pub mod model;
pub mod semantics;
pub mod watching;

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use store::{
    Action, Change, Committed, Entry, Precondition, Range, ReadAt, Revision, Store, WatchEvent, WatchStream,
    Write,
};
use tempfile::TempDir;

/// Nothing in these tests should take longer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Makes tests of all the suite's functions. `$open` is an async function that returns a guard and an `Arc<dyn Store>`.
#[macro_export]
macro_rules! store_suite {
    ($open:path) => {
        store_suite!($open;
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
    };
    ($open:path; $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                let (_guard, store) = $open().await;
                suite::semantics::$name(store).await;
            }
        )+
    };
}

/// A directory for tests that have nothing to do with disks and would only wait for them.
pub fn directory_in_memory() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

pub fn put(key: &str, value: &str) -> Write {
    Write {
        key: key.into(),
        precondition: Precondition::None,
        action: Action::Put { value: Bytes::copy_from_slice(value.as_bytes()), time_to_live: None },
    }
}

pub fn delete(key: &str) -> Write {
    Write { key: key.into(), precondition: Precondition::None, action: Action::Delete }
}

pub fn create(key: &str, value: &str) -> Write {
    Write { precondition: Precondition::Absent, ..put(key, value) }
}

pub fn update(key: &str, value: &str, at: Revision) -> Write {
    Write { precondition: Precondition::ModRevision(at), ..put(key, value) }
}

pub fn short_lived(key: &str, lifetime: Duration) -> Write {
    let action = Action::Put { value: "short".into(), time_to_live: Some(lifetime) };
    Write { key: key.into(), precondition: Precondition::None, action }
}

pub async fn commit(store: &dyn Store, writes: impl Into<Vec<Write>>) -> Committed {
    store.commit(writes.into()).await.expect("the commit should succeed")
}

pub async fn value_of(store: &dyn Store, key: &str) -> Option<String> {
    let entry = store.get(key, ReadAt::Current).await.expect("the read should succeed").entry;
    entry.map(|entry| String::from_utf8(entry.value.to_vec()).expect("text"))
}

pub fn range(prefix: &str) -> Range {
    Range { prefix: prefix.into(), ..Range::default() }
}

pub fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| &*entry.key).collect()
}

/// The next changes of a watch, progress left out.
pub async fn next_changes(watch: &mut WatchStream) -> (Revision, Vec<Change>) {
    let next = async {
        loop {
            match watch.next().await.expect("the watch should go on").expect("the watch should not fail") {
                WatchEvent::Changes { revision, changes } => return (revision, changes.to_vec()),
                WatchEvent::Progress(_) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.expect("an event should come")
}

pub fn changed_keys(changes: &[Change]) -> Vec<&str> {
    changes.iter().map(|change| &**change.key()).collect()
}
