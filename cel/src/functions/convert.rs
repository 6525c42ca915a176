//! One type to another.

use super::cost::{self, ONE};
use super::operators::overflow;
use super::{Row, format, row, take, time};
use crate::meter::{Fault, Outcome};
use crate::value::{Text, Value};

pub(super) const ROWS: &[Row] = &[
    row("type", "(A) -> type(A)", &ONE, |_, args| {
        let [value] = take(args)?;
        Ok(Value::Type(Text::Borrowed(value.type_name())))
    }),
    row("dyn", "(A) -> dyn", &ONE, |_, args| take(args).map(|[value]| value)),
    row("bool", "(bool) -> bool; (string) -> bool", &ONE, |_, args| match take(args)? {
        [value @ Value::Bool(_)] => Ok(value),
        [Value::String(text)] => match &*text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => Err(unread("bool", &text)),
        },
        _ => Err(Fault::NoOverload),
    }),
    row("bytes", "(bytes) -> bytes", &ONE, |_, args| take(args).map(|[value]| value)),
    row("bytes", "(string) -> bytes", &cost::TO_BYTES, |_, args| match take(args)? {
        [Value::String(text)] => Ok(Value::Bytes(text.as_bytes().into())),
        _ => Err(Fault::NoOverload),
    }),
    row("double", "(#) -> double", &ONE, |_, args| match take(args)? {
        [value @ Value::Double(_)] => Ok(value),
        [Value::Int(number)] => Ok(Value::Double(number as f64)),
        [Value::Uint(number)] => Ok(Value::Double(number as f64)),
        [Value::String(text)] => text.parse().map(Value::Double).map_err(|_| unread("double", &text)),
        _ => Err(Fault::NoOverload),
    })
    .each("double int uint string"),
    row("int", "(#) -> int", &ONE, |_, args| match take(args)? {
        [value @ Value::Int(_)] => Ok(value),
        [Value::Uint(number)] => i64::try_from(number).map(Value::Int).map_err(|_| overflow("integer")),
        // Doubles at the very ends are not told from those beyond them.
        [Value::Double(number)] if number > i64::MIN as f64 && number < i64::MAX as f64 => {
            Ok(Value::Int(number as i64))
        }
        [Value::Double(_)] => Err(overflow("integer")),
        [Value::Duration(span)] => {
            i64::try_from(span.as_nanos()).map(Value::Int).map_err(|_| overflow("integer"))
        }
        [Value::Timestamp(time)] => Ok(Value::Int(time.timestamp().as_second())),
        [Value::String(text)] => text.parse().map(Value::Int).map_err(|_| unread("int", &text)),
        _ => Err(Fault::NoOverload),
    })
    .each("int uint double duration timestamp string"),
    row("uint", "(#) -> uint", &ONE, |_, args| match take(args)? {
        [value @ Value::Uint(_)] => Ok(value),
        [Value::Int(number)] => {
            u64::try_from(number).map(Value::Uint).map_err(|_| overflow("unsigned integer"))
        }
        [Value::Double(number)] if number >= 0.0 && number < u64::MAX as f64 => {
            Ok(Value::Uint(number as u64))
        }
        [Value::Double(_)] => Err(overflow("unsigned integer")),
        [Value::String(text)] => text.parse().map(Value::Uint).map_err(|_| unread("uint", &text)),
        _ => Err(Fault::NoOverload),
    })
    .each("uint int double string"),
    row("string", "(#) -> string", &ONE, string).each("string bool double duration int timestamp uint"),
    row("string", "(bytes) -> string", &cost::FROM_BYTES, string),
    row("string", "(net.IP) -> string; (net.CIDR) -> string", &ONE, |_, args| {
        let [value] = take(args)?;
        crate::library::net::text(&value)
    }),
    row("duration", "(duration) -> duration; (string) -> duration; (int) -> duration", &ONE, |_, args| {
        match take(args)? {
            [value @ Value::Duration(_)] => Ok(value),
            [Value::Int(nanos)] => Ok(Value::Duration(jiff::SignedDuration::from_nanos(nanos))),
            [Value::String(text)] => {
                let span = time::duration(&text);
                span.map(Value::Duration)
                    .ok_or_else(|| Fault::failed(format!("time: invalid duration {:?}", &*text)))
            }
            _ => Err(Fault::NoOverload),
        }
    }),
    row(
        "timestamp",
        "(timestamp) -> timestamp; (string) -> timestamp; (int) -> timestamp",
        &ONE,
        |_, args| match take(args)? {
            [value @ Value::Timestamp(_)] => Ok(value),
            [Value::Int(seconds)] => time::timestamp(seconds),
            [Value::String(text)] => {
                let parsed = time::parse_timestamp(&text);
                parsed
                    .map(Value::Timestamp)
                    .ok_or_else(|| Fault::failed(format!("parsing time {:?}", &*text)))
            }
            _ => Err(Fault::NoOverload),
        },
    ),
];

fn unread(to: &str, text: &str) -> Fault {
    Fault::failed(format!("strconv: parsing {text:?}: invalid syntax for {to}"))
}

fn string<'v>(_: &crate::meter::Meter<'_>, args: Vec<Value<'v>>) -> Outcome<'v> {
    match take(args)? {
        [value @ Value::String(_)] => Ok(value),
        [Value::Bytes(bytes)] => match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Value::text(text)),
            Err(_) => Err(Fault::failed("invalid UTF-8 in bytes, cannot convert to string")),
        },
        [
            value @ (Value::List(_)
            | Value::Map(_)
            | Value::Optional(_)
            | Value::Opaque(_)
            | Value::Null
            | Value::Raw(_)),
        ] => Err(Fault::failed(format!("type conversion error from '{}' to 'string'", value.type_name()))),
        [value] => Ok(Value::text(format::plain(&value))),
    }
}
