//! Cron jobs.

use serde_json::{Value, json};

use super::{
    super::{
        common::{non_negative, one_of, spec},
        pod,
    },
    job,
};
use crate::{
    FieldError, Strategy, WriteContext,
    cron::Schedule,
    field::{Errors, Look, Path, PathExt, Touch},
};

/// Jobs are named after their cron job and a number of eleven digits.
const NAME_LENGTH_MAX: usize = 52;

/// What is special about cron jobs.
pub struct CronJob;

impl Strategy for CronJob {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
        spec.default_text("concurrencyPolicy", "Allow");
        spec.default_to("suspend", false);
        spec.default_to("successfulJobsHistoryLimit", 3);
        spec.default_to("failedJobsHistoryLimit", 1);
        if let Some(job) =
            spec.get_mut("jobTemplate").and_then(|t| t.get_mut("spec")).filter(|s| s.is_object())
        {
            set_template_defaults(job);
        }
    }

    fn tracks_generation(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.put("status", json!({}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("spec");
        let spec = spec(object);
        let schedule = spec.text("schedule");
        if schedule.is_empty() {
            errors.required(&path.field("schedule"), "");
        } else if let Err(why) = schedule.parse::<Schedule>() {
            errors.invalid(&path.field("schedule"), schedule, why.to_string());
        }
        non_negative(
            &mut errors,
            &path,
            spec,
            &["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"],
        );
        if let Some(zone) = spec.at("timeZone").and_then(Value::as_str) {
            time_zone(&mut errors, &path.field("timeZone"), zone);
        }
        one_of(&mut errors, &path.field("concurrencyPolicy"), spec, &["Allow", "Forbid", "Replace"]);
        let job_path = path.field("jobTemplate.spec");
        let job = spec.dig(&["jobTemplate", "spec"]).unwrap_or(&Value::Null);
        job::validate_spec(&mut errors, &job_path, job);
        if let Some(selector) = job.at("selector") {
            errors.invalid(
                &job_path.field("selector"),
                selector.clone(),
                "`selector` will be auto-generated",
            );
        }
        if job.flag("manualSelector") {
            errors.not_supported(&job_path.field("manualSelector"), true, &["nil", "false"]);
        }
        errors.into_vec()
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let name = object.dig(&["metadata", "name"]).and_then(Value::as_str).unwrap_or_default();
        if name.len() > NAME_LENGTH_MAX {
            let detail = "must be no more than 52 characters";
            errors.invalid(&Path::ROOT.field("metadata.name"), name, detail);
        }
        no_zone_in_schedule(&mut errors, object);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        // Schedules that had a zone before this was refused may keep it.
        if !spec(old).text("schedule").contains("TZ") {
            no_zone_in_schedule(&mut errors, new);
        }
        errors.into_vec()
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let job = |object: &Value| spec(object).at("jobTemplate").cloned().unwrap_or_default();
        let path = Path::ROOT.field("spec.jobTemplate.spec.template.spec");
        if old.is_some_and(|old| job(old) == job(new)) {
            return Vec::new();
        }
        let pod = spec(new).dig(&["jobTemplate", "spec", "template", "spec"]).unwrap_or(&Value::Null);
        pod::warnings_of_spec(&path, pod)
    }
}

/// A template is defaulted like a job, except that a manual selector stays unsaid.
fn set_template_defaults(job: &mut Value) {
    job::set_spec_defaults(job);
}

fn no_zone_in_schedule(errors: &mut Errors, object: &Value) {
    let schedule = spec(object).text("schedule");
    if schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.invalid(&Path::ROOT.field("spec.schedule"), schedule, detail);
    }
}

fn time_zone(errors: &mut Errors, path: &Path, zone: &str) {
    if zone.is_empty() {
        return errors.invalid(path, zone, "timeZone must be nil or non-empty string");
    }
    let is_part = |part: &str| {
        !["", ".", ".."].contains(&part)
            && !part.starts_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
    };
    if !zone.split('/').all(is_part) {
        return errors.invalid(path, zone, format!("unknown time zone {zone}"));
    }
    if zone.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        return errors.invalid(path, zone, detail);
    }
    if crate::cron::zone(zone).is_none() {
        errors.invalid(path, zone, format!("unknown time zone {zone}"));
    }
}
