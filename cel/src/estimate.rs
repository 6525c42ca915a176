//! The most that an expression can cost, from nothing but what is declared of its variables.
//!
//! Upstream's numbers decide which rules a definition may have: they are followed to the unit, oddities included. Such
//! a one is that where something is not within a variable, its parts are taken to be as large as the variable.

use std::sync::Arc;

use crate::ast::{Call, Expr, Fold, Kind, OptMap};
use crate::functions::cost::{Estimate, Node, Range};
use crate::shape::Shape;
use crate::types::Type;

/// What making a list costs.
const LIST: u64 = 10;
/// What making a map costs.
const MAP: u64 = 30;

/// The most that a checked expression can cost whose variables are of this shape.
pub(crate) fn most(expr: &Expr, root: &Shape) -> u64 {
    Estimator { root, scopes: Vec::new() }.expr(expr).cost.max
}

/// Where a value is within the variables.
#[derive(Clone, Copy)]
enum Place<'s> {
    /// In none of them.
    Nowhere,
    /// Somewhere that nothing is declared of.
    Unknown,
    At(&'s Shape),
}

/// What is known of an expression's value.
#[derive(Clone)]
struct Known<'s> {
    cost: Range,
    /// Its size, where it can be told without its place.
    size: Option<Range>,
    /// The sizes of its keys and values, where it was made.
    entries: Option<(Range, Range)>,
    place: Place<'s>,
}

/// What a macro binds a name to.
struct Local<'s> {
    name: Arc<str>,
    size: Option<Range>,
    entries: Option<(Range, Range)>,
    place: Place<'s>,
}

struct Estimator<'s> {
    root: &'s Shape,
    scopes: Vec<Local<'s>>,
}

impl<'s> Estimator<'s> {
    fn expr(&mut self, expr: &Expr) -> Known<'s> {
        let nowhere = |cost: Range, size| Known { cost, size, entries: None, place: Place::Nowhere };
        let known = match &expr.kind {
            Kind::Literal => {
                let size = expr.constant.as_ref().map(|constant| Range::fixed(constant.value.size()));
                nowhere(Range::fixed(0), size)
            }
            Kind::Ident(name) => return self.ident(name, &expr.ty),
            Kind::Select { operand, test: true, .. } => nowhere(self.expr(operand).cost, None),
            Kind::Select { operand, field, .. } => {
                let of = self.expr(operand);
                let is_looked_up = matches!(operand.ty, Type::Map(_) | Type::Object(_));
                let place = self.child(of.place, |shape| shape.field(field).map(|field| &*field.shape));
                Known {
                    cost: of.cost.plus(Range::fixed(is_looked_up.into())),
                    size: None,
                    entries: None,
                    place,
                }
            }
            Kind::Call(call) => self.call(call),
            Kind::List(entries) => {
                let items: Vec<Known<'s>> = entries.iter().map(|entry| self.expr(&entry.value)).collect();
                let sizes = union(items.iter().map(|item| item.size));
                let cost = sum(&items).plus(Range::fixed(LIST));
                let size = Some(Range::fixed(items.len() as u64));
                Known { cost, size, entries: Some((Range::fixed(1), sizes)), place: Place::Nowhere }
            }
            Kind::Map(entries) => {
                let keys: Vec<Known<'s>> = entries.iter().map(|(key, _)| self.expr(key)).collect();
                let values: Vec<Known<'s>> =
                    entries.iter().map(|(_, entry)| self.expr(&entry.value)).collect();
                let sizes =
                    (union(keys.iter().map(|key| key.size)), union(values.iter().map(|value| value.size)));
                let cost = sum(&keys).plus(sum(&values)).plus(Range::fixed(MAP));
                let size = Some(Range::fixed(keys.len() as u64));
                Known { cost, size, entries: Some(sizes), place: Place::Nowhere }
            }
            Kind::Fold(fold) => self.fold(fold),
            Kind::OptMap(map) => self.opt_map(map),
        };
        sized(known, &expr.ty)
    }

    fn ident(&self, name: &str, of: &Type) -> Known<'s> {
        let cost = Range::fixed(1);
        match self.scopes.iter().rev().find(|local| *local.name == *name) {
            Some(local) => {
                let known = Known { cost, size: None, entries: local.entries, place: local.place };
                let known = sized(known, of);
                Known { size: known.size.or(local.size), ..known }
            }
            None => sized(Known { cost, size: None, entries: None, place: Place::At(self.root) }, of),
        }
    }

    /// A part of a value.
    fn child(&self, of: Place<'s>, part: impl Fn(&'s Shape) -> Option<&'s Shape>) -> Place<'s> {
        match of {
            Place::Nowhere => Place::At(self.root),
            Place::Unknown => Place::Unknown,
            Place::At(shape) => part(shape).map_or(Place::Unknown, Place::At),
        }
    }

    fn call(&mut self, call: &Call) -> Known<'s> {
        let args: Vec<Known<'s>> = call.args.iter().map(|arg| self.expr(arg)).collect();
        let nowhere = |cost, size, entries| Known { cost, size, entries, place: Place::Nowhere };
        match (&*call.function, args.as_slice()) {
            ("dyn", [value]) => nowhere(value.cost.plus(Range::fixed(1)), value.size, value.entries),
            ("_&&_" | "_||_", [one, other]) => {
                let max = one.cost.plus(other.cost).max;
                nowhere(Range { min: one.cost.min, max }, None, None)
            }
            ("_?_:_", [condition, yes, no]) => {
                let cost = condition.cost.plus(yes.cost.union(no.cost));
                let size = |known: &Known<'_>| known.size.unwrap_or(Range::UNKNOWN);
                let entries = yes
                    .entries
                    .zip(no.entries)
                    .map(|(one, other)| (one.0.union(other.0), one.1.union(other.1)));
                nowhere(cost, Some(size(yes).union(size(no))), entries)
            }
            ("_[_]", [of, _]) if !matches!(call.args.first().map(|arg| &arg.ty), Some(Type::Optional(_))) => {
                let place = self.child(of.place, |shape| shape.elements().map(|shape| &**shape));
                let size = of.entries.map(|(_, values)| values);
                Known { cost: sum(&args).plus(Range::fixed(1)), size, entries: None, place }
            }
            _ => {
                let Estimate { cost, size } = self.function(call, &args);
                let entries = match args.as_slice() {
                    [one, other] if &*call.function == "_+_" => {
                        let both = one.entries.zip(other.entries);
                        both.map(|(one, other)| (one.0.union(other.0), one.1.union(other.1)))
                    }
                    _ => None,
                };
                nowhere(cost.plus(sum(&args)), size, entries)
            }
        }
    }

    /// The call itself: from the least to the most of all that it may turn out to be.
    fn function(&self, call: &Call, args: &[Known<'s>]) -> Estimate {
        let nodes: Vec<Node<'_>> =
            call.args.iter().zip(args).map(|(arg, known)| self.node(arg, known)).collect();
        let mut all: Option<Estimate> = None;
        for overload in &call.overloads {
            let next = (overload.cost.estimate)(&nodes);
            all = Some(match all {
                None => next,
                Some(before) => Estimate {
                    cost: before.cost.union(next.cost),
                    size: match (before.size, next.size) {
                        (Some(one), Some(other)) => Some(one.union(other)),
                        (one, other) => one.or(other),
                    },
                },
            });
        }
        all.unwrap_or(Estimate { cost: Range::fixed(1), size: None })
    }

    fn node<'e>(&self, arg: &'e Expr, known: &Known<'s>) -> Node<'e> {
        let element = match known.place {
            Place::Nowhere => None,
            place => size_at(self.child(place, |shape| shape.elements().map(|shape| &**shape))),
        };
        Node {
            size: known.size.unwrap_or(Range::UNKNOWN),
            element: element.unwrap_or(Range::UNKNOWN),
            ty: &arg.ty,
            literal: arg.as_literal(),
        }
    }

    fn fold(&mut self, fold: &Fold) -> Known<'s> {
        let (range, init) = (self.expr(&fold.range), self.expr(&fold.init));
        let once = range.cost.plus(init.cost);
        let (size, entries, place) = (init.size, init.entries, init.place);
        let outside = self.scopes.len();
        self.scopes.push(Local { name: fold.accu.into(), size, entries, place });
        if fold.accu != crate::ast::ACCUMULATOR {
            // Nothing but a name for a value.
            let result = self.expr(&fold.result);
            self.scopes.truncate(outside);
            return Known { cost: once.plus(result.cost), place: Place::Nowhere, ..result };
        }
        let is_list = matches!(fold.range.ty, Type::List(_));
        let values = (
            range.entries.map(|(_, values)| values),
            self.child(range.place, |shape| shape.elements().map(|s| &**s)),
        );
        let keys =
            (range.entries.map(|(keys, _)| keys), self.child(range.place, |shape| key_shape(shape, is_list)));
        let (first, second) =
            if is_list && fold.second.is_none() { (values, None) } else { (keys, Some(values)) };
        for (name, (size, place)) in
            std::iter::once((&fold.var, first)).chain(fold.second.as_ref().zip(second))
        {
            self.scopes.push(Local { name: name.clone(), size, entries: None, place });
        }
        let (condition, step) = (self.expr(&fold.condition), self.expr(&fold.step));
        self.scopes.truncate(outside + 1);
        let result = self.expr(&fold.result);
        self.scopes.truncate(outside);
        let turns = range.size.unwrap_or(Range::UNKNOWN);
        let cost = once.plus(result.cost).plus(turns.times(step.cost.plus(condition.cost)));
        let gathers = matches!(fold.init.kind, Kind::List(_) | Kind::Map(_));
        let (size, entries) = if gathers { (Some(turns), step.entries) } else { (init.size, None) };
        Known { cost, size, entries, place: Place::Nowhere }
    }

    fn opt_map(&mut self, map: &OptMap) -> Known<'s> {
        let target = self.expr(&map.target);
        self.scopes.push(Local { name: map.var.clone(), size: None, entries: None, place: Place::Nowhere });
        let body = self.expr(&map.body);
        self.scopes.pop();
        // The target is asked whether it has a value, and again for it; the value is bound over an empty list.
        let asked = target.cost.plus(Range::fixed(1));
        let wrapped = if map.flat { 0 } else { 1 };
        let mapped = asked.plus(body.cost).plus(Range::fixed(LIST + wrapped));
        let cost = asked.plus(mapped.union(Range::fixed(1)));
        Known { cost, size: None, entries: None, place: Place::Nowhere }
    }
}

/// With the size that its place or its type says, where nothing else does.
fn sized<'s>(known: Known<'s>, of: &Type) -> Known<'s> {
    let scalar = || of.is_scalar().then_some(Range::fixed(1));
    Known { size: known.size.or_else(|| size_at(known.place)).or_else(scalar), ..known }
}

fn size_at(place: Place<'_>) -> Option<Range> {
    match place {
        Place::At(shape) => Some(Range { min: 0, max: shape.elements_max }),
        _ => None,
    }
}

/// The keys of a map, which can be any text; the places of a list are not declared.
fn key_shape(shape: &Shape, is_list: bool) -> Option<&Shape> {
    let is_map = matches!(shape.kind, crate::shape::Kind::Map { .. });
    (is_map && !is_list).then(|| &**Shape::text())
}

fn sum(all: &[Known<'_>]) -> Range {
    all.iter().fold(Range::fixed(0), |sum, known| sum.plus(known.cost))
}

fn union(sizes: impl Iterator<Item = Option<Range>>) -> Range {
    let known = sizes.map(|size| size.unwrap_or(Range::UNKNOWN));
    known.reduce(Range::union).unwrap_or(Range::fixed(0))
}
