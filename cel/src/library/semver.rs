//! `semver('1.2.3-rc.1')`

use std::cmp::Ordering;

use crate::functions::cost::{self, ONE};
use crate::functions::{As, Row, row, take};
use crate::meter::{Fault, Outcome};
use crate::value::{Opaque, Value};

/// A version; what is built does not tell versions apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    numbers: [u64; 3],
    pre: Pre,
}

/// What comes before a release; the release itself comes after all of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pre {
    Release(Vec<Part>),
    None,
}

/// Numbers come before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

impl Opaque for Version {
    fn type_name(&self) -> &'static str {
        "kubernetes.Semver"
    }

    fn is(&self, other: &dyn Opaque) -> bool {
        (other as &dyn std::any::Any).downcast_ref() == Some(self)
    }
}

const V: &str = "kubernetes.Semver";

pub(crate) const ROWS: &[Row] = &[
    row("semver", "(string) -> #; (string, bool) -> #", &cost::READS, |_, args| {
        version_of(&args)?.map(Value::opaque).map_err(Fault::failed)
    })
    .each(V),
    row("isSemver", "(string) -> bool; (string, bool) -> bool", &cost::READS, |_, args| {
        Ok(Value::Bool(version_of(&args)?.is_ok()))
    }),
    row("major", "#.() -> int", &ONE, |_, args| number(args, |[major, _, _]| major)).each(V),
    row("minor", "#.() -> int", &ONE, |_, args| number(args, |[_, minor, _]| minor)).each(V),
    row("patch", "#.() -> int", &ONE, |_, args| number(args, |[_, _, patch]| patch)).each(V),
    row("isGreaterThan", "#.(#) -> bool", &ONE, |_, args| compared(args, |order| Value::Bool(order.is_gt())))
        .each(V),
    row("isLessThan", "#.(#) -> bool", &ONE, |_, args| compared(args, |order| Value::Bool(order.is_lt())))
        .each(V),
    row("compareTo", "#.(#) -> int", &ONE, |_, args| compared(args, |order| Value::Int(order as i64)))
        .each(V),
];

fn version_of(args: &[Value<'_>]) -> Result<Result<Version, String>, Fault> {
    let (text, normalize) = match args {
        [text] => (text.string()?, false),
        [text, Value::Bool(normalize)] => (text.string()?, *normalize),
        _ => return Err(Fault::NoOverload),
    };
    Ok(if normalize { parsed(&normalized(text)) } else { parsed(text) })
}

fn number<'v>(args: Vec<Value<'v>>, of: fn([u64; 3]) -> u64) -> Outcome<'v> {
    let [version] = take(args)?;
    let number = of(version.downcast::<Version>()?.numbers);
    Ok(Value::Int(i64::try_from(number).unwrap_or(i64::MAX)))
}

fn compared<'v>(args: Vec<Value<'v>>, result: fn(Ordering) -> Value<'static>) -> Outcome<'v> {
    let [one, other] = take(args)?;
    Ok(result(one.downcast::<Version>()?.cmp(other.downcast()?)))
}

/// Without a `v`, with all three numbers, none of which begins with a zero.
fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text.splitn(3, '.').map(trimmed).collect();
    if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
        // Said to be too short rather than guessed at.
        return text.to_string();
    }
    parts.resize(3, "0".to_string());
    parts.join(".")
}

fn trimmed(part: &str) -> String {
    if part.len() <= 1 {
        return part.to_string();
    }
    let short = part.trim_start_matches('0');
    if short.starts_with(|first: char| first.is_ascii_digit()) {
        short.to_string()
    } else {
        format!("0{short}")
    }
}

fn parsed(text: &str) -> Result<Version, String> {
    if text.is_empty() {
        return Err("Version string empty".to_string());
    }
    let (rest, build) = match text.split_once('+') {
        Some((rest, build)) => (rest, Some(build)),
        None => (text, None),
    };
    let (core, pre) = match rest.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (rest, None),
    };
    let mut numbers = [0; 3];
    let parts: Vec<&str> = core.split('.').collect();
    if parts.len() != 3 {
        return Err("No Major.Minor.Patch elements found".to_string());
    }
    for (number, part) in numbers.iter_mut().zip(parts) {
        *number = digits(part)?;
    }
    let words = |text: &str| -> Result<Vec<Part>, String> { text.split('.').map(word).collect() };
    if let Some(build) = build {
        build.split('.').try_for_each(|part| checked(part).map(drop))?;
    }
    let pre = pre.map(words).transpose()?.map_or(Pre::None, Pre::Release);
    Ok(Version { numbers, pre })
}

fn digits(part: &str) -> Result<u64, String> {
    if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in number {part:?}"));
    }
    if part.len() > 1 && part.starts_with('0') {
        return Err(format!("Number must not contain leading zeroes {part:?}"));
    }
    part.parse().map_err(|_| format!("Number is too large {part:?}"))
}

fn checked(part: &str) -> Result<&str, String> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if part.is_empty() || !part.bytes().all(is_letter) {
        return Err(format!("Invalid character(s) found in prerelease {part:?}"));
    }
    Ok(part)
}

fn word(part: &str) -> Result<Part, String> {
    let part = checked(part)?;
    if part.bytes().all(|byte| byte.is_ascii_digit()) {
        digits(part).map(Part::Number)
    } else {
        Ok(Part::Word(part.into()))
    }
}
