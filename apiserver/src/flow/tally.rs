//! What is counted of the requests of one schema.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::level::Refused;

/// Upper bounds of the buckets, in seconds, as upstream.
const BUCKETS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Histogram {
    fn observe(&self, duration: Duration) {
        self.count.fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        let bucket = BUCKETS.iter().position(|bound| duration.as_secs_f64() <= *bound);
        if let Some(bucket) = bucket.and_then(|bucket| self.buckets.get(bucket)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) -> std::fmt::Result {
        let mut sum = 0;
        for (bound, bucket) in BUCKETS.iter().zip(&self.buckets) {
            sum += bucket.load(Relaxed);
            writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {sum}")?;
        }
        let count = self.count.load(Relaxed);
        writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
        let seconds = Duration::from_nanos(self.nanoseconds.load(Relaxed)).as_secs_f64();
        writeln!(out, "{name}_sum{{{labels}}} {seconds}\n{name}_count{{{labels}}} {count}")
    }
}

/// The counters of one schema.
#[derive(Debug, Default)]
pub(super) struct Tally {
    dispatched: AtomicU64,
    rejected: [AtomicU64; 3],
    waiting: AtomicUsize,
    waiting_seats: AtomicUsize,
    executing: AtomicUsize,
    executing_seats: AtomicUsize,
    waits: Histogram,
    refused_waits: Histogram,
    executions: Histogram,
}

/// A request that waits or runs; counted until it is dropped.
pub(super) struct Counted {
    tally: Arc<Tally>,
    width: usize,
    since: Instant,
    runs: bool,
}

impl Counted {
    /// A request that begins to wait.
    pub fn waits(tally: Arc<Tally>, width: usize) -> Self {
        tally.waiting.fetch_add(1, Relaxed);
        tally.waiting_seats.fetch_add(width, Relaxed);
        Self { tally, width, since: Instant::now(), runs: false }
    }

    fn has_waited(&self) -> Duration {
        self.tally.waiting.fetch_sub(1, Relaxed);
        self.tally.waiting_seats.fetch_sub(self.width, Relaxed);
        self.since.elapsed()
    }

    /// It runs now.
    pub fn run(&mut self) {
        self.tally.waits.observe(self.has_waited());
        self.tally.dispatched.fetch_add(1, Relaxed);
        self.tally.executing.fetch_add(1, Relaxed);
        self.tally.executing_seats.fetch_add(self.width, Relaxed);
        (self.runs, self.since) = (true, Instant::now());
    }

    /// It never will.
    pub fn refuse(&self, refused: Refused) {
        self.tally.refused_waits.observe(self.since.elapsed());
        if let Some(count) = self.tally.rejected.get(refused as usize) {
            count.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.runs {
            self.tally.executing.fetch_sub(1, Relaxed);
            self.tally.executing_seats.fetch_sub(self.width, Relaxed);
            self.tally.executions.observe(self.since.elapsed());
        } else {
            self.has_waited();
        }
    }
}

impl Tally {
    /// Everything about a schema and its level, as lines of names and values.
    pub fn write(&self, out: &mut String, level: &str, schema: &str) -> std::fmt::Result {
        let labels = format!("priority_level=\"{level}\",flow_schema=\"{schema}\"");
        let gauges: [(&str, &AtomicUsize); 4] = [
            ("current_inqueue_requests", &self.waiting),
            ("current_inqueue_seats", &self.waiting_seats),
            ("current_executing_requests", &self.executing),
            ("current_executing_seats", &self.executing_seats),
        ];
        for (name, value) in gauges {
            writeln!(out, "apiserver_flowcontrol_{name}{{{labels}}} {}", value.load(Relaxed))?;
        }
        let name = "apiserver_flowcontrol_dispatched_requests_total";
        writeln!(out, "{name}{{{labels}}} {}", self.dispatched.load(Relaxed))?;
        for (reason, count) in Refused::ALL.iter().zip(&self.rejected) {
            let name = "apiserver_flowcontrol_rejected_requests_total";
            let count = count.load(Relaxed);
            if count > 0 {
                writeln!(out, "{name}{{{labels},reason=\"{}\"}} {count}", reason.name())?;
            }
        }
        // Nobody has come by yet: the histograms would be all zeros.
        if self.waits.count.load(Relaxed) + self.refused_waits.count.load(Relaxed) == 0 {
            return Ok(());
        }
        let waits = "apiserver_flowcontrol_request_wait_duration_seconds";
        self.waits.write(out, waits, &format!("{labels},execute=\"true\""))?;
        self.refused_waits.write(out, waits, &format!("{labels},execute=\"false\""))?;
        self.executions.write(out, "apiserver_flowcontrol_request_execution_seconds", &labels)
    }
}
