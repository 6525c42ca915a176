//! Times and spans of time.

use jiff::fmt::temporal::Pieces;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};

use super::cost::ONE;
use super::operators::overflow;
use super::{As, Row, row};
use crate::meter::{Fault, Outcome};
use crate::value::Value;

/// The first second of the year 1, and the last of the year 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const NANOS_PER_SECOND: i128 = 1_000_000_000;

const OF_TIME: &str = "timestamp.() -> int; timestamp.(string) -> int";
const OF_BOTH: &str = "timestamp.() -> int; timestamp.(string) -> int; duration.() -> int";

pub(super) const ROWS: &[Row] = &[
    row("getFullYear", OF_TIME, &ONE, |_, args| clock(args, |time| time.year().into())),
    row("getMonth", OF_TIME, &ONE, |_, args| clock(args, |time| i64::from(time.month()) - 1)),
    row("getDayOfYear", OF_TIME, &ONE, |_, args| clock(args, |time| i64::from(time.day_of_year()) - 1)),
    row("getDayOfMonth", OF_TIME, &ONE, |_, args| clock(args, |time| i64::from(time.day()) - 1)),
    row("getDate", OF_TIME, &ONE, |_, args| clock(args, |time| time.day().into())),
    row("getDayOfWeek", OF_TIME, &ONE, |_, args| {
        clock(args, |time| time.weekday().to_sunday_zero_offset().into())
    }),
    row("getHours", OF_BOTH, &ONE, |_, args| {
        clock_or_span(args, |time| time.hour().into(), |span| span.as_hours())
    }),
    row("getMinutes", OF_BOTH, &ONE, |_, args| {
        clock_or_span(args, |time| time.minute().into(), |span| span.as_mins())
    }),
    row("getSeconds", OF_BOTH, &ONE, |_, args| {
        clock_or_span(args, |time| time.second().into(), |span| span.as_secs())
    }),
    row("getMilliseconds", OF_BOTH, &ONE, |_, args| {
        let whole = |span: &SignedDuration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        clock_or_span(args, |time| time.millisecond().into(), whole)
    }),
];

fn clock_or_span<'v>(
    args: Vec<Value<'v>>,
    of_time: fn(&Zoned) -> i64,
    of_span: fn(&SignedDuration) -> i64,
) -> Outcome<'v> {
    match args.as_slice() {
        [Value::Duration(span)] => Ok(Value::Int(of_span(span))),
        _ => clock(args, of_time),
    }
}

/// What the clock and the calendar say, in UTC or in the time zone that is asked for.
fn clock(args: Vec<Value<'_>>, of: fn(&Zoned) -> i64) -> Outcome<'_> {
    let Some(Value::Timestamp(time)) = args.first() else { return Err(Fault::NoOverload) };
    let zone = match args.get(1) {
        None => TimeZone::UTC,
        Some(name) => zone(name.string()?)?,
    };
    Ok(Value::Int(of(&time.with_time_zone(zone))))
}

/// A time zone by name, or by how far it is ahead: `-08:00`.
fn zone(name: &str) -> Result<TimeZone, Fault> {
    let unknown = || Fault::failed(format!("unknown time zone {name}"));
    let Some((hours, minutes)) = name.split_once(':') else {
        return if name.is_empty() { Ok(TimeZone::UTC) } else { api::cron::zone(name).ok_or_else(unknown) };
    };
    let (hours_ahead, minutes) = (hours.parse::<i32>(), minutes.parse::<i32>());
    let (Ok(hours_ahead), Ok(minutes)) = (hours_ahead, minutes) else { return Err(unknown()) };
    let minutes = if hours.starts_with('-') { -minutes } else { minutes };
    let seconds =
        hours_ahead.checked_mul(3600).and_then(|seconds| seconds.checked_add(minutes.checked_mul(60)?));
    let offset = seconds.and_then(|seconds| jiff::tz::Offset::from_seconds(seconds).ok());
    offset.map(TimeZone::fixed).ok_or_else(unknown)
}

/// RFC 3339, within the years that there are.
pub(crate) fn parse_timestamp(text: &str) -> Option<Zoned> {
    let is_separated = text.as_bytes().get(10).is_some_and(|letter| letter.eq_ignore_ascii_case(&b'T'));
    let time =
        text.parse().ok().filter(|time: &Timestamp| is_separated && SECONDS.contains(&time.as_second()))?;
    let ahead = Pieces::parse(text).ok()?.to_numeric_offset()?;
    Some(time.to_zoned(TimeZone::fixed(ahead)))
}

/// As it is written: with how far its clock is ahead, which is nothing but a way to write it.
pub(crate) fn shown(time: &Zoned) -> String {
    match time.offset() {
        Offset::UTC => time.timestamp().to_string(),
        ahead => time.timestamp().display_with_offset(ahead).to_string(),
    }
}

pub(super) fn timestamp(seconds: i64) -> Outcome<'static> {
    let time = Timestamp::from_second(seconds).ok().filter(|_| SECONDS.contains(&seconds));
    time.map(|time| Value::Timestamp(time.to_zoned(TimeZone::UTC))).ok_or_else(|| overflow("timestamp"))
}

/// A time so much later.
pub(super) fn moved<'v>(time: Zoned, by: Option<SignedDuration>) -> Outcome<'v> {
    let moved = by.and_then(|by| time.checked_add(by).ok());
    let moved = moved.filter(|time| SECONDS.contains(&time.timestamp().as_second()));
    moved.map(Value::Timestamp).ok_or_else(|| overflow("timestamp"))
}

/// A span, if it counts few enough nanoseconds.
pub(super) fn span_of<'v>(span: Option<SignedDuration>) -> Outcome<'v> {
    let span = span.filter(|span| i64::try_from(span.as_nanos()).is_ok());
    span.map(Value::Duration).ok_or_else(|| overflow("duration"))
}

/// Seconds, as durations are written.
pub(super) fn duration_text(span: SignedDuration) -> String {
    format!("{}s", span.as_secs_f64())
}

/// `1h30m`, `-1.5s`, `0`
pub(super) fn duration(text: &str) -> Option<SignedDuration> {
    span(text, false)
}

/// The same, with days and weeks, as schemas have it.
pub(crate) fn long_duration(text: &str) -> Option<SignedDuration> {
    span(text, true)
}

fn span(text: &str, is_long: bool) -> Option<SignedDuration> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned == "0" {
        return Some(SignedDuration::ZERO);
    }
    let (mut nanos, mut rest) = (0_i128, unsigned);
    while !rest.is_empty() {
        let digits =
            rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(digits)?;
        let end = after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(end)?;
        let seconds_of = |seconds: i128| seconds * NANOS_PER_SECOND;
        let unit = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => seconds_of(1),
            "m" => seconds_of(60),
            "h" => seconds_of(3_600),
            "d" if is_long => seconds_of(86_400),
            "w" if is_long => seconds_of(604_800),
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || whole.len() > 19 {
            return None;
        }
        let fraction = fraction.get(..fraction.len().min(18))?;
        let parse = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<i128>().ok() };
        nanos += parse(whole)? * unit + parse(fraction)? * unit / 10_i128.pow(fraction.len() as u32);
        rest = next;
    }
    let nanos = if text.starts_with('-') { -nanos } else { nanos };
    (!unsigned.is_empty()).then(|| i64::try_from(nanos).ok().map(SignedDuration::from_nanos))?
}
