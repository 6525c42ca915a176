//! Random concurrent use of a store: several clients and watchers at once, everything they see recorded and checked.
//! The operations follow from the seed; how they meet does not.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use store::{Range, ReadAt, Revision, Store, StoreError, WatchEvent};
use tokio::sync::watch;

use super::PATIENCE;
use super::checker::{self, Answer, Log, Operation, Request, Violation};
use super::model::random_transaction;
use super::watching::{self, Flaw, Watched};

const KEYS: u32 = 4;

/// How much of what.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub clients: u64,
    pub steps: u64,
    pub watchers: u64,
    /// Between two operations of a client.
    pub pause: Duration,
}

/// What is wrong with a store.
#[derive(Debug)]
pub enum Fault {
    Answers(Violation),
    Watch { prefix: String, flaw: Flaw },
}

/// How a use went.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub acknowledged: usize,
    pub refused: usize,
    pub unknown: usize,
    pub resumed: usize,
}

/// Uses an empty store, and checks all that was seen. `truth` is the same store: a watch of it is the log to check by.
pub async fn run(store: Arc<dyn Store>, truth: Arc<dyn Store>, plan: Plan) -> Result<Outcome, Fault> {
    println!("{plan:?}; STORE_SEED={} does the same operations", plan.seed);
    let start = truth.current_revision().await.unwrap();
    let clock = Arc::new(AtomicU64::new(0));
    let (finish, finished) = watch::channel(None);
    let watchers: Vec<_> = (0..plan.watchers)
        .map(|number| {
            let rng = SmallRng::seed_from_u64(plan.seed ^ (number + 1) << 32);
            tokio::spawn(watcher(Arc::clone(&store), rng, start + 1, finished.clone()))
        })
        .collect();
    let clients = (0..plan.clients).map(|number| {
        let client = Client {
            number,
            store: Arc::clone(&store),
            rng: SmallRng::seed_from_u64(plan.seed.wrapping_mul(31) + number),
            clock: Arc::clone(&clock),
            start,
            known: HashMap::new(),
            operations: Vec::new(),
        };
        tokio::spawn(client.run(plan))
    });
    let mut operations = Vec::new();
    for client in futures::future::join_all(clients).await {
        operations.extend(client.unwrap());
    }
    let until = settled_revision(&*truth).await;
    finish.send(Some(until)).unwrap();
    let log = log_of(&*truth, start, until).await;
    let model = checker::check(&operations, &log, start).map_err(Fault::Answers)?;
    let mut outcome = Outcome { acknowledged: 0, refused: 0, unknown: 0, resumed: 0 };
    for operation in &operations {
        match operation.answer {
            Answer::Committed(_) => outcome.acknowledged += 1,
            Answer::NotDone => outcome.refused += 1,
            Answer::Unknown => outcome.unknown += 1,
            _ => {}
        }
    }
    for watcher in watchers {
        let watched = watcher.await.unwrap();
        outcome.resumed += watched.parts.len() - 1;
        let checked = watching::check(&watched, &model, until);
        checked.map_err(|flaw| Fault::Watch { prefix: watched.prefix, flaw })?;
    }
    Ok(outcome)
}

/// The current revision, asked for until the store answers.
async fn settled_revision(store: &dyn Store) -> Revision {
    let asked = async {
        loop {
            match store.current_revision().await {
                Ok(revision) => return revision,
                Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(other) => panic!("{other}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("the store should answer at last")
}

async fn log_of(store: &dyn Store, start: Revision, until: Revision) -> Log {
    let mut log = Log::new();
    let mut watch = store.watch("/", Some(start + 1)).await.unwrap();
    let read = async {
        loop {
            let reached = match watch.next().await.expect("the watch should go on").unwrap() {
                WatchEvent::Changes { revision, changes } => {
                    log.insert(revision, changes.to_vec());
                    revision
                }
                WatchEvent::Progress(revision) => revision,
            };
            if reached >= until {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the log should come");
    log
}

struct Client {
    number: u64,
    store: Arc<dyn Store>,
    rng: SmallRng,
    clock: Arc<AtomicU64>,
    start: Revision,
    /// The revisions of keys as this client last saw them.
    known: HashMap<String, Revision>,
    operations: Vec<Operation>,
}

impl Client {
    async fn run(mut self, plan: Plan) -> Vec<Operation> {
        for step in 0..plan.steps {
            let request = self.next_request(step);
            let called = self.clock.fetch_add(1, Ordering::SeqCst);
            let answer = ask(&*self.store, &request).await;
            let returned = match answer {
                // It may take place at any later time.
                Answer::Unknown => u64::MAX,
                _ => self.clock.fetch_add(1, Ordering::SeqCst),
            };
            self.learn(&request, &answer);
            self.operations.push(Operation { request, answer, called, returned });
            if plan.pause.is_zero() {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(plan.pause).await;
            }
        }
        self.operations
    }

    fn next_request(&mut self, step: u64) -> Request {
        let newest = self.known.values().max().copied().unwrap_or(self.start);
        let at = if self.rng.random_range(0..4) == 0 { ReadAt::Revision(newest) } else { ReadAt::Current };
        let rng = &mut self.rng;
        match rng.random_range(0..10) {
            0..6 => {
                let (number, known) = (self.number, &self.known);
                let mut writes = 0;
                Request::Commit(random_transaction(
                    rng,
                    KEYS,
                    |key| known.get(key).copied(),
                    |_| {
                        writes += 1;
                        format!("{number}-{step}-{writes}").into()
                    },
                ))
            }
            6 | 7 => Request::Get(format!("/a/{}", rng.random_range(0..KEYS)), at),
            8 => {
                let prefix = ["/", "/a/", "/b/1"][rng.random_range(0..3)].to_owned();
                let after = (rng.random_range(0..3) == 0).then(|| "/a/1".to_owned());
                Request::Range(Range { prefix, after, limit: rng.random_range(0..5), at })
            }
            _ => Request::CurrentRevision,
        }
    }

    fn learn(&mut self, request: &Request, answer: &Answer) {
        match (request, answer) {
            (Request::Commit(writes), Answer::Committed(committed)) => {
                self.known.extend(writes.iter().map(|write| (write.key.to_string(), committed.revision)));
            }
            (_, Answer::Conflict { key, current: Some(entry), .. }) => {
                self.known.insert(key.clone(), entry.mod_revision);
            }
            (Request::Get(key, _), Answer::Got(got)) => {
                self.known.extend(got.entry.as_ref().map(|entry| (key.clone(), entry.mod_revision)));
            }
            _ => {}
        }
    }
}

async fn ask(store: &dyn Store, request: &Request) -> Answer {
    let answer = match request {
        Request::Commit(writes) => store.commit(writes.clone()).await.map(Answer::Committed),
        Request::Get(key, at) => store.get(key, *at).await.map(Answer::Got),
        Request::Range(range) => store.range(range.clone()).await.map(Answer::Ranged),
        Request::CurrentRevision => store.current_revision().await.map(Answer::Revision),
    };
    answer.unwrap_or_else(|error| match error {
        StoreError::Conflict { key, current, revision } => {
            Answer::Conflict { key, current: current.map(|entry| *entry), revision }
        }
        // Clients ask for revisions that they have heard of.
        StoreError::FutureRevision { current, .. } => Answer::Revision(current),
        StoreError::OutcomeUnknown(_) => Answer::Unknown,
        StoreError::Unavailable(_) => Answer::NotDone,
        other => panic!("{request:?}: {other}"),
    })
}

/// Watches a random prefix, gives up now and then and resumes, until it has seen everything there was.
async fn watcher(
    store: Arc<dyn Store>,
    mut rng: SmallRng,
    from: Revision,
    mut finished: watch::Receiver<Option<Revision>>,
) -> Watched {
    let prefix = ["/", "/a/", "/b/", "/a/1"][rng.random_range(0..4)].to_owned();
    let mut watched = Watched { prefix: prefix.clone(), parts: Vec::new() };
    let mut next = from;
    loop {
        let began = next;
        let mut stream = match store.watch(&prefix, Some(next)).await {
            Ok(stream) => stream,
            Err(StoreError::Unavailable(_)) => continue,
            Err(other) => panic!("{other}"),
        };
        let mut events = Vec::new();
        let patience = rng.random_range(1..40);
        let ended = loop {
            let until = *finished.borrow_and_update();
            if until.is_some_and(|until| next > until) {
                break true;
            }
            if until.is_none() && events.len() >= patience {
                break false;
            }
            tokio::select! {
                event = stream.next() => {
                    let event = event.expect("the watch should go on").expect("the watch should not fail");
                    let (WatchEvent::Changes { revision, .. } | WatchEvent::Progress(revision)) = &event;
                    next = next.max(revision + 1);
                    events.push(event);
                }
                _ = finished.changed(), if until.is_none() => {}
                () = tokio::time::sleep(PATIENCE) => {
                    assert!(until.is_none(), "the watch of {prefix} from {next} should come to {until:?}");
                }
            }
        };
        watched.parts.push((began, events));
        if ended {
            return watched;
        }
    }
}
