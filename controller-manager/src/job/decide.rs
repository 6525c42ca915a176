//! What a job needs next. Pure.
//!
//! A finished pod is counted exactly once: first its UID goes into the status ("uncounted"), then its tracking finalizer is
//! removed, then its UID becomes a number. Every step can be repeated, and a pod cannot vanish before it is counted.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::indexes;
use super::policy::{self, Verdict};
use crate::common::conditions::{seconds, until};
use crate::common::pod_control::BURST_MAX;
use crate::common::pods;

pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often the pod's index had failed before this pod.
pub(super) const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const FIRST_BACKOFF_S: u64 = 10;
const LONGEST_BACKOFF_S: u64 = 600;

/// What a decision is made from.
pub(super) struct Snapshot<'a> {
    pub job: &'a Job,
    pub pods: &'a [Arc<Pod>],
    /// UIDs of pods whose finalizer was removed, though the cache may not show it yet.
    pub released: &'a HashSet<String>,
    /// Whether the cache shows all earlier creations and deletions.
    pub current: bool,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub status: JobStatus,
    pub delete: Vec<Arc<Pod>>,
    pub create: usize,
    /// The completion indexes of the pods to create, for indexed jobs.
    pub indexes: Vec<Slot>,
    /// Pods whose finalizer is to be removed once the status is written.
    pub release: Vec<Arc<Pod>>,
    /// The job has been finished for long enough.
    pub delete_job: bool,
    pub recheck: Option<Duration>,
}

/// One index to try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Slot {
    pub index: i32,
    /// How often it failed before, where that is limited.
    pub failures: Option<i32>,
}

pub(super) fn has_finalizer(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

pub(super) fn is_indexed(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.completion_mode.as_deref()) == Some("Indexed")
}

fn has_condition(status: &JobStatus, type_: &str) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == type_ && condition.status == "True")
}

pub(super) fn is_finished(job: &Job) -> bool {
    job.status
        .as_ref()
        .is_some_and(|status| has_condition(status, "Complete") || has_condition(status, "Failed"))
}

fn index_of(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

fn failures_before(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(INDEX_FAILURES)).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The outcome of a job, once it is known.
#[derive(Clone, Debug, PartialEq)]
struct Ending {
    success: bool,
    reason: String,
    message: String,
}

struct Count<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    snapshot: &'a Snapshot<'a>,
    status: JobStatus,
    completed: BTreeSet<i32>,
    failed_indexes: BTreeSet<i32>,
    release: Vec<Arc<Pod>>,
    fail_job: Option<String>,
    active: Vec<Arc<Pod>>,
    terminating: usize,
}

/// Decides the next steps.
pub(super) fn decide(snapshot: &Snapshot<'_>, now: Timestamp) -> Plan {
    let empty = JobSpec::default();
    let job = snapshot.job;
    let spec = job.spec.as_ref().unwrap_or(&empty);
    if is_finished(job) || job.metadata.deletion_timestamp.is_some() {
        return after_the_end(snapshot, spec, now);
    }
    let mut count = Count::new(snapshot, spec);
    count.count_finished();
    let suspended = spec.suspend == Some(true);
    if count.status.start_time.is_none() && !suspended {
        count.status.start_time = Some(Time(now));
    }
    let verdict = count.verdict(now);
    let mut plan = Plan::default();
    match verdict {
        Some(verdict) => {
            plan.delete = count.active.clone();
            count.report_verdict(&verdict, now);
        }
        None if suspended => {
            plan.delete = count.active.clone();
            count.report_suspension(true, now);
        }
        None => {
            count.report_suspension(false, now);
            count.plan_pods(&mut plan, now);
        }
    }
    plan.recheck = earliest(plan.recheck, deadline(spec, &count.status, now).filter(|_| !suspended));
    count.finish(plan)
}

fn earliest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn deadline(spec: &JobSpec, status: &JobStatus, now: Timestamp) -> Option<Duration> {
    let start = status.start_time.as_ref()?.0;
    let end = start.checked_add(seconds(spec.active_deadline_seconds?)).ok()?;
    (end > now).then(|| until(end, now) + Duration::from_millis(10))
}

/// A finished or vanishing job lets go of its pods, and goes itself when its time is over.
fn after_the_end(snapshot: &Snapshot<'_>, spec: &JobSpec, now: Timestamp) -> Plan {
    let job = snapshot.job;
    let deleting = job.metadata.deletion_timestamp.is_some();
    let status = job.status.clone().unwrap_or_default();
    let release = snapshot
        .pods
        .iter()
        .filter(|pod| {
            has_finalizer(pod) && (!deleting || pods::is_finished(pod) || pods::is_terminating(pod))
        })
        .cloned()
        .collect();
    let mut plan = Plan { status, release, ..Plan::default() };
    if deleting {
        return plan;
    }
    plan.delete = snapshot.pods.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
    let ended = plan.status.conditions.iter().flatten().find(|condition| {
        matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
    });
    if let (Some(ttl), Some(ended)) = (spec.ttl_seconds_after_finished, ended) {
        let end = ended.last_transition_time.as_ref().map_or(now, |time| time.0) + seconds(ttl);
        plan.delete_job = end <= now;
        plan.recheck = (end > now).then(|| until(end, now) + Duration::from_millis(10));
    }
    plan
}

impl<'a> Count<'a> {
    fn new(snapshot: &'a Snapshot<'a>, spec: &'a JobSpec) -> Self {
        let job = snapshot.job;
        let status = job.status.clone().unwrap_or_default();
        let text = status.completed_indexes.as_deref().unwrap_or_default();
        let completed = indexes::parse(text, spec.completions.unwrap_or(0));
        let text = status.failed_indexes.as_deref().unwrap_or_default();
        let failed_indexes = indexes::parse(text, spec.completions.unwrap_or(0));
        let active = snapshot.pods.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        let terminating =
            snapshot.pods.iter().filter(|pod| pods::is_terminating(pod) && !pods::is_finished(pod)).count();
        Self {
            job,
            spec,
            snapshot,
            status,
            completed,
            failed_indexes,
            release: Vec::new(),
            fail_job: None,
            active,
            terminating,
        }
    }

    /// Pods that are only terminating are replaced by default; with a failure policy, or on request, only once failed.
    fn replaces_only_failed(&self) -> bool {
        self.spec.pod_failure_policy.is_some()
            || self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    fn is_failed(&self, pod: &Pod) -> bool {
        let phase = pods::phase(pod);
        phase == "Failed"
            || (phase != "Succeeded" && pods::is_terminating(pod) && !self.replaces_only_failed())
    }

    fn is_tracked(&self, pod: &Pod) -> bool {
        has_finalizer(pod) && !self.snapshot.released.contains(pods::uid(pod))
    }

    fn count_finished(&mut self) {
        let tracked: HashSet<&str> =
            self.snapshot.pods.iter().filter(|pod| self.is_tracked(pod)).map(|pod| pods::uid(pod)).collect();
        let mut uncounted = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let settle = |list: &mut Option<Vec<String>>, total: &mut Option<i32>| {
            let uids = list.get_or_insert_default();
            let before = uids.len();
            uids.retain(|uid| tracked.contains(uid.as_str()));
            let settled = i32::try_from(before - uids.len()).unwrap_or(i32::MAX);
            if settled > 0 {
                *total = Some(total.unwrap_or(0) + settled);
            }
        };
        settle(&mut uncounted.succeeded, &mut self.status.succeeded);
        settle(&mut uncounted.failed, &mut self.status.failed);
        for pod in self.snapshot.pods {
            if self.is_tracked(pod) {
                self.count_one(pod, &mut uncounted);
            }
        }
        uncounted.succeeded = uncounted.succeeded.filter(|uids| !uids.is_empty());
        uncounted.failed = uncounted.failed.filter(|uids| !uids.is_empty());
        self.status.uncounted_terminated_pods = Some(uncounted);
    }

    fn count_one(&mut self, pod: &Arc<Pod>, uncounted: &mut UncountedTerminatedPods) {
        let uid = pods::uid(pod).to_string();
        if pods::phase(pod) == "Succeeded" {
            if is_indexed(self.job) {
                let index = index_of(pod).filter(|index| *index < self.spec.completions.unwrap_or(0));
                self.completed.extend(index);
            } else if !uncounted.succeeded.iter().flatten().any(|known| *known == uid) {
                uncounted.succeeded.get_or_insert_default().push(uid);
            }
        } else if self.is_failed(pod) {
            match policy::judge(self.job, pod) {
                Verdict::Ignore => {}
                verdict => {
                    let index_failed = self.exhausts_index(pod, &verdict);
                    self.failed_indexes.extend(index_of(pod).filter(|_| index_failed));
                    if let Verdict::FailJob(message) = verdict {
                        self.fail_job.get_or_insert(message);
                    }
                    if !uncounted.failed.iter().flatten().any(|known| *known == uid) {
                        uncounted.failed.get_or_insert_default().push(uid);
                    }
                }
            }
        } else {
            return;
        }
        if !self.is_needed_for_its_index(pod) {
            self.release.push(pod.clone());
        }
    }

    /// Whether this failed pod was the last try of its index.
    fn exhausts_index(&self, pod: &Pod, verdict: &Verdict) -> bool {
        let Some(limit) = self.spec.backoff_limit_per_index else { return false };
        *verdict == Verdict::FailIndex || failures_before(pod) >= limit
    }

    /// The last failed pod of an index remembers how often that index failed; it must not go before it is replaced.
    fn is_needed_for_its_index(&self, pod: &Pod) -> bool {
        if self.spec.backoff_limit_per_index.is_none() || pods::phase(pod) == "Succeeded" {
            return false;
        }
        let Some(index) = index_of(pod) else { return false };
        let replaced = self
            .snapshot
            .pods
            .iter()
            .any(|other| index_of(other) == Some(index) && failures_before(other) > failures_before(pod));
        !(replaced || self.completed.contains(&index) || self.failed_indexes.contains(&index))
    }

    fn succeeded(&self) -> i32 {
        if is_indexed(self.job) {
            return i32::try_from(self.completed.len()).unwrap_or(i32::MAX);
        }
        let uncounted =
            self.status.uncounted_terminated_pods.as_ref().and_then(|pods| pods.succeeded.as_ref());
        self.status.succeeded.unwrap_or(0) + i32::try_from(uncounted.map_or(0, Vec::len)).unwrap_or(0)
    }

    fn failed(&self) -> i32 {
        let uncounted = self.status.uncounted_terminated_pods.as_ref().and_then(|pods| pods.failed.as_ref());
        self.status.failed.unwrap_or(0) + i32::try_from(uncounted.map_or(0, Vec::len)).unwrap_or(0)
    }

    fn verdict(&self, now: Timestamp) -> Option<Ending> {
        if let Some(known) = self.known_verdict() {
            return Some(known);
        }
        let failed = |reason: &str, message: &str| {
            Some(Ending { success: false, reason: reason.into(), message: message.into() })
        };
        if let Some(message) = &self.fail_job {
            return failed("PodFailurePolicy", message);
        }
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if self.failed() > limit || self.restarts_exceed(limit) {
            return failed("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        let start = self.status.start_time.as_ref().map(|time| time.0);
        let deadline = self.spec.active_deadline_seconds.zip(start);
        if self.spec.suspend != Some(true)
            && deadline.is_some_and(|(limit, start)| {
                now >= start.checked_add(seconds(limit)).unwrap_or(Timestamp::MAX)
            })
        {
            return failed("DeadlineExceeded", "Job was active longer than specified deadline");
        }
        if self.spec.max_failed_indexes.is_some_and(|limit| count(self.failed_indexes.len()) > limit) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return failed("MaxFailedIndexesExceeded", message);
        }
        self.success().or_else(|| {
            let settled = count(self.failed_indexes.len()) + self.succeeded();
            let all = self.spec.completions.is_some_and(|completions| settled >= completions);
            let some_failed = !self.failed_indexes.is_empty();
            if all && some_failed { failed("FailedIndexes", "Job has failed indexes") } else { None }
        })
    }

    fn success(&self) -> Option<Ending> {
        let success =
            |reason: &str, message: String| Some(Ending { success: true, reason: reason.into(), message });
        let rules = self.spec.success_policy.iter().flat_map(|policy| policy.rules.iter());
        for (number, rule) in rules.enumerate() {
            let chosen = rule.succeeded_indexes.as_deref();
            let chosen = chosen.map(|text| indexes::parse(text, self.spec.completions.unwrap_or(0)));
            let met = match &chosen {
                Some(chosen) => chosen.intersection(&self.completed).count(),
                None => self.completed.len(),
            };
            let all = chosen.as_ref().map_or(usize::MAX, BTreeSet::len);
            let needed = rule.succeeded_count.and_then(|needed| usize::try_from(needed).ok()).unwrap_or(all);
            if met >= needed {
                return success("SuccessPolicy", format!("Matched rules at index {number}"));
            }
        }
        let done = match self.spec.completions {
            None => self.succeeded() > 0 && self.active.is_empty(),
            Some(completions) => self.succeeded() >= completions,
        };
        if done {
            success("CompletionsReached", "Reached expected number of succeeded pods".into())
        } else {
            None
        }
    }

    /// The verdict that an earlier pass wrote down; it is not taken back while pods wind down.
    fn known_verdict(&self) -> Option<Ending> {
        let mut conditions =
            self.status.conditions.iter().flatten().filter(|condition| condition.status == "True");
        let known = conditions
            .find(|known| matches!(known.type_.as_str(), "SuccessCriteriaMet" | "FailureTarget"))?;
        Some(Ending {
            success: known.type_ == "SuccessCriteriaMet",
            reason: known.reason.clone().unwrap_or_default(),
            message: known.message.clone().unwrap_or_default(),
        })
    }

    /// Containers restarted in place count, too.
    fn restarts_exceed(&self, limit: i32) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let restarts: i32 = self
            .active
            .iter()
            .flat_map(|pod| pod.status.iter())
            .flat_map(|status| {
                status
                    .init_container_statuses
                    .iter()
                    .flatten()
                    .chain(status.container_statuses.iter().flatten())
            })
            .map(|container| container.restart_count)
            .sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    /// First that the end is near, then, when no pod is left, that it has come.
    fn report_verdict(&mut self, verdict: &Ending, now: Timestamp) {
        let (target, end) =
            if verdict.success { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") };
        let (reason, message) = (verdict.reason.as_str(), verdict.message.as_str());
        // Nothing will be tried again: what was kept for that can go.
        let tracked = self.snapshot.pods.iter().filter(|pod| self.is_tracked(pod) && !pods::is_active(pod));
        self.release = tracked.cloned().collect();
        set_condition(&mut self.status, target, "True", reason, message, now);
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        let all_counted = uncounted.is_none_or(|pods| pods.succeeded.is_none() && pods.failed.is_none());
        if self.active.is_empty() && self.terminating == 0 && all_counted && self.release.is_empty() {
            set_condition(&mut self.status, end, "True", reason, message, now);
            if verdict.success {
                self.status.completion_time = Some(Time(now));
            }
            self.status.uncounted_terminated_pods = Some(UncountedTerminatedPods::default());
        }
    }

    fn report_suspension(&mut self, suspended: bool, now: Timestamp) {
        let known = self.status.conditions.iter().flatten().any(|condition| condition.type_ == "Suspended");
        if suspended {
            self.status.start_time = None;
            set_condition(&mut self.status, "Suspended", "True", "JobSuspended", "Job suspended", now);
        } else if known {
            set_condition(&mut self.status, "Suspended", "False", "JobResumed", "Job resumed", now);
        }
    }

    fn plan_pods(&self, plan: &mut Plan, now: Timestamp) {
        if !self.snapshot.current {
            return;
        }
        let parallelism = self.spec.parallelism.unwrap_or(1).max(0);
        let wanted = match self.spec.completions {
            None if self.succeeded() > 0 => {
                i32::try_from(self.active.len()).unwrap_or(i32::MAX).min(parallelism)
            }
            None => parallelism,
            Some(completions) => {
                let settled = self.succeeded() + count(self.failed_indexes.len());
                parallelism.min((completions - settled).max(0))
            }
        };
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let mut active = self.active.clone();
        if is_indexed(self.job) {
            plan.delete = self.misplaced(&mut active);
        }
        if active.len() > wanted {
            pods::sort_for_deletion(&mut active, |_| 0, now);
            let surplus = active.len() - wanted;
            plan.delete.extend(active.into_iter().take(surplus));
            return;
        }
        let held = if self.replaces_only_failed() { self.terminating } else { 0 };
        let missing = wanted.saturating_sub(active.len() + held).min(BURST_MAX);
        if missing == 0 {
            return;
        }
        let per_index = self.spec.backoff_limit_per_index.is_some();
        if let Some(wait) = self.backoff(now, None).filter(|_| !per_index) {
            plan.recheck = Some(wait);
            return;
        }
        plan.create = missing;
        if is_indexed(self.job) {
            self.plan_indexes(plan, &active, missing, now);
        }
    }

    /// Chooses the lowest indexes that are neither settled nor taken, nor waiting for their own back-off.
    fn plan_indexes(&self, plan: &mut Plan, active: &[Arc<Pod>], missing: usize, now: Timestamp) {
        let per_index = self.spec.backoff_limit_per_index.is_some();
        let mut taken: BTreeSet<i32> = active.iter().filter_map(|pod| index_of(pod)).collect();
        if self.replaces_only_failed() {
            let leaving =
                self.snapshot.pods.iter().filter(|pod| pods::is_terminating(pod) && !pods::is_finished(pod));
            taken.extend(leaving.filter_map(|pod| index_of(pod)));
        }
        let free = (0..self.spec.completions.unwrap_or(0)).filter(|index| {
            !(taken.contains(index) || self.completed.contains(index) || self.failed_indexes.contains(index))
        });
        for index in free {
            if plan.indexes.len() == missing {
                break;
            }
            if !per_index {
                plan.indexes.push(Slot { index, failures: None });
                continue;
            }
            if let Some(wait) = self.backoff(now, Some(index)) {
                plan.recheck = earliest(plan.recheck, Some(wait));
                continue;
            }
            let of_index =
                self.snapshot.pods.iter().filter(|pod| index_of(pod) == Some(index) && self.is_failed(pod));
            let failures = of_index
                .map(|pod| failures_before(pod) + i32::from(policy::judge(self.job, pod) != Verdict::Ignore))
                .max();
            plan.indexes.push(Slot { index, failures: Some(failures.unwrap_or(0)) });
        }
        plan.create = plan.indexes.len();
    }

    /// Pods of an indexed job whose index is done, out of range, or taken by another; they are taken out of `active`.
    fn misplaced(&self, active: &mut Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
        let completions = self.spec.completions.unwrap_or(0);
        active.sort_by_key(|pod| {
            (!pods::is_ready(pod), pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
        });
        let mut seen: HashMap<i32, ()> = HashMap::new();
        let (kept, misplaced) = active.drain(..).partition(|pod| {
            index_of(pod).is_some_and(|index| {
                index < completions && !self.completed.contains(&index) && seen.insert(index, ()).is_none()
            })
        });
        *active = kept;
        misplaced
    }

    /// How long to wait before the next pod (of one index): doubled with every failure since the last success.
    fn backoff(&self, now: Timestamp, index: Option<i32>) -> Option<Duration> {
        let ended = |wanted: &str| {
            let pods =
                self.snapshot.pods.iter().filter(move |pod| {
                    pods::phase(pod) == wanted && (index.is_none() || index_of(pod) == index)
                });
            pods.filter_map(|pod| finish_time(pod)).collect::<Vec<_>>()
        };
        let last_success = ended("Succeeded").into_iter().max();
        let failures: Vec<Timestamp> = ended("Failed")
            .into_iter()
            .filter(|end| last_success.is_none_or(|success| *end > success))
            .collect();
        let last = failures.iter().max()?;
        let doublings = u32::try_from(failures.len() - 1).unwrap_or(u32::MAX).min(10);
        let delay_s = (FIRST_BACKOFF_S << doublings).min(LONGEST_BACKOFF_S);
        let end = *last + seconds(i64::try_from(delay_s).unwrap_or(i64::MAX));
        (end > now).then(|| until(end, now) + Duration::from_millis(10))
    }

    fn finish(mut self, mut plan: Plan) -> Plan {
        let ready = self.active.iter().filter(|pod| pods::is_ready(pod)).count();
        self.status.active = Some(count(self.active.len())).filter(|active| *active > 0);
        self.status.ready = Some(count(ready));
        self.status.terminating = Some(count(self.terminating));
        if is_indexed(self.job) {
            self.status.succeeded = Some(count(self.completed.len())).filter(|succeeded| *succeeded > 0);
            self.status.completed_indexes =
                Some(indexes::format(&self.completed)).filter(|text| !text.is_empty());
            if self.spec.backoff_limit_per_index.is_some() {
                self.status.failed_indexes = Some(indexes::format(&self.failed_indexes));
            }
        }
        plan.status = self.status;
        plan.release = self.release;
        plan
    }
}

fn count(pods: usize) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

/// When the last of a finished pod's containers ended.
fn finish_time(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ended = statuses
        .filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
        .map(|time| time.0)
        .max();
    let changed = pods::condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref());
    let created = pod.metadata.creation_timestamp.as_ref();
    ended.or_else(|| changed.or(created).map(|time| time.0))
}

fn set_condition(
    status: &mut JobStatus,
    type_: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    if let Some(known) = conditions.iter_mut().find(|known| known.type_ == type_) {
        if known.status != value {
            known.status = value.into();
            known.last_transition_time = Some(Time(now));
            known.last_probe_time = Some(Time(now));
            known.reason = Some(reason.into());
            known.message = Some(message.into());
        }
        return;
    }
    conditions.push(JobCondition {
        type_: type_.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
