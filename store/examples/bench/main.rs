//! The store's figures beside those of a real etcd on the same disk in the same run, as docs/benchmarks.md explains them.
//!
//! `cargo run --release -p store --example bench -- [DIR [PART]]`; `make bench` does it. DIR is where the data goes, a
//! disk of the kind that is of interest; by default the current directory. PART is one of writers, fan-out, open, space.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A measurement.

mod load;
mod machine;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use load::{KEYS, Outcome, Subject, VALUE_BYTES};
use machine::{Etcd, directory_bytes, memory_mb, written_to_disk_of};
use store::Store;
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use tempfile::TempDir;

const REPEATS: usize = 5;
const UPDATES: u64 = 1_000_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, open, dir] = &arguments[..]
        && open == "--open"
    {
        return open_and_report(Path::new(dir));
    }
    let parent = PathBuf::from(arguments.get(1).map_or(".", String::as_str));
    let only = arguments.get(2).map_or("", String::as_str);
    let wanted = |part: &str| only.is_empty() || only == part;
    println!("| figure | embedded | etcd | ratio |\n| --- | --- | --- | --- |");
    for writers in [1, 16, 64].into_iter().filter(|_| wanted("writers")) {
        compare_writers(&parent, writers).await;
    }
    if wanted("fan-out") {
        compare_fan_out(&parent).await;
    }
    for keys in [100_000, 1_000_000].into_iter().filter(|_| wanted("open")) {
        compare_opening(&parent, keys).await;
    }
    if wanted("space") {
        space(&parent).await;
    }
}

fn row(figure: &str, embedded: &str, etcd: &str, ratio: &str) {
    println!("| {figure} | {embedded} | {etcd} | {ratio} |");
}

fn microseconds(time: Duration) -> String {
    format!("{} µs", time.as_micros())
}

fn embedded_in(parent: &Path) -> (TempDir, Subject) {
    let dir = TempDir::with_prefix_in("embedded-", parent).unwrap();
    let subject = Subject::embedded(&dir.path().join("data"));
    (dir, subject)
}

/// Turn by turn, so that what else the machine does falls on both.
async fn compare_writers(parent: &Path, writers: usize) {
    let (_dir, embedded) = embedded_in(parent);
    let etcd = Subject::Etcd(Etcd::start(parent).await);
    let (mut ours, mut theirs): (Vec<Outcome>, Vec<Outcome>) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        ours.push(load::write_for(&embedded, parent, writers, Duration::from_secs(2)).await);
        theirs.push(load::write_for(&etcd, parent, writers, Duration::from_secs(2)).await);
    }
    let mut ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a.per_second / b.per_second).collect();
    ratios.sort_by(f64::total_cmp);
    let ratio = format!("{:.1} ({:.1} to {:.1})", ratios[REPEATS / 2], ratios[0], ratios[REPEATS - 1]);
    let by_speed = |a: &Outcome, b: &Outcome| a.per_second.total_cmp(&b.per_second);
    ours.sort_by(by_speed);
    theirs.sort_by(by_speed);
    let (a, b) = (&ours[REPEATS / 2], &theirs[REPEATS / 2]);
    let name = |what: &str| format!("{writers} writers: {what}");
    let number = |number: f64| format!("{number:.0}");
    row(&name("writes/s"), &number(a.per_second), &number(b.per_second), &ratio);
    row(&name("p50"), &microseconds(a.p50), &microseconds(b.p50), "");
    row(&name("p99"), &microseconds(a.p99), &microseconds(b.p99), "");
    row(&name("CPU per write"), &microseconds(a.cpu_per_write), &microseconds(b.cpu_per_write), "");
    row(&name("bytes to disk per write"), &number(a.bytes_per_write), &number(b.bytes_per_write), "");
}

async fn compare_fan_out(parent: &Path) {
    let (_dir, embedded) = embedded_in(parent);
    let ours = load::fan_out(&embedded, 1000, 200).await;
    let theirs = load::fan_out(&Subject::Etcd(Etcd::start(parent).await), 1000, 200).await;
    for (name, ours, theirs) in [("p50", ours.0, theirs.0), ("p99", ours.1, theirs.1)] {
        let ratio = format!("{:.1}", theirs.as_secs_f64() / ours.as_secs_f64());
        let name = format!("one write to the last of 1,000 watchers, {name}");
        row(&name, &microseconds(ours), &microseconds(theirs), &ratio);
    }
}

/// Fills both, starts both again, and measures until the first read is answered.
async fn compare_opening(parent: &Path, keys: usize) {
    let (dir, embedded) = embedded_in(parent);
    load::fill(&embedded, keys).await;
    drop(embedded);
    let program = std::env::current_exe().unwrap();
    let report =
        std::process::Command::new(program).arg("--open").arg(dir.path().join("data")).output().unwrap();
    let report = String::from_utf8(report.stdout).unwrap();
    let ours: Vec<&str> = report.trim().split(", ").collect();
    drop(dir);
    let mut etcd = Subject::Etcd(Etcd::start(parent).await);
    load::fill(&etcd, keys).await;
    let Subject::Etcd(process) = &mut etcd else { return };
    process.stop();
    let begun = Instant::now();
    process.run().await;
    let taken = begun.elapsed();
    let (resident, most) = memory_mb(process.pid());
    row(&format!("open with {keys} keys"), ours[0], &format!("{:.2} s", taken.as_secs_f64()), "");
    row(&format!("memory with {keys} keys"), ours[1], &format!("{resident} MB (most: {most} MB)"), "");
}

/// In a process of its own, whose memory is then the store's.
fn open_and_report(dir: &Path) {
    let begun = Instant::now();
    let store = EmbeddedStore::open(EmbeddedOptions::new(dir)).unwrap();
    let taken = begun.elapsed();
    let (resident, most) = memory_mb(std::process::id());
    println!("{:.2} s, {resident} MB (most: {most} MB)", taken.as_secs_f64());
    drop(store);
}

/// What a million updates of a thousand keys leave on the disk, and how much was written for them.
async fn space(parent: &Path) {
    let (dir, embedded) = embedded_in(parent);
    let data = dir.path().join("data");
    let Subject::Embedded(store) = &embedded else { return };
    let before = written_to_disk_of(parent);
    let watching = {
        let data = data.clone();
        tokio::spawn(async move {
            let mut most = 0;
            loop {
                most = most.max(directory_bytes(&data));
                tokio::time::sleep(Duration::from_millis(50)).await;
                if most > 0 && data.join("stop").exists() {
                    return most;
                }
            }
        })
    };
    let tasks = (0..64_u64).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut writer_handle = load::Writer::Embedded(store);
            for turn in (writer..UPDATES).step_by(64) {
                let key = load::key(turn as usize % KEYS);
                writer_handle.update(&key, load::value(turn), None).await;
            }
        })
    });
    for task in futures::future::join_all(tasks).await {
        task.unwrap();
    }
    let written = written_to_disk_of(parent) - before;
    std::fs::write(data.join("stop"), "").unwrap();
    let most = watching.await.unwrap();
    let left = directory_bytes(&data);
    store.compact(store.current_revision().await.unwrap()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let megabytes = |bytes: u64| format!("{:.0} MB", bytes as f64 / 1e6);
    let name = |what: &str| format!("1,000,000 updates of 1,000 keys of 1 KB: {what}");
    row(&name("directory at most"), &megabytes(most), "", "");
    row(&name("directory at the end"), &megabytes(left), "", "");
    row(&name("a minute after compaction"), &megabytes(directory_bytes(&data)), "", "");
    let amplification = written as f64 / (UPDATES * VALUE_BYTES as u64) as f64;
    row(&name("bytes to disk per byte of value"), &format!("{amplification:.2}"), "", "");
}
