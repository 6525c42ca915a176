//! What is counted of the policies: what they found, what was done about it, and how long it took to find.
//!
//! As upstream, what holds is not counted.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use parking_lot::Mutex;

/// Upper bounds of the buckets, in seconds, as upstream.
const BUCKETS: [f64; 5] = [0.000_000_5, 0.001, 0.01, 0.1, 1.0];
const NAME: &str = "apiserver_validating_admission_policy_check";

/// What one kind of outcome came to.
#[derive(Default)]
struct Tally {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

/// What a validation came to.
pub(super) struct Outcome<'a> {
    pub policy: &'a str,
    pub binding: &'a str,
    /// `no_error` where an expression said no, else what kept it from saying anything.
    pub error: &'static str,
    /// `allow`, `deny`, `warn` or `audit`.
    pub action: &'static str,
    pub elapsed: Duration,
}

/// The counters.
#[derive(Default)]
pub(crate) struct PolicyChecks(Mutex<BTreeMap<String, Tally>>);

impl PolicyChecks {
    pub(super) fn observe(&self, outcome: &Outcome<'_>) {
        let Outcome { policy, binding, error, action, elapsed } = outcome;
        let labels = format!(
            "enforcement_action=\"{action}\",error_type=\"{error}\",policy=\"{policy}\",policy_binding=\"{binding}\""
        );
        let seconds = elapsed.as_secs_f64();
        let mut all = self.0.lock();
        let tally = all.entry(labels).or_default();
        tally.count += 1;
        tally.seconds += seconds;
        for (bucket, bound) in tally.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    /// What is counted, for the metrics.
    pub fn write_metrics(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "# TYPE {NAME}_total counter\n# TYPE {NAME}_duration_seconds histogram")?;
        for (labels, Tally { buckets, count, seconds }) in &*self.0.lock() {
            writeln!(out, "{NAME}_total{{{labels}}} {count}")?;
            for (bound, count) in BUCKETS.iter().zip(buckets) {
                writeln!(out, "{NAME}_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {count}")?;
            }
            writeln!(out, "{NAME}_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {count}")?;
            writeln!(out, "{NAME}_duration_seconds_sum{{{labels}}} {seconds}")?;
            writeln!(out, "{NAME}_duration_seconds_count{{{labels}}} {count}")?;
        }
        Ok(())
    }
}
