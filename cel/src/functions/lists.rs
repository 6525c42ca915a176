//! Lists, and lists as sets.

use std::cmp::Ordering;

use super::cost::{self, ONE};
use super::operators::{arithmetic, inserted, overflow};
use super::{As, Row, row, take};
use crate::compare::{Lookup, equal, order};
use crate::meter::{Fault, Meter, Outcome};
use crate::shape::Merge;
use crate::value::{List, Value};

const ORDERED: &str = "int uint double bool duration timestamp string bytes";

pub(super) const ROWS: &[Row] = &[
    row("isSorted", "list(#).() -> bool", &cost::TRAVERSES, |_, args| {
        let [list] = take(args)?;
        let items = list.list()?.all()?;
        for pair in items.windows(2) {
            if let [one, other] = pair
                && order(one, other)?.is_gt()
            {
                return Ok(Value::Bool(false));
            }
        }
        Ok(Value::Bool(true))
    })
    .each(ORDERED),
    row("sum", "list(#).() -> #", &cost::TRAVERSES, |_, args| sum(args)).each("int uint double duration"),
    row("max", "list(#).() -> #", &cost::TRAVERSES, |_, args| extreme(args, "max", Ordering::is_gt))
        .each(ORDERED),
    row("min", "list(#).() -> #", &cost::TRAVERSES, |_, args| extreme(args, "min", Ordering::is_lt))
        .each(ORDERED),
    row("indexOf", "list(A).(A) -> int", &cost::TRAVERSES, |meter, args| {
        let [list, wanted] = take(args)?;
        place(meter, &mut list.list()?.all()?.into_iter().enumerate(), &wanted)
    }),
    row("lastIndexOf", "list(A).(A) -> int", &cost::TRAVERSES, |meter, args| {
        let [list, wanted] = take(args)?;
        place(meter, &mut list.list()?.all()?.into_iter().enumerate().rev(), &wanted)
    }),
    row("slice", "list(A).(int, int) -> list(A)", &cost::SLICES, |_, args| {
        let [list, start, end] = take(args)?;
        let (items, start, end) = (list.list()?, start.int()?, end.int()?);
        let refuse = |why: String| Err(Fault::failed(format!("cannot slice({start}, {end}), {why}")));
        let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end)) else {
            return refuse("negative indexes not supported".into());
        };
        match () {
            () if from > to => refuse("start index must be less than or equal to end index".into()),
            () if to > items.len() => refuse(format!("list is length {}", items.len())),
            () => items.iter().skip(from).take(to - from).collect::<Result<_, _>>().map(Value::list),
        }
    }),
    row(
        "flatten",
        "list(list(A)).() -> list(A); list(dyn).(int) -> list(dyn)",
        &cost::FLATTENS,
        |meter, args| {
            let list = args.first().ok_or(Fault::NoOverload)?.list()?;
            let depth = args.get(1).map(As::int).transpose()?.unwrap_or(1);
            if depth < 0 {
                return Err(Fault::failed("level must be non-negative"));
            }
            let mut out = Vec::new();
            flatten(meter, list, depth, &mut out)?;
            Ok(Value::list(out))
        },
    ),
    row("sort", "list(#).() -> list(#)", &cost::SORTS, |meter, args| {
        let [list] = take(args)?;
        sorted(meter, list.clone(), list)
    })
    .each(ORDERED),
    row("@sortByAssociatedKeys", "list(A).(list(#)) -> list(A)", &cost::SORTS_BY, |meter, args| {
        let [list, keys] = take(args)?;
        sorted(meter, list, keys)
    })
    .each(ORDERED),
    row("lists.range", "(int) -> list(int)", &cost::COUNTS, |_, args| {
        let [count] = take(args)?;
        Ok(Value::list((0..count.int()?).map(Value::Int).collect()))
    }),
    row("reverse", "list(A).() -> list(A)", &cost::COPIES_LIST, |_, args| {
        let [list] = take(args)?;
        let mut items = list.list()?.all()?;
        items.reverse();
        Ok(Value::list(items))
    }),
    row("distinct", "list(A).() -> list(A)", &cost::DISTINCT, |meter, args| {
        let [list] = take(args)?;
        let none = List { items: crate::value::Items::Values(Vec::new().into()), merge: Merge::Set };
        let mut lookup = Lookup::of(&none, &Merge::Set)?;
        for item in list.list()?.iter() {
            let item = item?;
            if lookup.find(meter, &item)?.is_none() {
                lookup.add(item);
            }
        }
        Ok(Value::list(lookup.items))
    }),
    row("sets.contains", "(list(A), list(A)) -> bool", &cost::SETS, |meter, args| {
        let [list, part] = take(args)?;
        holds_all(meter, list.list()?, part.list()?).map(Value::Bool)
    }),
    row("sets.equivalent", "(list(A), list(A)) -> bool", &cost::SETS_TWICE, |meter, args| {
        let [one, other] = take(args)?;
        let (one, other) = (one.list()?, other.list()?);
        Ok(Value::Bool(holds_all(meter, one, other)? && holds_all(meter, other, one)?))
    }),
    row("sets.intersects", "(list(A), list(A)) -> bool", &cost::SETS, |meter, args| {
        let [one, other] = take(args)?;
        let known = Lookup::of(other.list()?, &Merge::Set)?;
        for item in one.list()?.iter() {
            if known.find(meter, &item?)?.is_some() {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }),
    row(
        "cel.@mapInsert",
        "(map(A, B), A, B) -> map(A, B); (map(A, B), map(A, B)) -> map(A, B)",
        &ONE,
        inserted,
    ),
];

fn sum(args: Vec<Value<'_>>) -> Outcome<'_> {
    let [list] = take(args)?;
    let mut sum: Option<Value<'_>> = None;
    for item in list.list()?.iter() {
        sum = Some(match (sum, item?) {
            (None, first) => first,
            (Some(Value::Duration(one)), Value::Duration(other)) => {
                one.checked_add(other).map(Value::Duration).ok_or_else(|| overflow("duration"))?
            }
            (Some(sum), item) => arithmetic('+', vec![sum, item])?,
        });
    }
    // Of nothing the sum is zero; which zero, only the types tell, and all zeros are equal.
    Ok(sum.unwrap_or(Value::Int(0)))
}

fn extreme<'v>(args: Vec<Value<'v>>, name: &str, is_better: fn(Ordering) -> bool) -> Outcome<'v> {
    let [list] = take(args)?;
    let mut items = list.list()?.iter();
    let Some(first) = items.next() else { return Err(Fault::failed(format!("{name} called on empty list"))) };
    items.try_fold(first?, |best, item| {
        let item = item?;
        Ok(if is_better(order(&item, &best)?) { item } else { best })
    })
}

fn place<'v>(
    meter: &Meter<'_>,
    items: &mut dyn Iterator<Item = (usize, Value<'v>)>,
    wanted: &Value<'v>,
) -> Outcome<'v> {
    for (at, item) in items {
        if equal(meter, &item, wanted)? {
            return Ok(Value::Int(i64::try_from(at).unwrap_or(i64::MAX)));
        }
    }
    Ok(Value::Int(-1))
}

fn flatten<'v>(
    meter: &Meter<'_>,
    list: &List<'v>,
    depth: i64,
    out: &mut Vec<Value<'v>>,
) -> Result<(), Fault> {
    for item in list.iter() {
        meter.work(size_of::<Value<'_>>())?;
        match item? {
            Value::List(inner) if depth > 0 => flatten(meter, &inner, depth - 1, out)?,
            item => out.push(item),
        }
    }
    Ok(())
}

fn sorted<'v>(meter: &Meter<'_>, list: Value<'v>, keys: Value<'v>) -> Outcome<'v> {
    let (items, keys) = (list.list()?.all()?, keys.list()?.all()?);
    meter.work(items.len() * 64)?;
    if items.len() != keys.len() {
        let (items, keys) = (items.len(), keys.len());
        let why =
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got";
        return Err(Fault::failed(format!("{why} {items} and {keys} elements respectively")));
    }
    if keys.windows(2).any(|pair| matches!(pair, [one, other] if one.type_name() != other.type_name())) {
        return Err(Fault::failed("list elements must have the same type"));
    }
    let mut fault = None;
    let mut pairs: Vec<_> = keys.into_iter().zip(items).collect();
    pairs.sort_by(|(one, _), (other, _)| {
        order(one, other).unwrap_or_else(|why| {
            fault.get_or_insert(why);
            Ordering::Equal
        })
    });
    match fault {
        Some(why) => Err(why),
        None => Ok(Value::list(pairs.into_iter().map(|(_, item)| item).collect())),
    }
}

fn holds_all<'v>(meter: &Meter<'_>, list: &List<'v>, part: &List<'v>) -> Result<bool, Fault> {
    let known = Lookup::of(list, &Merge::Set)?;
    for item in part.iter() {
        if known.find(meter, &item?)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}
