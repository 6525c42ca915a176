//! Values that may be missing. `or`, `orValue` and the operators with question marks need not all of their arguments, and
//! are the evaluator's.

use super::cost::ONE;
use super::{As, Row, row, take};
use crate::meter::{Fault, Outcome};
use crate::value::Value;

pub(super) const ROWS: &[Row] = &[
    row("optional.of", "(A) -> optional(A)", &ONE, |_, args| take(args).map(|[value]| Value::some(value))),
    row("optional.ofNonZeroValue", "(A) -> optional(A)", &ONE, |_, args| {
        take(args).map(|[value]| if value.is_zero() { Value::none() } else { Value::some(value) })
    }),
    row("optional.none", "() -> optional(A)", &ONE, |_, _| Ok(Value::none())),
    row("value", "optional(A).() -> A", &ONE, |_, args| match take(args)? {
        [Value::Optional(Some(value))] => Ok((*value).clone()),
        [Value::Optional(None)] => Err(Fault::failed("optional.none() dereference")),
        _ => Err(Fault::NoOverload),
    }),
    row("hasValue", "optional(A).() -> bool", &ONE, |_, args| match take(args)? {
        [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
        _ => Err(Fault::NoOverload),
    }),
    row("or", "optional(A).(optional(A)) -> optional(A)", &ONE, |_, _| Err(Fault::NoOverload)),
    row("orValue", "optional(A).(A) -> A", &ONE, |_, _| Err(Fault::NoOverload)),
    row("first", "list(A).() -> optional(A)", &ONE, |_, args| {
        let [list] = take(args)?;
        list.list()?.iter().next().transpose().map(optional)
    }),
    row("last", "list(A).() -> optional(A)", &ONE, |_, args| {
        let [list] = take(args)?;
        let list = list.list()?;
        list.len().checked_sub(1).and_then(|at| list.get(at)).transpose().map(optional)
    }),
    row("optional.unwrap", "(list(optional(A))) -> list(A)", &ONE, |_, args| unwrapped(args)),
    row("unwrapOpt", "list(optional(A)).() -> list(A)", &ONE, |_, args| unwrapped(args)),
];

fn optional(value: Option<Value<'_>>) -> Value<'_> {
    value.map_or_else(Value::none, Value::some)
}

fn unwrapped(args: Vec<Value<'_>>) -> Outcome<'_> {
    let [list] = take(args)?;
    let mut out = Vec::new();
    for item in list.list()?.iter() {
        match item? {
            Value::Optional(value) => out.extend(value.map(|value| (*value).clone())),
            other => {
                let other = super::format::plain(&other);
                return Err(Fault::failed(format!("value {other} is not optional")));
            }
        }
    }
    Ok(Value::list(out))
}
