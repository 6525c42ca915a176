//! Writers and watchers, the same over the embedded store and over etcd.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp, WatchOptions};
use futures::StreamExt;
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use store::{Action, Precondition, Store, WatchEvent, Write};
use tokio::sync::mpsc;

use crate::machine::{Etcd, cpu, written_to_disk_of};

pub const KEYS: usize = 1000;
pub const VALUE_BYTES: usize = 1024;

/// What is measured.
pub enum Subject {
    Embedded(EmbeddedStore),
    Etcd(Etcd),
}

/// One who writes: to etcd over a connection of its own.
pub enum Writer {
    Embedded(EmbeddedStore),
    Etcd(Box<Client>),
}

impl Subject {
    pub fn embedded(dir: &Path) -> Self {
        Self::Embedded(EmbeddedStore::open(EmbeddedOptions::new(dir)).unwrap())
    }

    pub async fn writer(&self) -> Writer {
        match self {
            Self::Embedded(store) => Writer::Embedded(store.clone()),
            Self::Etcd(etcd) => Writer::Etcd(Box::new(etcd.client().await)),
        }
    }

    /// The process that does the work. Of the embedded store that includes the load.
    pub fn pid(&self) -> u32 {
        match self {
            Self::Embedded(_) => std::process::id(),
            Self::Etcd(etcd) => etcd.pid(),
        }
    }
}

pub fn key(number: usize) -> String {
    format!("/registry/pods/default/{number:07}")
}

/// Objects are text, and no two are alike.
pub fn value(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'a' + (state % 26) as u8
    };
    std::iter::repeat_with(letter).take(VALUE_BYTES).collect()
}

impl Writer {
    /// Updates a key on the condition that nobody else did, as the API server does. Returns the new revision.
    pub async fn update(&mut self, key: &str, value: Vec<u8>, at: Option<u64>) -> u64 {
        match self {
            Self::Embedded(store) => {
                let precondition = at.map_or(Precondition::None, Precondition::ModRevision);
                let action = Action::Put { value: Bytes::from(value), time_to_live: None };
                store.commit(vec![Write { key: key.into(), precondition, action }]).await.unwrap().revision
            }
            Self::Etcd(client) => {
                let condition = at.map(|at| Compare::mod_revision(key, CompareOp::Equal, at as i64));
                let put = TxnOp::put(key, value, Some(PutOptions::new()));
                let txn = Txn::new().when(condition.into_iter().collect::<Vec<_>>()).and_then([put]);
                let answer = client.txn(txn).await.unwrap();
                assert!(answer.succeeded());
                answer.header().unwrap().revision() as u64
            }
        }
    }

    /// Creates keys in one transaction.
    pub async fn fill(&mut self, keys: std::ops::Range<usize>) {
        match self {
            Self::Embedded(store) => {
                let write = |number| {
                    let action = Action::Put { value: value(number as u64).into(), time_to_live: None };
                    Write { key: key(number).into(), precondition: Precondition::None, action }
                };
                store.commit(keys.map(write).collect()).await.unwrap();
            }
            Self::Etcd(client) => {
                let puts: Vec<_> =
                    keys.map(|number| TxnOp::put(key(number), value(number as u64), None)).collect();
                client.txn(Txn::new().and_then(puts)).await.unwrap();
            }
        }
    }

    /// Follows all keys, and tells when each revision came.
    async fn watch(&mut self, seen: mpsc::UnboundedSender<(u64, Instant)>) {
        match self {
            Self::Embedded(store) => {
                let mut watch = store.watch("/registry/", None).await.unwrap();
                tokio::spawn(async move {
                    while let Some(Ok(event)) = watch.next().await {
                        if let WatchEvent::Changes { revision, .. } = event {
                            seen.send((revision, Instant::now())).ok();
                        }
                    }
                });
            }
            Self::Etcd(client) => {
                let options = WatchOptions::new().with_prefix();
                let mut watch = client.watch("/registry/", Some(options)).await.unwrap();
                tokio::spawn(async move {
                    while let Some(Ok(answer)) = watch.next().await {
                        if !answer.events().is_empty() {
                            seen.send((answer.header().unwrap().revision() as u64, Instant::now())).ok();
                        }
                    }
                });
            }
        }
    }
}

/// What a load came to.
pub struct Outcome {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
    pub cpu_per_write: Duration,
    pub bytes_per_write: f64,
}

/// Lets so many writers update keys of their own for a while.
pub async fn write_for(subject: &Subject, disk: &Path, writers: usize, time: Duration) -> Outcome {
    let mut handles = Vec::new();
    for _ in 0..writers {
        handles.push(subject.writer().await);
    }
    let (cpu_before, written_before) = (cpu(subject.pid()), written_to_disk_of(disk));
    let begun = Instant::now();
    let tasks = handles.into_iter().enumerate().map(|(writer, mut handle)| {
        tokio::spawn(async move {
            let own: Vec<String> = (writer..KEYS).step_by(writers).map(key).collect();
            let mut revisions = vec![None; own.len()];
            let mut latencies = Vec::new();
            while begun.elapsed() < time {
                let turn = latencies.len();
                let (key, at) = (&own[turn % own.len()], &mut revisions[turn % own.len()]);
                let value = value((writer * 1_000_003 + turn) as u64);
                let begun = Instant::now();
                *at = Some(handle.update(key, value, *at).await);
                latencies.push(begun.elapsed());
            }
            latencies
        })
    });
    let results = futures::future::join_all(tasks).await;
    let taken = begun.elapsed();
    let cpu = cpu(subject.pid()) - cpu_before;
    let written = written_to_disk_of(disk) - written_before;
    let mut latencies: Vec<Duration> = results.into_iter().flat_map(|latencies| latencies.unwrap()).collect();
    latencies.sort_unstable();
    let count = latencies.len();
    Outcome {
        per_second: count as f64 / taken.as_secs_f64(),
        p50: latencies[count / 2],
        p99: latencies[count * 99 / 100],
        cpu_per_write: cpu / count as u32,
        bytes_per_write: written as f64 / count as f64,
    }
}

/// One writer, so many watchers: how long from the start of a write until the last of them has it.
pub async fn fan_out(subject: &Subject, watchers: usize, writes: usize) -> (Duration, Duration) {
    let (seen, mut arrivals) = mpsc::unbounded_channel();
    // Few connections with many watches each, as an API server would have it.
    for chunk in 0..watchers.div_ceil(100) {
        let mut watcher = subject.writer().await;
        for _ in 0..(watchers - chunk * 100).min(100) {
            watcher.watch(seen.clone()).await;
        }
    }
    let mut writer = subject.writer().await;
    let mut latencies = Vec::new();
    for turn in 0..writes {
        let begun = Instant::now();
        let revision = writer.update(&key(turn % KEYS), value(turn as u64), None).await;
        let mut last = begun;
        for _ in 0..watchers {
            let (came, at) = arrivals.recv().await.unwrap();
            assert!(came >= revision);
            last = last.max(at);
        }
        latencies.push(last - begun);
    }
    latencies.sort_unstable();
    (latencies[writes / 2], latencies[writes * 99 / 100])
}

/// Creates so many keys, by a few writers in large transactions.
pub async fn fill(subject: &Subject, keys: usize) {
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (next, mut writer) = (Arc::clone(&next), subject.writer().await);
        tasks.push(tokio::spawn(async move {
            loop {
                let from = next.fetch_add(100, std::sync::atomic::Ordering::Relaxed);
                if from >= keys {
                    return;
                }
                writer.fill(from..(from + 100).min(keys)).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}
