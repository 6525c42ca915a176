//! Values as text, and `format`.

use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

use super::{As, take, time};
use crate::meter::{Fault, Meter, Outcome};
use crate::types::Type;
use crate::value::{Key, List, Value};

/// Text longer than this is not made: going through it would cost more than an expression may.
const LENGTH_MAX: usize = 16 << 20;
const PRECISION: usize = 6;
/// Digits above the line.
const RAISED: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];

/// A scalar as `string()` writes it.
pub(crate) fn plain(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) => double(*number),
        Value::String(text) | Value::Type(text) => text.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Duration(span) => time::duration_text(*span),
        Value::Timestamp(at) => time::shown(at),
        other => other.type_name().into(),
    }
}

/// As few digits as tell it from others, with an exponent where there would be many.
fn double(number: f64) -> String {
    if number.is_finite() && number != 0.0 && !(1e-4..1e21).contains(&number.abs()) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    match number {
        _ if number.is_nan() => "NaN".into(),
        _ if number.is_infinite() => if number > 0.0 { "+Inf" } else { "-Inf" }.into(),
        _ => number.to_string(),
    }
}

/// Text, unless it is too long.
pub(super) fn bounded<'v>(meter: &Meter<'_>, text: String) -> Outcome<'v> {
    meter.work(text.len())?;
    if text.len() > LENGTH_MAX { Err(Fault::Exceeded) } else { Ok(Value::text(text)) }
}

/// `'%s is %d'.format([name, number])`
pub(super) fn format<'v>(meter: &Meter<'_>, args: Vec<Value<'v>>) -> Outcome<'v> {
    let [pattern, list] = take(args)?;
    let (pattern, list) = (pattern.string()?, list.list()?);
    let mut out = String::new();
    let mut used = 0;
    let mut letters = pattern.chars().peekable();
    while let Some((clause, precision)) = next_clause(&mut letters, &mut out)? {
        let value = list.get(used).ok_or_else(|| out_of_range(used))??;
        used += 1;
        clause_of(meter, &mut out, clause, precision, &value)?;
        if out.len() > LENGTH_MAX {
            return Err(Fault::Exceeded);
        }
    }
    bounded(meter, out)
}

/// What is wrong with a pattern for values of these types, and with which of them.
pub(crate) fn misfit(pattern: &str, types: &[&Type]) -> Option<(Option<usize>, String)> {
    let meter = Meter::new(u64::MAX, crate::no_patterns());
    let mut out = String::new();
    let mut letters = pattern.chars().peekable();
    let mut used = 0;
    loop {
        match next_clause(&mut letters, &mut out) {
            Err(fault) => return Some((None, fault.to_string())),
            Ok(None) => break,
            Ok(Some((clause, precision))) => {
                let Some(given) = types.get(used) else {
                    return Some((None, out_of_range(used).to_string()));
                };
                let example = example(given);
                let written = example.map(|example| clause_of(&meter, &mut out, clause, precision, &example));
                if let Some(Err(fault)) = written {
                    return Some((Some(used), fault.to_string()));
                }
                used += 1;
            }
        }
    }
    let given = types.len();
    let why = format!("too many arguments supplied to string.format (expected {used}, got {given})");
    (given > used).then_some((None, why))
}

/// A value that goes wherever one of its type does; `None` where the type does not say what it is.
fn example(of: &Type) -> Option<Value<'static>> {
    Some(match of {
        Type::Null => Value::Null,
        Type::Bool => Value::Bool(true),
        Type::Int => Value::Int(0),
        Type::Uint => Value::Uint(0),
        Type::Double => Value::Double(0.0),
        Type::String => Value::text("NaN"),
        Type::Bytes => Value::Bytes([].into()),
        Type::Duration => Value::Duration(jiff::SignedDuration::ZERO),
        Type::Timestamp => return time::timestamp(0).ok(),
        Type::List(_) => Value::list(Vec::new()),
        Type::Map(_) => Value::fields([]),
        Type::Optional(_) => Value::none(),
        _ => return None,
    })
}

fn out_of_range(index: usize) -> Fault {
    Fault::failed(format!("index {index} out of range"))
}

/// Copies text up to the next clause: its letter and precision.
fn next_clause(letters: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<Option<(char, usize)>, Fault> {
    while let Some(letter) = letters.next() {
        if letter != '%' || letters.next_if_eq(&'%').is_some() {
            out.push(letter);
            continue;
        }
        let mut precision = PRECISION;
        if letters.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let read = digits.parse().ok().filter(|digits| *digits <= 1000);
            precision =
                read.ok_or_else(|| Fault::failed("error while parsing precision: invalid precision"))?;
        }
        let clause = letters.next().ok_or_else(|| Fault::failed("unexpected end of string"))?;
        return Ok(Some((clause, precision)));
    }
    Ok(None)
}

fn clause_of(
    meter: &Meter<'_>,
    out: &mut String,
    clause: char,
    precision: usize,
    value: &Value<'_>,
) -> Result<(), Fault> {
    let wrong = |takes: &str| {
        let name = value.type_name();
        Fault::failed(format!("error during formatting: {takes}, was given {name}"))
    };
    let number = match value {
        Value::Double(number) => Some(*number),
        Value::String(text) if matches!(&**text, "NaN" | "Infinity" | "-Infinity") => {
            Some(if text.starts_with('N') {
                f64::NAN
            } else if text.starts_with('I') {
                f64::INFINITY
            } else {
                f64::NEG_INFINITY
            })
        }
        _ => None,
    };
    let written = match (clause, value) {
        ('s', _) => return nested(meter, out, value, false),
        ('d', Value::Int(number)) => write!(out, "{number}"),
        ('d', Value::Uint(number)) => write!(out, "{number}"),
        ('d', _) => return Err(wrong("decimal clause can only be used on integers")),
        ('f' | 'e', _) => {
            let Some(number) = number else {
                let name = if clause == 'f' { "fixed-point" } else { "scientific" };
                return Err(wrong(&format!("{name} clause can only be used on doubles")));
            };
            out.push_str(&if clause == 'f' {
                fixed(number, precision)
            } else {
                scientific(number, precision)
            });
            Ok(())
        }
        ('b', Value::Bool(flag)) => write!(out, "{}", u8::from(*flag)),
        ('b' | 'o' | 'x' | 'X', Value::Int(number)) => {
            let sign = if *number < 0 { "-" } else { "" };
            write!(out, "{sign}{}", based(clause, number.unsigned_abs()))
        }
        ('b' | 'o' | 'x' | 'X', Value::Uint(number)) => write!(out, "{}", based(clause, *number)),
        ('x' | 'X', Value::String(text)) => hex(out, clause, text.as_bytes()),
        ('x' | 'X', Value::Bytes(bytes)) => hex(out, clause, bytes),
        ('b', _) => return Err(wrong("only integers and bools can be formatted as binary")),
        ('o', _) => return Err(wrong("octal clause can only be used on integers")),
        ('x' | 'X', _) => {
            return Err(wrong("only integers, byte buffers, and strings can be formatted as hex"));
        }
        _ => {
            let why =
                format!("could not parse formatting clause: unrecognized formatting clause \"{clause}\"");
            return Err(Fault::failed(why));
        }
    };
    written.map_err(|_| Fault::Exceeded)
}

fn hex(out: &mut String, clause: char, bytes: &[u8]) -> std::fmt::Result {
    bytes.iter().try_for_each(|byte| {
        if clause == 'x' { write!(out, "{byte:02x}") } else { write!(out, "{byte:02X}") }
    })
}

fn based(clause: char, number: u64) -> String {
    match clause {
        'b' => format!("{number:b}"),
        'o' => format!("{number:o}"),
        'x' => format!("{number:x}"),
        _ => format!("{number:X}"),
    }
}

/// As English writes numbers: with commas between thousands.
fn fixed(number: f64, precision: usize) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "NaN".into()
        } else if number > 0.0 {
            "∞".into()
        } else {
            "-∞".into()
        };
    }
    let text = format!("{:.precision$}", number.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::from(if number.is_sign_negative() { "-" } else { "" });
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

fn scientific(number: f64, precision: usize) -> String {
    if !number.is_finite() {
        return fixed(number, precision);
    }
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(("", exponent), |rest| ("⁻", rest));
    let raised = format!("{exponent:0>2}");
    let raised = raised.bytes().filter_map(|digit| RAISED.get(usize::from(digit.wrapping_sub(b'0'))));
    format!("{digits}×10{sign}{}", raised.collect::<String>())
}

/// A value inside of text, lists and maps with all that they hold.
fn nested(meter: &Meter<'_>, out: &mut String, value: &Value<'_>, is_inside: bool) -> Result<(), Fault> {
    meter.work(16)?;
    match value {
        Value::List(list) => return each(meter, out, list),
        Value::Map(map) => {
            let mut entries = Vec::new();
            for key in map.keys() {
                let mut entry = String::new();
                nested(meter, &mut entry, &key, true)?;
                if let Some(value) = Key::of(&key).and_then(|key| map.get(&key)) {
                    entry.push(':');
                    nested(meter, &mut entry, &value?, true)?;
                }
                entries.push(entry);
            }
            entries.sort();
            out.push_str(&format!("{{{}}}", entries.join(", ")));
        }
        Value::Double(number) if is_inside => out.push_str(&format!("{number:.PRECISION$}")),
        Value::String(text) if is_inside => out.push_str(&quoted(text)),
        Value::Bytes(_) if is_inside => out.push_str(&format!("b{}", quoted(&plain(value)))),
        Value::Timestamp(_) if is_inside => out.push_str(&format!("timestamp({:?})", plain(value))),
        Value::Duration(_) if is_inside => out.push_str(&format!("duration({:?})", plain(value))),
        Value::Opaque(_) | Value::Optional(_) | Value::Raw(_) => {
            let name = value.type_name();
            let why = "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, \
                       durations, and timestamps";
            return Err(Fault::failed(format!("error during formatting: {why}, was given {name}")));
        }
        _ => {
            let text = plain(value);
            meter.work(text.len())?;
            out.push_str(&text);
        }
    }
    if out.len() > LENGTH_MAX { Err(Fault::Exceeded) } else { Ok(()) }
}

fn each(meter: &Meter<'_>, out: &mut String, list: &List<'_>) -> Result<(), Fault> {
    out.push('[');
    for (at, item) in list.iter().enumerate() {
        out.push_str(if at > 0 { ", " } else { "" });
        nested(meter, out, &item?, true)?;
    }
    out.push(']');
    Ok(())
}

/// Text in quotes, with everything escaped that has an escape.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            _ => out.push(letter),
        }
    }
    out.push('"');
    out
}
