//! What a pod's worker remembers between two looks at the pod: what failed, and when to try again.
//!
//! But for the allocation none of it survives the agent; a new agent learns it anew, at worst by one early restart of a
//! crashing container.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use super::allocation::Allocation;
use super::resize::{Pending, Resizing};

/// The first wait before a container that crashed again is started, or an image is pulled again.
const BACKOFF_MIN: SignedDuration = SignedDuration::from_secs(10);
/// The longest.
const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(300);
/// How long a failed pull is told before the wait for the next one is.
pub const PULL_ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(2);

/// A wait that doubles, and is forgotten after twice its maximum of quiet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    delay: SignedDuration,
    updated_at: Timestamp,
}

impl Backoff {
    /// The wait after a failure at `failed_at`: when it is over, and how long it is.
    pub fn pending(&self, failed_at: Timestamp, now: Timestamp) -> Option<(Timestamp, SignedDuration)> {
        if self.is_forgotten(failed_at) {
            return None;
        }
        let until = failed_at.saturating_add(self.delay).unwrap_or(Timestamp::MAX);
        (now < until).then_some((until, self.delay))
    }

    /// The next wait, after one more attempt for a failure at `failed_at`.
    pub fn next(before: Option<Self>, failed_at: Timestamp, now: Timestamp) -> Self {
        let delay = match before {
            Some(before) if !before.is_forgotten(failed_at) => (before.delay * 2).min(BACKOFF_MAX),
            _ => BACKOFF_MIN,
        };
        Self { delay, updated_at: now }
    }

    /// How long the wait is.
    pub fn delay(&self) -> SignedDuration {
        self.delay
    }

    fn is_forgotten(&self, failed_at: Timestamp) -> bool {
        failed_at.duration_since(self.updated_at) > BACKOFF_MAX * 2
    }
}

/// Why a container could not be started, before it is known when it is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The waiting reason that the status shows.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// The image that could not be had, and the wait for it.
    pub pull: Option<(String, Backoff)>,
}

impl Failure {
    /// One that is tried again soon.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_string(), message: message.into(), pull: None }
    }

    /// A pull that failed.
    pub fn pull(image: &str, message: String, backoff: Backoff) -> Self {
        Self { reason: "ErrImagePull".to_string(), message, pull: Some((image.to_string(), backoff)) }
    }
}

/// Why a container could not be started.
#[derive(Clone, Debug, PartialEq)]
pub struct StartFailure {
    /// The waiting reason that the status shows.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// The image that could not be had, if that is what failed.
    pub image: Option<String>,
    /// When it failed.
    pub failed_at: Timestamp,
    /// When to try again.
    pub retry_at: Timestamp,
}

/// What probes say of one running container.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProbeState {
    /// Whether the startup probe has succeeded (Some(true)) or failed for good (Some(false)).
    pub startup: Option<bool>,
    /// What the readiness probe last said.
    pub readiness: Option<bool>,
    /// Whether the liveness probe has failed for good.
    pub liveness_failed: bool,
}

/// A worker's memory.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Crash loops, by container name.
    pub crashes: HashMap<String, Backoff>,
    /// Waits for images, by image.
    pub pulls: HashMap<String, Backoff>,
    /// What could not be started, by container name.
    pub failures: HashMap<String, StartFailure>,
    /// What probes say, by container id.
    pub probes: HashMap<String, ProbeState>,
    /// Since when the sandbox cannot be made, and when to try again.
    pub sandbox_failure: Option<SandboxFailure>,
    /// Crashed containers (by id) whose wait has been told.
    pub waits_told: HashSet<String>,
    /// Whether postStart hooks of containers (by id) have yet to end.
    pub hooks_running: Option<String>,
    /// What the containers were granted and have.
    pub allocation: Allocation,
    /// Why other resources have to wait.
    pub resize_pending: Option<Pending>,
    /// The change of resources that is under way.
    pub resize: Option<Resizing>,
}

/// Why there is no sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxFailure {
    /// How many times in a row.
    pub times: u32,
    /// When to try again.
    pub retry_at: Timestamp,
}

impl Memory {
    /// Notes that a container which ended at `finished_at` is started again.
    pub fn note_restart(&mut self, name: &str, finished_at: Timestamp, now: Timestamp) {
        let next = Backoff::next(self.crashes.get(name).copied(), finished_at, now);
        self.crashes.insert(name.to_string(), next);
    }

    /// The wait before a container which ended at `finished_at` is started again.
    pub fn crash_wait(
        &self,
        name: &str,
        finished_at: Timestamp,
        now: Timestamp,
    ) -> Option<(Timestamp, SignedDuration)> {
        self.crashes.get(name)?.pending(finished_at, now)
    }

    /// Notes that the sandbox could not be made; the wait doubles from a second to half a minute.
    pub fn note_sandbox_failure(&mut self, now: Timestamp) {
        let times = self.sandbox_failure.as_ref().map_or(0, |failure| failure.times).saturating_add(1);
        let wait = SignedDuration::from_secs(1_i64 << (times - 1).min(5)).min(SignedDuration::from_secs(30));
        let retry_at = now.saturating_add(wait).unwrap_or(Timestamp::MAX);
        self.sandbox_failure = Some(SandboxFailure { times, retry_at });
    }

    /// Notes that a container could not be started. What is not an image's fault is tried again after ten seconds.
    pub fn note_failure(&mut self, name: &str, failure: Failure, now: Timestamp) {
        let Failure { reason, message, pull } = failure;
        let wait = pull.as_ref().map_or(BACKOFF_MIN, |(_, backoff)| backoff.delay());
        let retry_at = now.saturating_add(wait).unwrap_or(Timestamp::MAX);
        let image = pull.as_ref().map(|(image, _)| image.clone());
        self.pulls.extend(pull);
        let failure = StartFailure { reason, message, image, failed_at: now, retry_at };
        self.failures.insert(name.to_string(), failure);
    }

    /// Failed pulls that have been told for long enough: from now on the wait is told. Gives their containers.
    pub fn age_pulls(&mut self, now: Timestamp) -> Vec<String> {
        let mut aged = Vec::new();
        for (name, failure) in &mut self.failures {
            if failure.reason == "ErrImagePull" && now.duration_since(failure.failed_at) >= PULL_ERROR_SHOWN {
                failure.reason = "ImagePullBackOff".to_string();
                aged.push(name.clone());
            }
        }
        aged
    }

    /// Forgets what a changed config map or secret may have mended.
    pub fn forget_config_failures(&mut self) {
        self.failures.retain(|_, failure| failure.reason != "CreateContainerConfigError");
        // Volumes are set up before the sandbox; the count stays, so that the wait goes on growing if this did not help.
        if let Some(failure) = &mut self.sandbox_failure {
            failure.retry_at = Timestamp::MIN;
        }
    }

    /// Forgets containers that are gone.
    pub fn retain_containers(&mut self, is_there: impl Fn(&str) -> bool) {
        self.probes.retain(|id, _| is_there(id));
        self.waits_told.retain(|id| is_there(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn a_crash_loop_waits_ten_seconds_then_twice_as_long_up_to_five_minutes() {
        let mut memory = Memory::default();
        assert!(memory.crash_wait("web", at(0), at(0)).is_none());
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..8 {
            memory.note_restart("web", at(now), at(now));
            let (until, delay) = memory.crash_wait("web", at(now + 1), at(now + 1)).unwrap();
            waits.push(delay.as_secs());
            now = until.as_second() - 1_000_000;
            assert!(memory.crash_wait("web", at(now - delay.as_secs()), until).is_none());
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn a_crash_after_ten_quiet_minutes_starts_over() {
        let mut memory = Memory::default();
        memory.note_restart("web", at(0), at(0));
        memory.note_restart("web", at(10), at(10));
        assert!(memory.crash_wait("web", at(700), at(700)).is_none());
        memory.note_restart("web", at(700), at(700));
        assert_eq!(memory.crashes["web"].delay().as_secs(), 10);
    }
}
