//! What is written with signs.

use std::cmp::Ordering;
use std::sync::Arc;

use super::cost::{self, ONE};
use super::{As, Row, row, take};
use crate::compare::{Lookup, equal, order};
use crate::meter::{Fault, Meter, Outcome};
use crate::shape::Merge;
use crate::value::{Items, Key, List, Map, Value};

/// Types whose values have an order. Text is charged by its length.
const ORDERED: &str = "bool int uint double timestamp duration";
const COMPARED: &str = "(#, #) -> bool; (int, uint) -> bool; (int, double) -> bool; (uint, int) -> bool; \
                        (uint, double) -> bool; (double, int) -> bool; (double, uint) -> bool";

pub(super) const ROWS: &[Row] = &[
    // The evaluator does these itself, for they do not need all of their arguments.
    row("_&&_", "(bool, bool) -> bool", &ONE, nothing),
    row("_||_", "(bool, bool) -> bool", &ONE, nothing),
    row("_?_:_", "(bool, A, A) -> A", &ONE, nothing),
    row("@not_strictly_false", "(bool) -> bool", &ONE, nothing),
    row("_[_]", "(list(A), int) -> A; (map(A, B), A) -> B", &ONE, nothing),
    row(
        "_[_]",
        "(optional(list(A)), int) -> optional(A); (optional(map(A, B)), A) -> optional(B)",
        &ONE,
        nothing,
    ),
    row("_[?_]", "(list(A), int) -> optional(A); (map(A, B), A) -> optional(B)", &ONE, nothing),
    row(
        "_[?_]",
        "(optional(list(A)), int) -> optional(A); (optional(map(A, B)), A) -> optional(B)",
        &ONE,
        nothing,
    ),
    row("!_", "(bool) -> bool", &ONE, |_, args| match take(args)? {
        [Value::Bool(flag)] => Ok(Value::Bool(!flag)),
        _ => Err(Fault::NoOverload),
    }),
    row("_==_", "(A, A) -> bool", &cost::EQUALS, |meter, args| {
        let [one, other] = take(args)?;
        equal(meter, &one, &other).map(Value::Bool)
    }),
    row("_!=_", "(A, A) -> bool", &cost::COMPARES, |meter, args| {
        let [one, other] = take(args)?;
        equal(meter, &one, &other).map(|equal| Value::Bool(!equal))
    }),
    row("_<_", COMPARED, &ONE, less).each(ORDERED),
    row("_<=_", COMPARED, &ONE, less_or_equal).each(ORDERED),
    row("_>_", COMPARED, &ONE, greater).each(ORDERED),
    row("_>=_", COMPARED, &ONE, greater_or_equal).each(ORDERED),
    row("_<_", "(#, #) -> bool", &cost::COMPARES, less).each("string bytes"),
    row("_<=_", "(#, #) -> bool", &cost::COMPARES, less_or_equal).each("string bytes"),
    row("_>_", "(#, #) -> bool", &cost::COMPARES, greater).each("string bytes"),
    row("_>=_", "(#, #) -> bool", &cost::COMPARES, greater_or_equal).each("string bytes"),
    row("_+_", "(#, #) -> #", &ONE, |_, args| arithmetic('+', args)).each("int uint double"),
    row(
        "_+_",
        "(duration, duration) -> duration; (timestamp, duration) -> timestamp; (duration, timestamp) -> timestamp",
        &ONE,
        |_, args| match take(args)? {
            [Value::Duration(one), Value::Duration(other)] => super::time::span_of(one.checked_add(other)),
            [Value::Timestamp(time), Value::Duration(span)]
            | [Value::Duration(span), Value::Timestamp(time)] => super::time::moved(time, Some(span)),
            _ => Err(Fault::NoOverload),
        },
    ),
    row("_+_", "(#, #) -> #", &cost::ADDS_TEXT, joined).each("string bytes"),
    row("_+_", "(list(A), list(A)) -> list(A)", &cost::ADDS_LISTS, concatenated),
    row("_-_", "(#, #) -> #", &ONE, |_, args| arithmetic('-', args)).each("int uint double"),
    row(
        "_-_",
        "(duration, duration) -> duration; (timestamp, duration) -> timestamp; (timestamp, timestamp) -> duration",
        &ONE,
        |_, args| match take(args)? {
            [Value::Duration(one), Value::Duration(other)] => super::time::span_of(one.checked_sub(other)),
            [Value::Timestamp(time), Value::Duration(span)] => super::time::moved(time, span.checked_neg()),
            [Value::Timestamp(one), Value::Timestamp(other)] => {
                super::time::span_of(Some(one.duration_since(&other)))
            }
            _ => Err(Fault::NoOverload),
        },
    ),
    row("_*_", "(#, #) -> #", &ONE, |_, args| arithmetic('*', args)).each("int uint double"),
    row("_/_", "(#, #) -> #", &ONE, |_, args| arithmetic('/', args)).each("int uint double"),
    row("_%_", "(#, #) -> #", &ONE, |_, args| arithmetic('%', args)).each("int uint"),
    row("-_", "(#) -> #", &ONE, |_, args| match take(args)? {
        [Value::Int(number)] => number.checked_neg().map(Value::Int).ok_or_else(|| overflow("integer")),
        [Value::Double(number)] => Ok(Value::Double(-number)),
        _ => Err(Fault::NoOverload),
    })
    .each("int double"),
    row("@in", "(A, list(A)) -> bool", &cost::IN_LIST, |meter, args| {
        let [value, list] = take(args)?;
        for item in list.list()?.iter() {
            if equal(meter, &item?, &value)? {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }),
    row("@in", "(A, map(A, B)) -> bool", &ONE, |_, args| match take(args)? {
        [key, Value::Map(map)] => Ok(Value::Bool(Key::of(&key).is_some_and(|key| map.get(&key).is_some()))),
        _ => Err(Fault::NoOverload),
    }),
    row("size", "(#) -> int; #.() -> int", &ONE, |_, args| match take(args)? {
        [value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))] => {
            Ok(Value::Int(i64::try_from(value.size()).unwrap_or(i64::MAX)))
        }
        _ => Err(Fault::NoOverload),
    })
    .each("string bytes list(A) map(A,B)"),
];

fn nothing<'v>(_: &Meter<'_>, _: Vec<Value<'v>>) -> Outcome<'v> {
    Err(Fault::NoOverload)
}

fn ordered<'v>(args: Vec<Value<'v>>, holds: fn(Ordering) -> bool) -> Outcome<'v> {
    let [one, other] = take(args)?;
    order(&one, &other).map(|order| Value::Bool(holds(order)))
}

fn less<'v>(_: &Meter<'_>, args: Vec<Value<'v>>) -> Outcome<'v> {
    ordered(args, Ordering::is_lt)
}

fn less_or_equal<'v>(_: &Meter<'_>, args: Vec<Value<'v>>) -> Outcome<'v> {
    ordered(args, Ordering::is_le)
}

fn greater<'v>(_: &Meter<'_>, args: Vec<Value<'v>>) -> Outcome<'v> {
    ordered(args, Ordering::is_gt)
}

fn greater_or_equal<'v>(_: &Meter<'_>, args: Vec<Value<'v>>) -> Outcome<'v> {
    ordered(args, Ordering::is_ge)
}

pub(super) fn overflow(what: &str) -> Fault {
    Fault::failed(format!("{what} overflow"))
}

pub(super) fn arithmetic(sign: char, args: Vec<Value<'_>>) -> Outcome<'_> {
    let by_zero = || Fault::failed(if sign == '%' { "modulus by zero" } else { "division by zero" });
    match take(args)? {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] if matches!(sign, '/' | '%') => {
            Err(by_zero())
        }
        [Value::Int(one), Value::Int(other)] => {
            let result = match sign {
                '+' => one.checked_add(other),
                '-' => one.checked_sub(other),
                '*' => one.checked_mul(other),
                '/' => one.checked_div(other),
                _ => one.checked_rem(other),
            };
            result.map(Value::Int).ok_or_else(|| overflow("integer"))
        }
        [Value::Uint(one), Value::Uint(other)] => {
            let result = match sign {
                '+' => one.checked_add(other),
                '-' => one.checked_sub(other),
                '*' => one.checked_mul(other),
                '/' => one.checked_div(other),
                _ => one.checked_rem(other),
            };
            result.map(Value::Uint).ok_or_else(|| overflow("unsigned integer"))
        }
        [Value::Double(one), Value::Double(other)] => Ok(Value::Double(match sign {
            '+' => one + other,
            '-' => one - other,
            '*' => one * other,
            '/' => one / other,
            _ => return Err(Fault::NoOverload),
        })),
        _ => Err(Fault::NoOverload),
    }
}

fn joined<'v>(_: &Meter<'_>, args: Vec<Value<'v>>) -> Outcome<'v> {
    match take(args)? {
        [Value::String(one), Value::String(other)] => Ok(Value::text([&*one, &*other].concat())),
        [Value::Bytes(one), Value::Bytes(other)] => Ok(Value::Bytes([&*one, &*other].concat().into())),
        _ => Err(Fault::NoOverload),
    }
}

/// One list after the other; of sets the union, of lists with keys one with the elements of the other put in.
fn concatenated<'v>(meter: &Meter<'_>, args: Vec<Value<'v>>) -> Outcome<'v> {
    let [Value::List(one), Value::List(other)] = take(args)? else { return Err(Fault::NoOverload) };
    let List { items, merge } = one;
    if let Merge::Atomic = merge {
        let mut items = match items {
            // What a macro gathers belongs to nobody else, and grows in place.
            Items::Values(items) => Arc::try_unwrap(items).or_else(|shared| copied(meter, &shared))?,
            view @ Items::Json(..) => List { items: view, merge: Merge::Atomic }.all()?,
        };
        meter.work((other.len() + 1) * size_of::<Value<'_>>())?;
        for item in other.iter() {
            items.push(item?);
        }
        return Ok(Value::list(items));
    }
    let mut lookup = Lookup::of(&List { items, merge: merge.clone() }, &merge)?;
    meter.work((lookup.items.len() + other.len()) * size_of::<Value<'_>>())?;
    for item in other.iter() {
        let item = item?;
        match lookup.find(meter, &item)? {
            Some(at) => drop(lookup.items.get_mut(at).map(|known| *known = item)),
            None => lookup.add(item),
        }
    }
    Ok(Value::List(List { items: Items::Values(Arc::new(lookup.items)), merge }))
}

fn copied<'v>(meter: &Meter<'_>, items: &[Value<'v>]) -> Result<Vec<Value<'v>>, Fault> {
    meter.work(size_of_val(items))?;
    Ok(items.to_vec())
}

/// Puts an entry into the map that a macro gathers.
pub(super) fn inserted<'v>(meter: &Meter<'_>, args: Vec<Value<'v>>) -> Outcome<'v> {
    let mut args = args.into_iter();
    let Some(Value::Map(map)) = args.next() else { return Err(Fault::NoOverload) };
    let Map::Values(mut entries) = map else { return Err(Fault::NoOverload) };
    let (first, second) = (args.next(), args.next());
    let new = match (first, second) {
        (Some(key), Some(value)) => vec![(key, value)],
        (Some(Value::Map(more)), None) => {
            let keys = more.keys().into_iter();
            keys.map(|key| {
                let value = Key::of(&key).and_then(|key| more.get(&key)).unwrap_or(Err(Fault::NoOverload))?;
                Ok((key, value))
            })
            .collect::<Result<Vec<_>, Fault>>()?
        }
        _ => return Err(Fault::NoOverload),
    };
    if Arc::strong_count(&entries) > 1 {
        meter.work(entries.len() * size_of::<Value<'_>>())?;
    }
    let target = Arc::make_mut(&mut entries);
    for (key, value) in new {
        let key = Key::of(&key).ok_or_else(|| Fault::failed("unsupported key type"))?;
        if target.contains_key(&key) {
            return Err(Fault::failed(format!(
                "insert failed: key {} already exists",
                super::format::plain(&key.into())
            )));
        }
        target.insert(key, value);
    }
    Ok(Value::Map(Map::Values(entries)))
}
