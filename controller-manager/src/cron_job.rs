//! Cron jobs: create jobs by a schedule.
//!
//! A job's name is made of its scheduled minute, so one run is never created twice, whatever the caches show. After a gap only the
//! latest missed run is made up, if its deadline allows. Schedules without a time zone follow UTC.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::cron::Schedule;
use client::owner::{controller_of, controller_ref, is_controlled_by};
use client::patch::{only, update_status};
use client::{
    ErrorExt, EventRecorder, EventType, Forgive, Index, Informer, ObjectKey, Outcome, events, queue,
};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, ResourceExt};

use crate::common::conditions::{seconds, until};
use crate::common::{Context, Reconciled};

const WORKERS: usize = 5;
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Where a machine has its time zones.
const ZONES: &str = "/usr/share/zoneinfo";
/// So many missed runs point to a clock that jumped.
const MISSED_MAX: usize = 100;

#[derive(Debug, Default)]
struct Plan {
    status: CronJobStatus,
    create: Option<Timestamp>,
    delete: Vec<Arc<Job>>,
    warnings: Vec<(&'static str, String)>,
    recheck: Option<Duration>,
}

/// Runs the controller until shutdown.
pub(crate) async fn run(context: Context) {
    let cron_jobs = context.all::<CronJob>();
    let jobs = context.all::<Job>();
    let queue = context.queue("cronjob");
    let owned = jobs.by_controller();
    if !(cron_jobs.synced().await && jobs.synced().await) {
        return;
    }
    cron_jobs.feed(&queue, ObjectKey::of);
    let enqueue = queue.clone();
    jobs.on_change(move |change| {
        let job = change.object();
        if let Some(owner) = controller_of(job.as_ref()).filter(|owner| owner.kind == "CronJob") {
            enqueue.add(ObjectKey::new(job.namespace().unwrap_or_default(), owner.name.clone()));
        }
    });
    let recorder = context.recorder("cronjob-controller");
    let controller = Arc::new(Controller { context, cron_jobs, owned, recorder });
    queue::run_on(queue, WORKERS, controller, Controller::reconcile).await;
}

struct Controller {
    context: Context,
    cron_jobs: Informer<CronJob>,
    owned: Index<Job>,
    recorder: EventRecorder,
}

impl Controller {
    async fn reconcile(self: Arc<Self>, key: ObjectKey) -> Reconciled {
        let Some(cron_job) = self.cron_jobs.get_key(&key) else { return Ok(Outcome::Done) };
        if cron_job.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let jobs = self.owned.get(&cron_job.uid().unwrap_or_default());
        let mut plan = decide(&cron_job, &jobs, self.context.now());
        for (reason, message) in std::mem::take(&mut plan.warnings) {
            self.recorder.record(cron_job.as_ref(), EventType::Warning, reason, message);
        }
        let api: Api<Job> = self.context.api(&key.namespace);
        for job in &plan.delete {
            let name = job.name_any();
            let params = only(job.as_ref(), DeleteParams::background());
            if api.delete(&name, &params).await.if_found()?.is_some() {
                let message = format!("Deleted job {name}");
                self.recorder.record(cron_job.as_ref(), EventType::Normal, "SuccessfulDelete", message);
            }
        }
        if let Some(at) = plan.create {
            self.create(&cron_job, &api, at, &mut plan.status).await?;
        }
        let mut changed = cron_job.as_ref().clone();
        changed.status = Some(plan.status);
        update_status(&self.context.api(&key.namespace), cron_job.as_ref(), &changed).await?;
        Ok(plan.recheck.map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    async fn create(
        &self,
        cron_job: &CronJob,
        api: &Api<Job>,
        at: Timestamp,
        status: &mut CronJobStatus,
    ) -> Result<(), kube::Error> {
        let job = new_job(cron_job, at);
        let created = match api.create(&PostParams::default(), &job).await {
            Ok(created) => created,
            Err(error) if error.is_already_exists() => {
                let existing = api.get(&job.name_any()).await?;
                if !is_controlled_by(&existing, &cron_job.uid().unwrap_or_default()) {
                    return Err(error);
                }
                existing
            }
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            Err(error) => {
                let message = format!("Error creating job: {}", error.told());
                self.recorder.record(cron_job, EventType::Warning, "FailedCreate", message);
                return Err(error);
            }
        };
        let message = format!("Created job {}", created.name_any());
        self.recorder.record(cron_job, EventType::Normal, "SuccessfulCreate", message);
        let reference = events::reference_to(&created);
        let active = status.active.get_or_insert_default();
        if !active.iter().any(|known| known.uid == reference.uid) {
            active.push(reference);
        }
        status.last_schedule_time = Some(Time(at));
        Ok(())
    }
}

fn new_job(cron_job: &CronJob, at: Timestamp) -> Job {
    let template = cron_job.spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED_AT.into(), at.to_string());
    let mut prefix = cron_job.name_any();
    prefix.truncate(52);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{prefix}-{}", at.as_second() / 60)),
            namespace: cron_job.namespace(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_ref(cron_job)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// How a job ended.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Running,
    Complete,
    Failed,
}

fn end_of(job: &Job) -> End {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ended = conditions.filter(|condition| condition.status == "True");
    match ended.find(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed")) {
        Some(condition) if condition.type_ == "Complete" => End::Complete,
        Some(_) => End::Failed,
        None => End::Running,
    }
}

fn decide(cron_job: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let spec = &cron_job.spec;
    let mut plan = Plan { status: cron_job.status.clone().unwrap_or_default(), ..Plan::default() };
    let running: Vec<&Arc<Job>> = jobs.iter().filter(|job| end_of(job) == End::Running).collect();
    let references: Vec<_> = running.iter().map(|job| events::reference_to(job.as_ref())).collect();
    plan.status.active = Some(references)
        .map(|mut references| {
            references.iter_mut().for_each(|reference| reference.resource_version = None);
            references
        })
        .filter(|references| !references.is_empty());
    let completed = jobs.iter().filter(|job| end_of(job) == End::Complete);
    let last = completed
        .filter_map(|job| job.status.as_ref()?.completion_time.as_ref())
        .max_by_key(|time| time.0)
        .cloned();
    if last.as_ref().map(|time| time.0) > plan.status.last_successful_time.as_ref().map(|time| time.0) {
        plan.status.last_successful_time = last;
    }
    clean_up(spec, jobs, &mut plan);
    if spec.suspend == Some(true) {
        return plan;
    }
    let (schedule, zone) = match when(spec) {
        Ok(found) => found,
        Err(problem) => {
            plan.warnings.push(problem);
            return plan;
        }
    };
    if let Some(next) = schedule.next_after(now, &zone) {
        plan.recheck = Some(until(next, now) + Duration::from_millis(100));
    }
    if let Some(due) = latest_due(cron_job, spec, &schedule, &zone, now, &mut plan.warnings) {
        start_run(spec, due, &running, jobs, now, &mut plan);
    }
    plan
}

fn when(spec: &CronJobSpec) -> Result<(Schedule, TimeZone), (&'static str, String)> {
    let schedule: Schedule = spec.schedule.parse().map_err(|problem| {
        ("UnparseableSchedule", format!("unparseable schedule: {:?}: {problem}", spec.schedule))
    })?;
    let name = spec.time_zone.clone().or_else(|| schedule.zone().map(Into::into));
    let zone = match name.as_deref() {
        None => TimeZone::UTC,
        Some(name) => zone(name).ok_or_else(|| {
            ("UnknownTimeZone", format!("invalid timeZone: {name:?}: unknown time zone {name}"))
        })?,
    };
    Ok((schedule, zone))
}

/// A time zone by this machine's data where it has some, which is newer when a country has just moved its clocks.
fn zone(name: &str) -> Option<TimeZone> {
    // A name that is known leads nowhere else.
    let built_in = api::cron::zone(name)?;
    let installed = std::fs::read(Path::new(ZONES).join(name)).ok();
    Some(installed.and_then(|data| TimeZone::tzif(name, &data).ok()).unwrap_or(built_in))
}

/// The latest run that should have happened since the last one.
fn latest_due(
    cron_job: &CronJob,
    spec: &CronJobSpec,
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
    warnings: &mut Vec<(&'static str, String)>,
) -> Option<Timestamp> {
    let last = cron_job.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let mut from = last.map(|time| time.0).or_else(|| cron_job.creation_timestamp().map(|time| time.0))?;
    if let Some(deadline) = spec.starting_deadline_seconds {
        from = from.max(now.checked_sub(seconds(deadline)).unwrap_or(from));
    }
    let mut due = None;
    for missed in 0.. {
        let Some(next) = schedule.next_after(due.unwrap_or(from), zone).filter(|next| *next <= now) else {
            return due;
        };
        due = Some(next);
        if missed == MISSED_MAX {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            warnings.push(("TooManyMissedTimes", message.into()));
            // The rest would only cost time: jump close to the present.
            due = schedule
                .next_after(now.checked_sub(seconds(2 * 3600)).unwrap_or(next), zone)
                .filter(|late| *late <= now)
                .or(due);
        }
        if missed > MISSED_MAX + 200 {
            return due;
        }
    }
    due
}

fn start_run(
    spec: &CronJobSpec,
    due: Timestamp,
    running: &[&Arc<Job>],
    jobs: &[Arc<Job>],
    now: Timestamp,
    plan: &mut Plan,
) {
    let late = spec
        .starting_deadline_seconds
        .is_some_and(|deadline| due.checked_add(seconds(deadline)).is_ok_and(|end| end < now));
    if late {
        let message = format!("Missed scheduled time to start a job: {due}");
        plan.warnings.push(("MissSchedule", message));
        return;
    }
    let minute = format!("-{}", due.as_second() / 60);
    if jobs.iter().any(|job| job.name_any().ends_with(&minute)) {
        // It runs or ran already; only the status did not say so yet.
        plan.status.last_schedule_time = Some(Time(due));
        return;
    }
    if !running.is_empty() {
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                plan.warnings.push(("JobAlreadyActive", message.into()));
                return;
            }
            Some("Replace") => plan.delete.extend(running.iter().map(|job| Arc::clone(job))),
            _ => {}
        }
    }
    plan.create = Some(due);
}

/// Deletes the oldest finished jobs beyond the limits.
fn clean_up(spec: &CronJobSpec, jobs: &[Arc<Job>], plan: &mut Plan) {
    for (end, limit) in [
        (End::Complete, spec.successful_jobs_history_limit.unwrap_or(3)),
        (End::Failed, spec.failed_jobs_history_limit.unwrap_or(1)),
    ] {
        let mut ended: Vec<_> = jobs
            .iter()
            .filter(|job| end_of(job) == end && job.metadata.deletion_timestamp.is_none())
            .cloned()
            .collect();
        ended.sort_by_key(|job| {
            (
                job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0),
                job.name_any(),
            )
        });
        let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        plan.delete.extend(ended.into_iter().take(surplus));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron_job(extra: serde_json::Value) -> CronJob {
        let mut spec = json!({"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {"spec": {"containers": []}}}}});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "metadata": {"name": "tick", "namespace": "default", "uid": "c", "creationTimestamp": "2026-01-01T00:00:30Z"},
            "spec": spec
        }))
        .unwrap()
    }

    fn job(name: &str, condition: Option<&str>) -> Arc<Job> {
        let conditions: Vec<_> =
            condition.iter().map(|type_| json!({"type": type_, "status": "True"})).collect();
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name}, "status": {"conditions": conditions}}))
                .unwrap(),
        )
    }

    #[test]
    fn a_run_is_due_at_its_minute_and_once() {
        let cron = cron_job(json!({}));
        let early = decide(&cron, &[], time("2026-01-01T00:04:00Z"));
        assert_eq!((early.create, early.recheck.unwrap().as_secs()), (None, 60));
        let due = decide(&cron, &[], time("2026-01-01T00:05:01Z"));
        assert_eq!(due.create, Some(time("2026-01-01T00:05:00Z")));
        let made = Arc::new(new_job(&cron, due.create.unwrap()));
        let again = decide(&cron, &[made], time("2026-01-01T00:05:02Z"));
        assert_eq!(again.create, None);
        assert_eq!(again.status.last_schedule_time, Some(Time(time("2026-01-01T00:05:00Z"))));
    }

    #[test]
    fn after_a_gap_only_the_latest_run_is_made_up() {
        let plan = decide(&cron_job(json!({})), &[], time("2026-01-01T01:02:00Z"));
        assert_eq!(plan.create, Some(time("2026-01-01T01:00:00Z")));
        let strict = cron_job(json!({"startingDeadlineSeconds": 60}));
        assert_eq!(decide(&strict, &[], time("2026-01-01T01:02:00Z")).create, None);
        let long = decide(&cron_job(json!({})), &[], time("2026-02-01T00:02:00Z"));
        assert_eq!(long.create, Some(time("2026-02-01T00:00:00Z")));
        assert_eq!(long.warnings[0].0, "TooManyMissedTimes");
    }

    #[test]
    fn concurrency_policies_are_followed() {
        let running = [job("tick-1", None)];
        let now = time("2026-01-01T00:05:01Z");
        assert!(decide(&cron_job(json!({})), &running, now).create.is_some());
        let forbidden = decide(&cron_job(json!({"concurrencyPolicy": "Forbid"})), &running, now);
        assert_eq!((forbidden.create, forbidden.warnings[0].0), (None, "JobAlreadyActive"));
        let replaced = decide(&cron_job(json!({"concurrencyPolicy": "Replace"})), &running, now);
        assert_eq!((replaced.create.is_some(), replaced.delete.len()), (true, 1));
        assert!(decide(&cron_job(json!({"suspend": true})), &running, now).create.is_none());
    }

    #[test]
    fn only_the_newest_finished_jobs_are_kept() {
        let jobs: Vec<_> = (0..5).map(|number| job(&format!("tick-{number}"), Some("Complete"))).collect();
        let plan = decide(&cron_job(json!({})), &jobs, time("2026-01-01T00:01:00Z"));
        let names: Vec<_> = plan.delete.iter().map(|job| job.name_any()).collect();
        assert_eq!(names, ["tick-0", "tick-1"]);
    }
}
