//! Expressions as trees. The checker writes types and overloads into them.

use std::collections::HashSet;
use std::sync::Arc;

use crate::functions::Overload;
use crate::types::Type;
use crate::value::{Key, Value};

/// The deepest that a tree may nest, as upstream. Everything that walks trees calls itself.
pub(crate) const DEPTH_MAX: usize = 250;

/// An expression.
#[derive(Debug)]
pub(crate) struct Expr {
    /// Where it stands in the text, in bytes.
    pub at: usize,
    pub ty: Type,
    pub kind: Kind,
    /// What it always is, found out once.
    pub constant: Option<Box<Constant>>,
    /// How many expressions stand within each other here.
    pub depth: usize,
}

#[derive(Debug)]
pub(crate) struct Constant {
    pub value: Value<'static>,
    /// The elements of a list of scalars.
    pub members: Option<HashSet<Key<'static>>>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Literal,
    Ident(Arc<str>),
    Select { operand: Box<Expr>, field: Arc<str>, test: bool },
    Call(Call),
    List(Vec<Entry>),
    Map(Vec<(Expr, Entry)>),
    Fold(Box<Fold>),
    OptMap(Box<OptMap>),
}

/// A call; the first argument of a member function is what it is called on.
#[derive(Debug)]
pub(crate) struct Call {
    pub function: Arc<str>,
    pub member: bool,
    pub args: Vec<Expr>,
    /// Which overloads it may be.
    pub overloads: Vec<&'static Overload>,
}

/// An element of a list or a value of a map, left out if it is an empty optional and marked so.
#[derive(Debug)]
pub(crate) struct Entry {
    pub value: Expr,
    pub optional: bool,
}

/// What the macros over lists and maps are made of.
#[derive(Debug)]
pub(crate) struct Fold {
    pub range: Expr,
    pub var: Arc<str>,
    /// With it, the first is the index or key, and this the element or value.
    pub second: Option<Arc<str>>,
    pub init: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
    /// The name of what is accumulated.
    pub accu: &'static str,
}

/// `optMap` and `optFlatMap`. Upstream's expansion mentions the target twice, so that a chain of them doubles with each;
/// here it is looked at once and charged twice.
#[derive(Debug)]
pub(crate) struct OptMap {
    pub target: Expr,
    pub var: Arc<str>,
    pub body: Expr,
    pub flat: bool,
}

/// What folds accumulate in. No text can spell it.
pub(crate) const ACCUMULATOR: &str = "@result";

impl Expr {
    pub fn new(at: usize, kind: Kind) -> Self {
        let mut expr = Self { at, ty: Type::Dyn, kind, constant: None, depth: 0 };
        expr.depth = 1 + expr.parts().iter().map(|part| part.depth).max().unwrap_or_default();
        expr
    }

    pub fn literal(at: usize, value: Value<'static>) -> Self {
        let constant = Some(Box::new(Constant { value, members: None }));
        Self { constant, ..Self::new(at, Kind::Literal) }
    }

    pub fn ident(at: usize, name: &str) -> Self {
        Self::new(at, Kind::Ident(name.into()))
    }

    pub fn call(at: usize, function: &str, args: Vec<Self>) -> Self {
        let call = Call { function: function.into(), member: false, args, overloads: Vec::new() };
        Self::new(at, Kind::Call(call))
    }

    pub fn member(at: usize, function: &str, args: Vec<Self>) -> Self {
        let call = Call { function: function.into(), member: true, args, overloads: Vec::new() };
        Self::new(at, Kind::Call(call))
    }

    pub fn accumulator(at: usize) -> Self {
        Self::ident(at, ACCUMULATOR)
    }

    /// The literal that it is, if it is one.
    pub fn as_literal(&self) -> Option<&Value<'static>> {
        matches!(self.kind, Kind::Literal).then_some(&self.constant.as_ref()?.value)
    }

    /// The name that it spells, if it is nothing but a name with dots.
    pub fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.to_string()),
            Kind::Select { operand, field, test: false } => {
                Some(format!("{}.{field}", operand.qualified_name()?))
            }
            _ => None,
        }
    }

    /// The expressions that it is made of.
    pub fn parts(&self) -> Vec<&Self> {
        match &self.kind {
            Kind::Literal | Kind::Ident(_) => Vec::new(),
            Kind::Select { operand, .. } => vec![operand],
            Kind::Call(call) => call.args.iter().collect(),
            Kind::List(entries) => entries.iter().map(|entry| &entry.value).collect(),
            Kind::Map(entries) => entries.iter().flat_map(|(key, entry)| [key, &entry.value]).collect(),
            Kind::Fold(fold) => vec![&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result],
            Kind::OptMap(map) => vec![&map.target, &map.body],
        }
    }

    /// The same, to change them.
    pub fn parts_mut(&mut self) -> Vec<&mut Self> {
        match &mut self.kind {
            Kind::Literal | Kind::Ident(_) => Vec::new(),
            Kind::Select { operand, .. } => vec![operand],
            Kind::Call(call) => call.args.iter_mut().collect(),
            Kind::List(entries) => entries.iter_mut().map(|entry| &mut entry.value).collect(),
            Kind::Map(entries) => {
                entries.iter_mut().flat_map(|(key, entry)| [key, &mut entry.value]).collect()
            }
            Kind::Fold(fold) => {
                vec![&mut fold.range, &mut fold.init, &mut fold.condition, &mut fold.step, &mut fold.result]
            }
            Kind::OptMap(map) => vec![&mut map.target, &mut map.body],
        }
    }
}
