//! What the server counts about itself, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::admission::PolicyChecks;
use crate::cache::Cache;
use crate::flow::Flow;
use crate::http::request_info::RequestInfo;

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 12] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 10.0, 60.0];
/// Different label sets are bounded by the table; beyond this something is wrong and new ones are not counted.
const SERIES_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

#[derive(Clone, Debug, Default)]
struct Latency {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

#[derive(Default)]
struct Inner {
    requests: BTreeMap<(Series, u16), u64>,
    latencies: BTreeMap<Series, Latency>,
    watchers: BTreeMap<String, i64>,
}

/// The counters.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    inner: Arc<Mutex<Inner>>,
    reads_in_flight: Arc<AtomicI64>,
    writes_in_flight: Arc<AtomicI64>,
}

/// A request that is being served.
pub(crate) struct InFlight {
    metrics: Metrics,
    gauge: Arc<AtomicI64>,
}

/// A watch that is being served; counted until it is dropped.
pub(crate) struct CountedWatcher {
    metrics: Metrics,
    resource: String,
}

impl Metrics {
    /// Counts a request that begins.
    pub fn begin(&self, info: &RequestInfo) -> InFlight {
        let reads = matches!(info.verb, "get" | "list" | "watch" | "head" | "options");
        let gauge = if reads { &self.reads_in_flight } else { &self.writes_in_flight };
        gauge.fetch_add(1, Ordering::Relaxed);
        InFlight { metrics: self.clone(), gauge: gauge.clone() }
    }

    /// Counts a watch that begins.
    pub fn watcher(&self, resource: &str) -> CountedWatcher {
        *self.inner.lock().watchers.entry(resource.to_string()).or_default() += 1;
        CountedWatcher { metrics: self.clone(), resource: resource.to_string() }
    }

    fn observe(&self, info: &RequestInfo, code: u16, elapsed: Duration) {
        let series = series(info);
        let mut inner = self.inner.lock();
        let key = (series.clone(), code);
        if inner.requests.len() >= SERIES_MAX && !inner.requests.contains_key(&key) {
            return;
        }
        *inner.requests.entry(key).or_default() += 1;
        // A watch or a stream lasts as long as the client wants.
        let streams =
            matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy" | "log");
        if info.verb == "watch" || streams {
            return;
        }
        let seconds = elapsed.as_secs_f64();
        let latency = inner.latencies.entry(series).or_default();
        latency.count += 1;
        latency.seconds += seconds;
        for (bucket, bound) in latency.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    /// Everything, as text.
    pub fn render(&self, cache: &Cache, flow: &Flow, policies: &PolicyChecks) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ignored = self.write(&mut out, cache, flow).and_then(|()| policies.write_metrics(&mut out));
        out
    }

    fn write(&self, out: &mut String, cache: &Cache, flow: &Flow) -> std::fmt::Result {
        let inner = self.inner.lock();
        out.push_str("# HELP apiserver_request_total Requests by verb, resource and code.\n");
        out.push_str("# TYPE apiserver_request_total counter\n");
        for ((series, code), count) in &inner.requests {
            writeln!(out, "apiserver_request_total{{{},code=\"{code}\"}} {count}", labels(series))?;
        }
        out.push_str("# HELP apiserver_request_duration_seconds How long requests took.\n");
        out.push_str("# TYPE apiserver_request_duration_seconds histogram\n");
        for (series, latency) in &inner.latencies {
            let labels = labels(series);
            let name = "apiserver_request_duration_seconds";
            for (bound, count) in BUCKETS.iter().zip(latency.buckets) {
                writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
            }
            writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", latency.count)?;
            writeln!(out, "{name}_sum{{{labels}}} {}", latency.seconds)?;
            writeln!(out, "{name}_count{{{labels}}} {}", latency.count)?;
        }
        out.push_str("# TYPE apiserver_current_inflight_requests gauge\n");
        for (kind, gauge) in [("readOnly", &self.reads_in_flight), ("mutating", &self.writes_in_flight)] {
            let count = gauge.load(Ordering::Relaxed);
            writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {count}")?;
        }
        flow.write_metrics(out)?;
        out.push_str("# TYPE apiserver_longrunning_requests gauge\n");
        for (resource, count) in &inner.watchers {
            writeln!(
                out,
                "apiserver_longrunning_requests{{verb=\"WATCH\",resource=\"{resource}\"}} {count}"
            )?;
        }
        out.push_str("# TYPE apiserver_storage_objects gauge\n");
        for (name, row) in cache.rows() {
            let (events, bytes) = row.history_size();
            writeln!(out, "apiserver_storage_objects{{resource=\"{name}\"}} {}", row.len())?;
            writeln!(out, "apiserver_watch_cache_history_events{{resource=\"{name}\"}} {events}")?;
            writeln!(out, "apiserver_watch_cache_history_bytes{{resource=\"{name}\"}} {bytes}")?;
        }
        writeln!(out, "apiserver_watch_cache_resource_version {}", cache.revision())
    }
}

impl InFlight {
    /// Counts the answer. What the path names is counted by name only if it exists: anybody can ask for anything.
    pub fn end(self, info: &RequestInfo, is_known: bool, code: u16, elapsed: Duration) {
        let unknown = RequestInfo { verb: info.verb, ..RequestInfo::default() };
        self.metrics.observe(if is_known { info } else { &unknown }, code, elapsed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.gauge.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for CountedWatcher {
    fn drop(&mut self) {
        if let Some(count) = self.metrics.inner.lock().watchers.get_mut(&self.resource) {
            *count -= 1;
        }
    }
}

fn series(info: &RequestInfo) -> Series {
    let scope = match (info.is_resource, info.namespace.is_empty(), info.name.is_empty()) {
        (false, ..) => "",
        (true, _, false) => "resource",
        (true, false, true) => "namespace",
        (true, true, true) => "cluster",
    };
    Series {
        verb: info.verb,
        group: info.group.clone(),
        version: info.version.clone(),
        resource: info.resource.clone(),
        subresource: info.subresource.clone(),
        scope,
    }
}

fn labels(series: &Series) -> String {
    let Series { verb, group, version, resource, subresource, scope } = series;
    let clean = |text: &str| text.replace(['"', '\\', '\n'], "_");
    format!(
        "verb=\"{}\",group=\"{}\",version=\"{}\",resource=\"{}\",subresource=\"{}\",scope=\"{scope}\"",
        verb.to_uppercase(),
        clean(group),
        clean(version),
        clean(resource),
        clean(subresource)
    )
}
