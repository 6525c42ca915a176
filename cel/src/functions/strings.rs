//! Text. Places in it are counted in characters.

use super::cost::{self, CHANGES, ONE};
use super::{As, Row, format, row, take};
use crate::meter::{Fault, Meter, Outcome};
use crate::value::Value;

pub(super) const ROWS: &[Row] = &[
    row("startsWith", "string.(string) -> bool", &cost::AFFIX, |_, args| {
        let [text, prefix] = take(args)?;
        Ok(Value::Bool(text.string()?.starts_with(&**prefix.string()?)))
    }),
    row("endsWith", "string.(string) -> bool", &cost::AFFIX, |_, args| {
        let [text, suffix] = take(args)?;
        Ok(Value::Bool(text.string()?.ends_with(&**suffix.string()?)))
    }),
    row("contains", "string.(string) -> bool", &cost::CONTAINS, |_, args| {
        let [text, part] = take(args)?;
        Ok(Value::Bool(text.string()?.contains(&**part.string()?)))
    }),
    row("charAt", "string.(int) -> string", &ONE, |_, args| {
        let [text, at] = take(args)?;
        let (text, at) = (text.string()?, at.int()?);
        let index = usize::try_from(at).map_err(|_| out_of_range(at))?;
        match text.chars().nth(index) {
            Some(letter) => Ok(Value::text(letter.to_string())),
            None if index == text.chars().count() => Ok(Value::text("")),
            None => Err(out_of_range(at)),
        }
    }),
    row("indexOf", "string.(string) -> int; string.(string, int) -> int", &cost::TRAVERSES, |meter, args| {
        found(meter, &args, true)
    }),
    row(
        "lastIndexOf",
        "string.(string) -> int; string.(string, int) -> int",
        &cost::TRAVERSES,
        |meter, args| found(meter, &args, false),
    ),
    row("lowerAscii", "string.() -> string", &CHANGES, |_, args| {
        take(args).and_then(|[text]| Ok(Value::text(text.string()?.to_ascii_lowercase())))
    }),
    row("upperAscii", "string.() -> string", &CHANGES, |_, args| {
        take(args).and_then(|[text]| Ok(Value::text(text.string()?.to_ascii_uppercase())))
    }),
    row("trim", "string.() -> string", &CHANGES, |_, args| {
        take(args).and_then(|[text]| Ok(Value::text(text.string()?.trim())))
    }),
    row("substring", "string.(int) -> string; string.(int, int) -> string", &CHANGES, substring),
    row(
        "replace",
        "string.(string, string) -> string; string.(string, string, int) -> string",
        &cost::REPLACES,
        replaced,
    ),
    row(
        "split",
        "string.(string) -> list(string); string.(string, int) -> list(string)",
        &cost::SPLITS,
        split,
    ),
    row("join", "list(string).() -> string; list(string).(string) -> string", &cost::JOINS, |meter, args| {
        let list = args.first().ok_or(Fault::NoOverload)?.list()?;
        let separator = args.get(1).map(As::string).transpose()?.map_or("", |text| &**text);
        let mut out = String::new();
        for (at, item) in list.iter().enumerate() {
            let item = item?;
            let Value::String(text) = &item else {
                return Err(Fault::failed(format!("join: invalid input: {}", format::plain(&item))));
            };
            out.push_str(if at > 0 { separator } else { "" });
            out.push_str(text);
        }
        format::bounded(meter, out)
    }),
    row("format", "string.(list(dyn)) -> string", &cost::READS, format::format),
    row("strings.quote", "(string) -> string", &cost::QUOTES, |meter, args| {
        let [text] = take(args)?;
        format::bounded(meter, format::quoted(text.string()?))
    }),
];

fn out_of_range(at: i64) -> Fault {
    Fault::failed(format!("index out of range: {at}"))
}

/// The character at which a part begins, first or last, or -1; from a place on, or from a place back.
fn found<'v>(_: &Meter<'_>, args: &[Value<'v>], is_first: bool) -> Outcome<'v> {
    let [text, part, rest @ ..] = args else { return Err(Fault::NoOverload) };
    let (text, part) = (text.string()?, part.string()?);
    let count = || i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let from = rest.first().map(As::int).transpose()?;
    if part.is_empty() {
        return Ok(Value::Int(from.unwrap_or_else(|| if is_first { 0 } else { count() })));
    }
    if from.is_some_and(|from| from < 0) {
        return Err(out_of_range(from.unwrap_or_default()));
    }
    // Where the character of that number begins; none where there are not so many.
    let place = |at: i64| text.char_indices().nth(usize::try_from(at).ok()?).map(|(byte, _)| byte);
    let byte = match (from, is_first) {
        (None, true) => text.find(&**part),
        (None, false) => text.rfind(&**part),
        (Some(from), true) => place(from).and_then(|start| Some(start + text.get(start..)?.find(&**part)?)),
        (Some(from), false) => place(from).and_then(|start| {
            let end = (start + part.len()).min(text.len());
            let end = (0..=end).rev().find(|end| text.is_char_boundary(*end))?;
            text.get(..end)?.rfind(&**part)
        }),
    };
    let at = byte.and_then(|byte| text.get(..byte)).map(|before| before.chars().count());
    Ok(Value::Int(at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)))
}

fn substring<'v>(_: &Meter<'_>, args: Vec<Value<'v>>) -> Outcome<'v> {
    let [text, start, rest @ ..] = args.as_slice() else { return Err(Fault::NoOverload) };
    let (text, start) = (text.string()?, start.int()?);
    let end = rest.first().map(As::int).transpose()?;
    if let Some(end) = end.filter(|end| start > *end) {
        return Err(Fault::failed(format!("invalid substring range. start: {start}, end: {end}")));
    }
    let places = || text.char_indices().map(|(byte, _)| byte).chain([text.len()]);
    let place = |at: i64| {
        let index = usize::try_from(at).ok();
        index.and_then(|index| places().nth(index)).ok_or_else(|| out_of_range(at))
    };
    let start = place(start)?;
    let end = end.map(place).transpose()?.unwrap_or(text.len());
    Ok(Value::text(text.get(start..end).unwrap_or_default()))
}

fn replaced<'v>(meter: &Meter<'_>, args: Vec<Value<'v>>) -> Outcome<'v> {
    let [text, old, new, rest @ ..] = args.as_slice() else { return Err(Fault::NoOverload) };
    let (text, old, new) = (text.string()?, old.string()?, new.string()?);
    let limit = rest.first().map(As::int).transpose()?.and_then(|limit| usize::try_from(limit).ok());
    // The result is measured before it is made: it can be as long as one text times the other.
    let most = if old.is_empty() { text.len() + 1 } else { text.matches(&**old).count() };
    let growth = most.min(limit.unwrap_or(usize::MAX)).saturating_mul(new.len());
    meter.work(growth.saturating_add(text.len()))?;
    if growth > 16 << 20 {
        return Err(Fault::Exceeded);
    }
    format::bounded(meter, text.replacen(&**old, new, limit.unwrap_or(usize::MAX)))
}

fn split<'v>(_: &Meter<'_>, args: Vec<Value<'v>>) -> Outcome<'v> {
    let [text, separator, rest @ ..] = args.as_slice() else { return Err(Fault::NoOverload) };
    let (text, separator) = (text.string()?, separator.string()?);
    let limit = match rest.first().map(As::int).transpose()? {
        Some(0) => return Ok(Value::list(Vec::new())),
        limit => limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX),
    };
    let part = |part: &str| Value::text(part);
    if !separator.is_empty() {
        return Ok(Value::list(text.splitn(limit, &**separator).map(part).collect()));
    }
    // Between all characters, the last part being what is left.
    let mut parts = Vec::new();
    let mut rest = &**text;
    while let Some(letter) = rest.chars().next().filter(|_| parts.len() + 1 < limit) {
        let (first, after) = rest.split_at(letter.len_utf8());
        parts.push(part(first));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(part(rest));
    }
    Ok(Value::list(parts))
}
