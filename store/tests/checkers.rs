//! The suite's checkers can fail: a store that is broken on purpose, in each way that they look for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

mod suite;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use store::{
    Committed, GetResult, Precondition, Range, RangeResult, ReadAt, Revision, Store, StoreError, WatchEvent,
    WatchStream, Write,
};
use suite::checker::Violation;
use suite::history::{self, Fault, Plan};
use suite::watching::Flaw;
use tempfile::TempDir;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    IgnoresConditions,
    AcknowledgesWithoutWriting,
    WritesHalf,
    WritesTwice,
    ReadsThePast,
    ReadsTwoRevisionsAtOnce,
    WatchDrops,
    WatchRepeats,
    WatchSwaps,
    WatchTears,
    WatchMarksEarly,
    WatchSkipsWhenResumed,
}

/// A sound store behind a broken front.
struct Broken {
    inner: EmbeddedStore,
    how: Break,
    calls: AtomicU64,
}

impl Broken {
    /// Not every time: a fault that shows rarely must be found too.
    fn now(&self, how: Break) -> bool {
        self.how == how && self.calls.fetch_add(1, Ordering::Relaxed) % 5 == 4
    }
}

#[async_trait]
impl Store for Broken {
    async fn commit(&self, mut transaction: Vec<Write>) -> Result<Committed, StoreError> {
        if self.now(Break::AcknowledgesWithoutWriting) {
            let revision = self.inner.current_revision().await? + 1;
            return Ok(Committed { revision, previous: vec![None; transaction.len()] });
        }
        if self.now(Break::IgnoresConditions) {
            transaction.iter_mut().for_each(|write| write.precondition = Precondition::None);
        }
        if self.now(Break::WritesTwice) {
            self.inner.commit(transaction.clone()).await?;
            transaction.iter_mut().for_each(|write| write.precondition = Precondition::None);
        }
        let all = transaction.len();
        if all > 1 && self.now(Break::WritesHalf) {
            transaction.truncate(1);
        }
        let mut committed = self.inner.commit(transaction).await?;
        committed.previous.resize(all, None);
        Ok(committed)
    }

    async fn get(&self, key: &str, at: ReadAt) -> Result<GetResult, StoreError> {
        if at == ReadAt::Current && self.now(Break::ReadsThePast) {
            let past = self.inner.current_revision().await?.saturating_sub(3).max(1);
            return self.inner.get(key, ReadAt::Revision(past)).await;
        }
        self.inner.get(key, at).await
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        let mut read = self.inner.range(range.clone()).await?;
        if self.now(Break::ReadsTwoRevisionsAtOnce) {
            let past = ReadAt::Revision(read.revision.saturating_sub(4).max(1));
            let older = self.inner.range(Range { at: past, ..range }).await?;
            let half = read.entries.len() / 2;
            read.entries.splice(..half, older.entries.into_iter().take(half));
        }
        Ok(read)
    }

    async fn watch(&self, prefix: &str, from: Option<Revision>) -> Result<WatchStream, StoreError> {
        let skipped = u64::from(self.now(Break::WatchSkipsWhenResumed));
        let current = self.inner.current_revision().await?;
        let from = from.map(|from| (from + skipped).min(current + 1));
        let events = self.inner.watch(prefix, from).await?;
        let how = self.how;
        Ok(events.ready_chunks(4).flat_map(move |chunk| stream::iter(distort(how, chunk))).boxed())
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.inner.current_revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.inner.health().await
    }
}

type Events = Vec<Result<WatchEvent, StoreError>>;

fn distort(how: Break, mut chunk: Events) -> Events {
    let changes = |event: &Result<WatchEvent, StoreError>| match event {
        Ok(WatchEvent::Changes { revision, changes }) => Some((*revision, Arc::clone(changes))),
        _ => None,
    };
    let Some(place) = chunk.iter().position(|event| changes(event).is_some()) else { return chunk };
    let (revision, all) = changes(&chunk[place]).unwrap();
    let event = |changes| Ok(WatchEvent::Changes { revision, changes });
    match how {
        Break::WatchDrops if revision % 7 == 0 => drop(chunk.remove(place)),
        Break::WatchRepeats => chunk.insert(place, event(all)),
        Break::WatchSwaps => chunk.reverse(),
        Break::WatchTears if all.len() > 1 => {
            chunk[place] = event(all[..1].into());
            chunk.insert(place + 1, event(all[1..].into()));
        }
        Break::WatchMarksEarly => chunk.insert(place, Ok(WatchEvent::Progress(revision))),
        _ => {}
    }
    chunk
}

async fn fault_of(how: Break) -> Fault {
    for seed in 0..20 {
        let dir = TempDir::new().unwrap();
        let options = EmbeddedOptions {
            progress_interval: Duration::from_millis(20),
            ..EmbeddedOptions::new(dir.path())
        };
        let inner = EmbeddedStore::open(options).unwrap();
        let truth: Arc<dyn Store> = Arc::new(inner.clone());
        let broken = Arc::new(Broken { inner, how, calls: AtomicU64::new(0) });
        let plan = Plan { seed, clients: 4, steps: 60, watchers: 4, pause: Duration::ZERO };
        if let Err(fault) = history::run(broken, truth, plan).await {
            return fault;
        }
    }
    panic!("{how:?} was not noticed");
}

macro_rules! noticed {
    ($($name:ident: $how:ident => $expected:pat),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let fault = fault_of(Break::$how).await;
                assert!(matches!(fault, $expected), "{fault:?}");
            }
        )+
    };
}

noticed! {
    ignored_conditions_are_noticed: IgnoresConditions =>
        Fault::Answers(Violation::ConditionIgnored(_)),
    writes_that_are_acknowledged_and_not_there_are_noticed: AcknowledgesWithoutWriting =>
        Fault::Answers(
            Violation::Lost(_)
                | Violation::SharedRevision(_)
                | Violation::WrongEffect(_)
                | Violation::WrongAnswer { .. }
                | Violation::Stale { .. }
        ),
    half_transactions_are_noticed: WritesHalf =>
        Fault::Answers(
            Violation::WrongEffect(_) | Violation::WrongAnswer { .. } | Violation::SharedRevision(_)
        ),
    double_writes_are_noticed: WritesTwice =>
        Fault::Answers(Violation::Unexplained(_) | Violation::WrongAnswer { .. }),
    reads_of_the_past_are_noticed: ReadsThePast => Fault::Answers(Violation::Stale { .. }),
    mixed_reads_are_noticed: ReadsTwoRevisionsAtOnce => Fault::Answers(Violation::WrongAnswer { .. }),
    watches_that_drop_are_noticed: WatchDrops =>
        Fault::Watch { flaw: Flaw::Missed(_) | Flaw::MissedOnResumption(_) | Flaw::EarlyMark { .. }, .. },
    watches_that_repeat_are_noticed: WatchRepeats => Fault::Watch { flaw: Flaw::Repeated(_), .. },
    watches_out_of_order_are_noticed: WatchSwaps =>
        Fault::Watch { flaw: Flaw::Disordered(_) | Flaw::EarlyMark { .. }, .. },
    torn_watches_are_noticed: WatchTears => Fault::Watch { flaw: Flaw::Torn(_), .. },
    early_marks_are_noticed: WatchMarksEarly => Fault::Watch { flaw: Flaw::EarlyMark { .. }, .. },
    gaps_at_resumption_are_noticed: WatchSkipsWhenResumed =>
        Fault::Watch { flaw: Flaw::Missed(_) | Flaw::MissedOnResumption(_) | Flaw::EarlyMark { .. }, .. },
}
