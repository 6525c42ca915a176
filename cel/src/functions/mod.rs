//! The functions, a row each: name, overloads, cost and implementation. The checker, the estimator and the evaluator all
//! read the same rows.

mod convert;
pub(crate) mod cost;
pub(crate) mod format;
mod lists;
mod operators;
mod optional;
mod strings;
pub(crate) mod time;

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::library;
use crate::meter::{Fault, Meter, Outcome};
use crate::types::{Type, signature};
use crate::value::{Text, Value};
pub(crate) use cost::Cost;

/// What a function does with its arguments, the first of which is what a member function is called on.
pub(crate) type Run = for<'v> fn(&Meter<'_>, Vec<Value<'v>>) -> Outcome<'v>;

/// A function, or those of its overloads that cost and do the same.
pub(crate) struct Row {
    name: &'static str,
    /// Overloads, parted by semicolons; `#` stands for each of the types in `each`.
    signatures: &'static str,
    each: &'static str,
    cost: &'static Cost,
    run: Run,
}

/// A row as it is written in tables.
pub(crate) const fn row(name: &'static str, signatures: &'static str, cost: &'static Cost, run: Run) -> Row {
    Row { name, signatures, each: "", cost, run }
}

impl Row {
    /// The same overloads for each of these types.
    pub(crate) const fn each(self, each: &'static str) -> Self {
        Self { each, ..self }
    }
}

/// One way to call a function.
pub(crate) struct Overload {
    pub member: bool,
    pub args: Vec<Type>,
    pub result: Type,
    pub cost: &'static Cost,
    pub run: Run,
    /// Which row it is of: overloads of one row do the same.
    pub row: usize,
}

impl std::fmt::Debug for Overload {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:?} -> {:?}", self.args, self.result)
    }
}

const TABLES: [&[Row]; 13] = [
    operators::ROWS,
    convert::ROWS,
    time::ROWS,
    strings::ROWS,
    lists::ROWS,
    optional::ROWS,
    library::regex::ROWS,
    library::quantity::ROWS,
    library::net::ROWS,
    library::url::ROWS,
    library::named_format::ROWS,
    library::semver::ROWS,
    library::authorizer::ROWS,
];

/// The overloads of a function; none where there is no such function.
pub(crate) fn overloads(name: &str) -> &'static [Overload] {
    static ALL: OnceLock<HashMap<&'static str, Vec<Overload>>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut all: HashMap<&'static str, Vec<Overload>> = HashMap::new();
        for (index, row) in TABLES.into_iter().flatten().enumerate() {
            all.entry(row.name).or_default().extend(overloads_of(row, index));
        }
        all
    });
    all.get(name).map_or(&[], Vec::as_slice)
}

fn overloads_of(row: &'static Row, index: usize) -> Vec<Overload> {
    let mut texts: Vec<&'static str> = Vec::new();
    for text in row.signatures.split(';').map(str::trim) {
        if text.contains('#') {
            // Written out once, and kept for as long as the process lives.
            texts.extend(
                row.each.split(' ').map(|name| &*Box::leak(text.replace('#', name).into_boxed_str())),
            );
        } else {
            texts.push(text);
        }
    }
    let overload = |text: &'static str| {
        let (member, args, result) = signature(text)?;
        Some(Overload { member, args, result, cost: row.cost, run: row.run, row: index })
    };
    texts.into_iter().filter_map(overload).collect()
}

/// The arguments of a call, where there are so many.
pub(crate) fn take<'v, const N: usize>(args: Vec<Value<'v>>) -> Result<[Value<'v>; N], Fault> {
    args.try_into().map_err(|_| Fault::NoOverload)
}

/// Arguments as what they are taken for.
pub(crate) trait As<'v> {
    fn string(&self) -> Result<&Text<'v>, Fault>;
    fn int(&self) -> Result<i64, Fault>;
    fn list(&self) -> Result<&crate::value::List<'v>, Fault>;
}

impl<'v> As<'v> for Value<'v> {
    fn string(&self) -> Result<&Text<'v>, Fault> {
        if let Self::String(text) = self { Ok(text) } else { Err(Fault::NoOverload) }
    }

    fn int(&self) -> Result<i64, Fault> {
        if let Self::Int(number) = self { Ok(*number) } else { Err(Fault::NoOverload) }
    }

    fn list(&self) -> Result<&crate::value::List<'v>, Fault> {
        if let Self::List(list) = self { Ok(list) } else { Err(Fault::NoOverload) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_should_be_one() {
        for (index, row) in TABLES.into_iter().flatten().enumerate() {
            let written: usize = row
                .signatures
                .split(';')
                .map(|text| if text.contains('#') { row.each.split(' ').count() } else { 1 })
                .sum();
            assert_eq!(overloads_of(row, index).len(), written, "{}", row.name);
        }
    }
}
