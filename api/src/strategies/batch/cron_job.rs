//! Cron jobs.

use serde_json::Value;

use super::{
    super::{
        common::{spec, spec_mut},
        pod,
    },
    job,
};
use crate::{
    Strategy, WriteContext,
    at::At,
    cron::Schedule,
    field::{Look, Path, PathExt, Touch},
};

/// Jobs are named after their cron job and a number of eleven digits.
const NAME_LENGTH_MAX: usize = 52;

/// What is special about cron jobs.
pub struct CronJob;

impl Strategy for CronJob {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = spec_mut(object) else { return };
        spec.default_text("concurrencyPolicy", "Allow");
        spec.default_to("suspend", false);
        spec.default_to("successfulJobsHistoryLimit", 3);
        spec.default_to("failedJobsHistoryLimit", 1);
        spec.inside("jobTemplate.spec", job::set_spec_defaults);
    }

    fn check(&self, object: &At) {
        let spec = object.field("spec");
        let schedule = spec.field("schedule");
        if schedule.is_empty() {
            schedule.required("");
        } else if let Err(why) = schedule.str().parse::<Schedule>() {
            schedule.invalid(why.to_string());
        }
        spec.non_negative(&[
            "startingDeadlineSeconds",
            "successfulJobsHistoryLimit",
            "failedJobsHistoryLimit",
        ]);
        spec.optional("timeZone", check_zone);
        spec.field("concurrencyPolicy").one_of(&["Allow", "Forbid", "Replace"]);
        let job = spec.field("jobTemplate.spec");
        job::check_spec(&job);
        job.optional("selector", |selector| selector.invalid("`selector` will be auto-generated"));
        if job.flag("manualSelector") {
            job.field("manualSelector").not_supported_value(true, &["nil", "false"]);
        }
    }

    fn check_create(&self, object: &At) {
        let name = object.field("metadata.name");
        if name.str().len() > NAME_LENGTH_MAX {
            name.invalid("must be no more than 52 characters");
        }
        no_zone_in_schedule(object);
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        // Schedules that had a zone before this was refused may keep it.
        if !spec(old).text("schedule").contains("TZ") {
            no_zone_in_schedule(new);
        }
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

fn no_zone_in_schedule(object: &At) {
    let schedule = object.field("spec.schedule");
    if schedule.str().contains("TZ") {
        schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    }
}

fn check_zone(zone: &At) {
    let name = zone.str();
    let is_part = |part: &str| {
        !["", ".", ".."].contains(&part)
            && !part.starts_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
    };
    if name.is_empty() {
        zone.invalid("timeZone must be nil or non-empty string");
    } else if name.eq_ignore_ascii_case("local") {
        zone.invalid("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    } else if !name.split('/').all(is_part) || crate::cron::zone(name).is_none() {
        zone.invalid(format!("unknown time zone {name}"));
    }
}
