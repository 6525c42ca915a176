//! The one work-queue runner.
//!
//! Guarantees: a key is reconciled by at most one worker at a time; a key added while it is being reconciled is
//! reconciled again afterwards; adding a waiting key again changes nothing. A failed reconcile is retried after
//! 5 ms · 2ⁿ, at most the queue's longest delay; a success resets that. A panic is logged and counts as a failure.
//! On shutdown no new key is started, and [`run`] returns when those under way are finished.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::backoff::nominal_delay;

const FIRST_DELAY: Duration = Duration::from_millis(5);
const LONGEST_DELAY: Duration = Duration::from_secs(1000);
/// From this many failures in a row on, a failure is worth a warning.
const WARN_AFTER: u32 = 8;

/// What a successful reconcile wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing until the key is added again.
    Done,
    /// Reconcile again after this delay, even if nothing happens.
    RequeueAfter(Duration),
    /// Reconcile again after the key's back-off delay, without that being an error.
    Retry,
}

/// A key that a queue can hold.
pub trait Key: Clone + Eq + Hash + Debug + Send + Sync + 'static {}
impl<K: Clone + Eq + Hash + Debug + Send + Sync + 'static> Key for K {}

/// A deduplicating queue of keys. Cheap to clone; all clones are the same queue.
pub struct Queue<K> {
    shared: Arc<QueueShared<K>>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct QueueShared<K> {
    name: &'static str,
    longest_delay: Duration,
    state: Mutex<QueueState<K>>,
    wake: Notify,
    shutdown: CancellationToken,
}

struct QueueState<K> {
    /// Keys that wait for a worker, in order; each is also in `dirty`.
    ready: VecDeque<K>,
    /// Keys that must be reconciled (again).
    dirty: HashSet<K>,
    /// Keys that a worker has now.
    processing: HashSet<K>,
    /// When a key becomes dirty by itself: the earliest time asked for.
    due: HashMap<K, Instant>,
    /// Times of `due`; entries that no longer agree with it are skipped.
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    timer_keys: HashMap<u64, K>,
    next_timer: u64,
    failures: HashMap<K, u32>,
}

impl<K: Key> QueueState<K> {
    fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            due: HashMap::new(),
            timers: BinaryHeap::new(),
            timer_keys: HashMap::new(),
            next_timer: 0,
            failures: HashMap::new(),
        }
    }

    /// Returns whether a worker has something new to do.
    fn add(&mut self, key: K) -> bool {
        if !self.dirty.insert(key.clone()) || self.processing.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    /// Returns whether the earliest timer changed.
    fn add_at(&mut self, key: K, at: Instant) -> bool {
        if self.due.get(&key).is_some_and(|known| *known <= at) {
            return false;
        }
        self.due.insert(key.clone(), at);
        let id = self.next_timer;
        self.next_timer += 1;
        self.timer_keys.insert(id, key);
        self.timers.push(Reverse((at, id)));
        self.timers.peek().is_some_and(|Reverse((_, first))| *first == id)
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some(Reverse((at, id))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(key) = self.timer_keys.remove(&id) else { continue };
            if self.due.get(&key) == Some(&at) {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.processing.insert(key.clone());
        Some(key)
    }

    fn finish(&mut self, key: &K) -> bool {
        self.processing.remove(key);
        if self.dirty.contains(key) {
            self.ready.push_back(key.clone());
            return true;
        }
        false
    }
}

impl<K: Key> Queue<K> {
    /// A queue that stops when `shutdown` fires. The name appears in logs.
    pub fn new(name: &'static str, shutdown: CancellationToken) -> Self {
        Self::with_longest_delay(name, shutdown, LONGEST_DELAY)
    }

    /// Like [`Queue::new`], with another bound on the delay after failures.
    pub fn with_longest_delay(
        name: &'static str,
        shutdown: CancellationToken,
        longest_delay: Duration,
    ) -> Self {
        let state = Mutex::new(QueueState::new());
        Self { shared: Arc::new(QueueShared { name, longest_delay, state, wake: Notify::new(), shutdown }) }
    }

    /// The key must be reconciled as soon as a worker is free.
    pub fn add(&self, key: K) {
        if self.shared.state.lock().add(key) {
            self.shared.wake.notify_one();
        }
    }

    /// The key must be reconciled after `delay`, or earlier if it is added otherwise with an earlier time.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            self.add(key);
        } else if self.shared.state.lock().add_at(key, Instant::now() + delay) {
            self.shared.wake.notify_one();
        }
    }

    /// The key failed: reconcile it again after its next back-off delay. Returns its failures in a row.
    pub fn add_rate_limited(&self, key: K) -> u32 {
        let mut state = self.shared.state.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        let delay = nominal_delay(FIRST_DELAY, self.shared.longest_delay, *failures);
        *failures = failures.saturating_add(1);
        let failures = *failures;
        let wake = state.add_at(key, Instant::now() + delay);
        drop(state);
        if wake {
            self.shared.wake.notify_one();
        }
        failures
    }

    /// The key's failures are over.
    pub fn forget(&self, key: &K) {
        self.shared.state.lock().failures.remove(key);
    }

    /// How often the key failed in a row.
    pub fn failures(&self, key: &K) -> u32 {
        self.shared.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// How many keys wait for a worker now (delayed ones not counted).
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    /// Whether no key waits for a worker now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for the next key. `None` on shutdown. The caller must [`Queue::done`] it.
    async fn next(&self) -> Option<K> {
        loop {
            if self.shared.shutdown.is_cancelled() {
                return None;
            }
            let earliest = {
                let mut state = self.shared.state.lock();
                state.fire_timers(Instant::now());
                if let Some(key) = state.take() {
                    return Some(key);
                }
                state.timers.peek().map(|Reverse((at, _))| *at)
            };
            let timer = async {
                match earliest {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.shared.wake.notified() => {}
                () = timer => {}
                () = self.shared.shutdown.cancelled() => return None,
            }
        }
    }

    fn done(&self, key: &K) {
        if self.shared.state.lock().finish(key) {
            self.shared.wake.notify_one();
        }
    }
}

/// Reconciles the queue's keys with at most `workers` at once, until the queue shuts down and those are finished.
pub async fn run<K, F, Fut, E>(queue: Queue<K>, workers: usize, reconcile: F)
where
    K: Key,
    F: Fn(K) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let reconcile = Arc::new(reconcile);
    let mut running = JoinSet::new();
    let workers = workers.max(1);
    loop {
        while running.try_join_next().is_some() {}
        while running.len() >= workers {
            running.join_next().await;
        }
        let Some(key) = queue.next().await else { break };
        let (queue, reconcile) = (queue.clone(), reconcile.clone());
        running.spawn(async move {
            // The call itself may panic as well as the future.
            let work = AssertUnwindSafe(async { reconcile(key.clone()).await });
            let result = work.catch_unwind().await;
            settle(&queue, key, result);
        });
    }
    while running.join_next().await.is_some() {}
}

/// Like [`run`], with a method of something that the workers share.
pub async fn run_on<S, K, F, Fut, E>(queue: Queue<K>, workers: usize, shared: Arc<S>, reconcile: F)
where
    S: Send + Sync + 'static,
    K: Key,
    F: Fn(Arc<S>, K) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, E>> + Send + 'static,
    E: Display + Send + 'static,
{
    run(queue, workers, move |key| reconcile(shared.clone(), key)).await;
}

fn settle<K: Key, E: Display>(
    queue: &Queue<K>,
    key: K,
    result: Result<Result<Outcome, E>, Box<dyn std::any::Any + Send>>,
) {
    let name = queue.shared.name;
    queue.done(&key);
    match result {
        Ok(Ok(Outcome::Done)) => queue.forget(&key),
        Ok(Ok(Outcome::RequeueAfter(delay))) => {
            queue.forget(&key);
            queue.add_after(key, delay);
        }
        Ok(Ok(Outcome::Retry)) => {
            queue.add_rate_limited(key);
        }
        Ok(Err(failure)) => {
            let failures = queue.add_rate_limited(key.clone());
            if failures >= WARN_AFTER {
                warn!(queue = name, ?key, error = %failure, failures, "reconcile failed");
            } else {
                debug!(queue = name, ?key, error = %failure, failures, "reconcile failed");
            }
        }
        Err(panic) => {
            let reason = panic
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("no message");
            let failures = queue.add_rate_limited(key.clone());
            error!(queue = name, ?key, reason, failures, "reconcile panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_it_is_reconciled_runs_again_but_never_twice_at_once() {
        let shutdown = CancellationToken::new();
        let queue = Queue::new("test", shutdown.clone());
        let (runs, at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (queue_inside, runs_inside, inside) = (queue.clone(), runs.clone(), at_once.clone());
        queue.add("k");
        queue.add("k");
        let runner = tokio::spawn(run(queue.clone(), 4, move |key| {
            let (queue, runs, at_once) = (queue_inside.clone(), runs_inside.clone(), inside.clone());
            async move {
                assert_eq!(at_once.fetch_add(1, Ordering::SeqCst), 0);
                if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                    queue.add(key);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                at_once.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, Infallible>(Outcome::Done)
            }
        }));
        tokio::time::sleep(Duration::from_secs(10)).await;
        shutdown.cancel();
        runner.await.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn panics_and_errors_are_retried_with_growing_delays() {
        let shutdown = CancellationToken::new();
        let queue = Queue::new("test", shutdown.clone());
        let times = Arc::new(Mutex::new(Vec::new()));
        let (inside, start) = (times.clone(), Instant::now());
        queue.add(1);
        let runner = tokio::spawn(run(queue.clone(), 1, move |_| {
            let run = {
                let mut times = inside.lock();
                times.push(start.elapsed().as_millis());
                times.len()
            };
            async move {
                match run {
                    1 => panic!("boom"),
                    2 | 3 => Err("not yet"),
                    _ => Ok(Outcome::Done),
                }
            }
        }));
        tokio::time::sleep(Duration::from_secs(10)).await;
        shutdown.cancel();
        runner.await.unwrap();
        let times = times.lock().clone();
        assert_eq!(times.len(), 4);
        let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps[0] >= 5 && gaps[1] >= 10 && gaps[2] >= 20 && gaps[2] < 40, "{gaps:?}");
        assert_eq!(queue.failures(&1), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_of_several_delays_wins() {
        let shutdown = CancellationToken::new();
        let queue = Queue::new("test", shutdown.clone());
        let runs = Arc::new(AtomicUsize::new(0));
        let inside = runs.clone();
        queue.add_after("k", Duration::from_secs(60));
        queue.add_after("k", Duration::from_secs(1));
        queue.add_after("k", Duration::from_secs(30));
        let runner = tokio::spawn(run(queue.clone(), 1, move |_| {
            inside.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, Infallible>(Outcome::Done) }
        }));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        shutdown.cancel();
        runner.await.unwrap();
    }
}
