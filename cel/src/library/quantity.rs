//! `quantity('1.5Gi')`

use api::quantity::{Format, Quantity};

use crate::functions::cost::{self, ONE};
use crate::functions::{As, Row, row, take};
use crate::meter::{Fault, Outcome};
use crate::value::{Opaque, Value};

impl Opaque for Quantity {
    fn type_name(&self) -> &'static str {
        "kubernetes.Quantity"
    }

    fn is(&self, other: &dyn Opaque) -> bool {
        (other as &dyn std::any::Any).downcast_ref() == Some(self)
    }
}

const Q: &str = "kubernetes.Quantity";

pub(crate) const ROWS: &[Row] = &[
    row("quantity", "(string) -> kubernetes.Quantity", &cost::READS, |_, args| {
        take(args).and_then(|[text]| parsed(&text)).map(Value::opaque)
    }),
    row("isQuantity", "(string) -> bool", &cost::READS, |_, args| {
        let [text] = take(args)?;
        text.string()?;
        Ok(Value::Bool(parsed(&text).is_ok()))
    }),
    row("sign", "(#) -> int; #.() -> int", &ONE, |_, args| {
        of(args, |quantity| Ok(Value::Int(quantity.cmp(&Quantity::default()) as i64)))
    })
    .each(Q),
    row("isInteger", "#.() -> bool", &ONE, |_, args| {
        of(args, |quantity| Ok(Value::Bool(quantity.is_whole())))
    })
    .each(Q),
    row("asInteger", "#.() -> int", &ONE, |_, args| {
        of(args, |quantity| match quantity.is_whole() {
            true => Ok(Value::Int(quantity.value())),
            false => Err(Fault::failed("cannot convert value to integer")),
        })
    })
    .each(Q),
    row("asApproximateFloat", "#.() -> double", &ONE, |_, args| {
        of(args, |quantity| Ok(Value::Double(approximate(quantity))))
    })
    .each(Q),
    row("isGreaterThan", "#.(#) -> bool", &ONE, |_, args| both(args, |one, other| Value::Bool(one > other)))
        .each(Q),
    row("isLessThan", "#.(#) -> bool", &ONE, |_, args| both(args, |one, other| Value::Bool(one < other)))
        .each(Q),
    row("compareTo", "#.(#) -> int", &ONE, |_, args| {
        both(args, |one, other| Value::Int(one.cmp(&other) as i64))
    })
    .each(Q),
    row("add", "#.(#) -> #; #.(int) -> #", &ONE, |_, args| {
        both(args, |one, other| Value::opaque(one + other))
    })
    .each(Q),
    row("sub", "#.(#) -> #; #.(int) -> #", &ONE, |_, args| {
        both(args, |one, other| Value::opaque(one - other))
    })
    .each(Q),
];

fn parsed(text: &Value<'_>) -> Result<Quantity, Fault> {
    text.string()?.parse().map_err(|why: api::quantity::QuantityError| Fault::Failed(why.to_string()))
}

fn approximate(quantity: &Quantity) -> f64 {
    // What is left beside the whole units is below one, and its thousandths tell it well enough.
    if quantity.is_whole() { quantity.value() as f64 } else { quantity.milli_value() as f64 / 1000.0 }
}

fn of<'v>(args: Vec<Value<'v>>, result: fn(&Quantity) -> Outcome<'static>) -> Outcome<'v> {
    let [quantity] = take(args)?;
    result(quantity.downcast()?)
}

fn both<'v>(args: Vec<Value<'v>>, result: fn(Quantity, Quantity) -> Value<'static>) -> Outcome<'v> {
    let [one, other] = take(args)?;
    let other = match other {
        Value::Int(number) => Quantity::new(number, Format::DecimalSi),
        other => *other.downcast()?,
    };
    Ok(result(*one.downcast()?, other))
}
