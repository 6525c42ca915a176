//! How long commits take: one writer, many writers, in a directory of your choice.
//!
//! `cargo run --release -p store --example commit_latency -- DIR`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // A measurement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use store::{Action, Precondition, Store, Write};

const VALUE_BYTES: usize = 1500;
const COMMITS: usize = 2000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let dir = std::path::Path::new(&parent).join(format!("commit-latency-{}", std::process::id()));
    let store: Arc<dyn Store> =
        Arc::new(EmbeddedStore::open(EmbeddedOptions::new(&dir)).expect("the store opens"));
    for writers in [1, 4, 16, 64, 256] {
        measure(&store, writers).await;
    }
    drop(store);
    std::fs::remove_dir_all(dir).expect("the directory can be removed");
}

async fn measure(store: &Arc<dyn Store>, writers: usize) {
    let began = Instant::now();
    let tasks = (0..writers).map(|writer| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            for n in 0..COMMITS / writers.min(16) {
                let write = Write {
                    key: format!("/registry/pods/default/{writer}-{}", n % 100).into(),
                    precondition: Precondition::None,
                    action: Action::Put { value: Bytes::from(vec![b'x'; VALUE_BYTES]), time_to_live: None },
                };
                let began = Instant::now();
                store.commit(vec![write]).await.expect("the commit succeeds");
                latencies.push(began.elapsed());
            }
            latencies
        })
    });
    let results = futures::future::join_all(tasks).await;
    let mut latencies: Vec<Duration> = results.into_iter().flat_map(|latencies| latencies.unwrap()).collect();
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "{writers:>3} writers: {:>6.0} commits/s, p50 {:?}, p99 {:?}",
        latencies.len() as f64 / began.elapsed().as_secs_f64(),
        at(0.5),
        at(0.99)
    );
}
