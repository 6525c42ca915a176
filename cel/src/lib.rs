//! The Common Expression Language as Kubernetes speaks it.
//!
//! Text goes through [`lexer`], [`parser`] and [`macros`] to a tree, into which [`check`] writes types; [`estimate`] says
//! from the declared [`shape`]s of variables what the most is that it can cost, and [`eval`] evaluates it while counting.
//! All three read the same table of [`functions`]; what Kubernetes adds is in [`library`], and nothing else here
//! knows of it.
//!
//! Guarantees: a text that compiles evaluates without exhausting stack or memory, and ends, within the cost that
//! it is given; types, costs and results are upstream's (cel-go with the options that Kubernetes v1.36 sets), and
//! so is the wording of what is wrong with a text.
//! Deliberately absent: messages made by a type's name, unknown values, the bindings and math extensions (which
//! Kubernetes does not enable), and looking into lists and maps when literal patterns of `format` are checked.

mod ast;
mod check;
mod compare;
mod error;
mod estimate;
mod eval;
mod functions;
mod lexer;
mod library;
mod macros;
mod meter;
mod parser;
pub mod shape;
mod types;
mod value;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

pub use check::Environment;
pub use error::{CompileError, Issues};
pub use eval::Variables;
pub use lexer::plain_escape;
pub use library::{authorizer, structural};
pub use meter::{Fault, Outcome};
use regex::Regex;
pub use shape::Shape;
pub use types::{Object, Type};
pub use value::{Key, List, Map, Opaque, Text, Value};

use ast::{Constant, Entry, Expr, Kind};
use meter::Meter;

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    tree: Expr,
    used: BTreeSet<Arc<str>>,
    /// The patterns that it spells out.
    patterns: HashMap<Box<str>, Regex>,
}

/// A value or a fault, and what it has cost.
#[derive(Clone, Debug)]
pub struct Evaluated<'v> {
    /// What came of it.
    pub outcome: Outcome<'v>,
    /// What it cost, whatever came of it.
    pub cost: u64,
}

impl Expression {
    /// Compiles an expression over what an environment declares.
    pub fn compile(source: &str, environment: &Environment) -> Result<Self, CompileError> {
        let mut tree = parser::parse(source).map_err(CompileError::Issues)?;
        let checked = check::check(&mut tree, environment);
        if !checked.issues.is_empty() {
            return Err(CompileError::Issues(Issues::new(source, checked.issues)));
        }
        let mut patterns = HashMap::new();
        fold(&mut tree, &mut patterns)?;
        Ok(Self { tree, used: checked.used, patterns })
    }

    /// The type of what it evaluates to.
    pub fn output(&self) -> &Type {
        &self.tree.ty
    }

    /// Whether it speaks of a variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.used.contains(variable)
    }

    /// The most that it can cost where its variables are of this shape.
    pub fn estimate(&self, variables: &Shape) -> u64 {
        estimate::most(&self.tree, variables)
    }

    /// Evaluates it, for no more than a cost.
    pub fn evaluate<'v>(&'v self, variables: &Variables<'_, 'v>, cost_max: u64) -> Evaluated<'v> {
        let meter = Meter::new(cost_max, &self.patterns);
        let mut evaluator = eval::Evaluator { meter: &meter, variables, scopes: Vec::new() };
        let outcome = evaluator.expr(&self.tree);
        Evaluated { outcome, cost: meter.cost() }
    }
}

fn no_patterns() -> &'static HashMap<Box<str>, Regex> {
    static NONE: OnceLock<HashMap<Box<str>, Regex>> = OnceLock::new();
    NONE.get_or_init(HashMap::new)
}

/// Finds out once what never changes: lists and maps of literals, converted literals, and patterns.
fn fold(expr: &mut Expr, patterns: &mut HashMap<Box<str>, Regex>) -> Result<(), CompileError> {
    for part in expr.parts_mut() {
        fold(part, patterns)?;
    }
    let is_constant = match &expr.kind {
        Kind::List(entries) => entries.iter().all(is_fixed),
        Kind::Map(entries) => entries.iter().all(|(key, entry)| key.constant.is_some() && is_fixed(entry)),
        Kind::Call(call) if matches!(&*call.function, "matches" | "find" | "findAll") => {
            let pattern = call.args.get(1).and_then(Expr::as_literal);
            if let Some(text) = pattern.and_then(|pattern| pattern.as_str().map(str::to_string)) {
                let compiled = library::regex::compile(&text).map_err(CompileError::Constant)?;
                patterns.insert(text.into(), compiled);
            }
            false
        }
        Kind::Call(call) => call.is_conversion(),
        _ => false,
    };
    if !is_constant {
        return Ok(());
    }
    let value = constant(expr).map_err(|fault| CompileError::Constant(fault.to_string()))?;
    let members = match &value {
        Value::List(list) => {
            let keys = list.iter().map(|item| item.ok().as_ref().and_then(Key::of));
            keys.collect::<Option<HashSet<_>>>()
        }
        _ => None,
    };
    expr.constant = Some(Box::new(Constant { value, members }));
    Ok(())
}

fn is_fixed(entry: &Entry) -> bool {
    !entry.optional && entry.value.constant.is_some()
}

fn constant(expr: &Expr) -> Outcome<'static> {
    let of =
        |part: &Expr| part.constant.as_ref().map(|constant| constant.value.clone()).ok_or(Fault::NoOverload);
    match &expr.kind {
        Kind::List(entries) => {
            entries.iter().map(|entry| of(&entry.value)).collect::<Result<_, _>>().map(Value::list)
        }
        Kind::Map(entries) => {
            let parts = entries.iter().map(|(key, entry)| Ok((of(key)?, of(&entry.value)?)));
            value::made(parts.collect::<Result<_, Fault>>()?)
        }
        Kind::Call(call) => {
            let args = call.args.iter().map(of).collect::<Result<_, _>>()?;
            let meter = Meter::new(u64::MAX, no_patterns());
            let overload = call.overloads.first().ok_or(Fault::NoOverload)?;
            (overload.run)(&meter, args)
        }
        _ => Err(Fault::NoOverload),
    }
}
