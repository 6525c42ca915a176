//! Walks trees with values, and counts what it costs.
//!
//! Costs are upstream's. What is looked up in a variable costs one for the variable and one for each step; what is
//! looked up in something computed costs one more. Faults are values to `&&`, `||` and the macros made of them, which
//! do without what they do not need.

use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Call, Expr, Fold, Kind, OptMap};
use crate::functions::format;
use crate::meter::{Fault, Meter, Outcome};
use crate::types::Type;
use crate::value::{Key, Value};

/// What making a list costs.
const LIST: u64 = 10;
/// What making a map costs.
const MAP: u64 = 30;

/// What the variables of an expression are; asked when one is first looked at.
pub type Variables<'a, 'v> = dyn Fn(&str) -> Option<Outcome<'v>> + 'a;

pub(crate) struct Evaluator<'a, 'v> {
    pub meter: &'a Meter<'a>,
    pub variables: &'a Variables<'a, 'v>,
    /// What macros bind, the innermost last.
    pub scopes: Vec<(Arc<str>, Outcome<'v>)>,
}

impl<'v> Evaluator<'_, 'v> {
    pub fn expr(&mut self, expr: &'v Expr) -> Outcome<'v> {
        if let Some(constant) = &expr.constant {
            return Ok(constant.value.clone());
        }
        match &expr.kind {
            Kind::Literal => Err(Fault::NoOverload),
            Kind::Ident(name) => self.ident(name, expr),
            Kind::Select { operand, field, test } => self.select(operand, field, *test),
            Kind::Call(call) => self.call(call),
            Kind::List(_) => self.list(expr),
            Kind::Map(_) => self.map(expr),
            Kind::Fold(fold) => self.fold(fold),
            Kind::OptMap(map) => self.opt_map(map),
        }
    }

    fn ident(&mut self, name: &'v str, expr: &Expr) -> Outcome<'v> {
        if let Some((_, bound)) = self.scopes.iter_mut().rev().find(|(bound, _)| **bound == *name) {
            self.meter.charge(1)?;
            // What is gathered is looked at once in every turn, and moved so that it can grow in place.
            return match bound {
                Ok(Value::List(_) | Value::Map(_)) if name == ACCUMULATOR => {
                    std::mem::replace(bound, Ok(Value::Null))
                }
                other => other.clone(),
            };
        }
        if let Some(value) = (self.variables)(name) {
            self.meter.charge(1)?;
            return value;
        }
        match &expr.ty {
            Type::Type(of) => Ok(Value::Type(crate::value::Text::Shared(of.runtime_name().into()))),
            _ => Err(Fault::failed(format!("no such attribute(s): {name}"))),
        }
    }

    fn select(&mut self, operand: &'v Expr, field: &str, test: bool) -> Outcome<'v> {
        let of = self.expr(operand);
        // A test costs nothing but what it takes to get there.
        let steps = 1 + u64::from(!is_path(operand));
        self.meter.charge(if test { steps - 1 } else { steps })?;
        let of = of?;
        if test {
            return Ok(Value::Bool(looked_up(&of, field)?.is_some()));
        }
        match (&of, looked_up(&of, field)?) {
            (Value::Optional(_), found) => Ok(found.map_or_else(Value::none, Value::some)),
            (_, Some(found)) => Ok(found),
            (_, None) => Err(no_such_key(field)),
        }
    }

    fn call(&mut self, call: &'v Call) -> Outcome<'v> {
        match (&*call.function, call.args.as_slice()) {
            ("_&&_", [one, other]) => self.logical(one, other, false),
            ("_||_", [one, other]) => self.logical(one, other, true),
            ("_?_:_", [condition, yes, no]) => self.conditional(condition, yes, no),
            ("@not_strictly_false", [condition]) => {
                let holds = self.expr(condition);
                self.meter.charge(1)?;
                match holds {
                    Err(Fault::Exceeded) => Err(Fault::Exceeded),
                    holds => Ok(Value::Bool(!matches!(holds, Ok(Value::Bool(false))))),
                }
            }
            ("_[_]", [of, index]) => self.index(of, index, false),
            ("_?._" | "_[?_]", [of, index]) => self.index(of, index, true),
            ("or" | "orValue", [one, other]) => self.or(one, other, &*call.function == "orValue"),
            ("@in", [value, list]) if members_of(list).is_some() => {
                let value = self.expr(value)?;
                let is_member =
                    Key::of(&value).is_some_and(|key| members_of(list).is_some_and(|all| all.contains(&key)));
                Ok(Value::Bool(is_member))
            }
            _ => self.function(call),
        }
    }

    fn function(&mut self, call: &'v Call) -> Outcome<'v> {
        let mut args = Vec::with_capacity(call.args.len());
        let mut fault = None;
        for arg in &call.args {
            match self.expr(arg) {
                Ok(value) => args.push(value),
                Err(Fault::Exceeded) => return Err(Fault::Exceeded),
                Err(why) => fault = fault.or(Some(why)),
            }
        }
        if let Some(why) = fault {
            self.meter.charge(1)?;
            return Err(why);
        }
        self.run(call, args)
    }

    /// Calls what fits the values, which is only now known where types were not.
    fn run(&mut self, call: &'v Call, args: Vec<Value<'v>>) -> Outcome<'v> {
        for value in &args {
            if let Value::String(text) = value {
                self.meter.work(text.len())?;
            }
        }
        let fits = |wanted: &[Type]| wanted.iter().zip(&args).all(|(wanted, value)| is_of(value, wanted));
        let overload = match call.overloads.as_slice() {
            [only] => Some(only),
            several => several.iter().find(|overload| fits(&overload.args)).or_else(|| {
                // One row can have several overloads, of which the first stands for all.
                let rows: Vec<usize> = several.iter().map(|overload| overload.row).collect();
                let all = crate::functions::overloads(&call.function).iter();
                let mut fitting =
                    all.filter(|overload| overload.member == call.member && fits(&overload.args));
                let row = fitting.find(|overload| rows.contains(&overload.row))?.row;
                several.iter().find(|overload| overload.row == row)
            }),
        };
        let names: Vec<&str> = args.iter().map(Value::type_name).collect();
        let mismatch = || Fault::failed(format!("no such overload: {}({})", call.function, names.join(", ")));
        let Some(overload) = overload else {
            self.meter.charge(1)?;
            return Err(mismatch());
        };
        self.meter.charge((overload.cost.actual)(&args))?;
        match (overload.run)(self.meter, args) {
            Err(Fault::NoOverload) => Err(mismatch()),
            outcome => outcome,
        }
    }

    fn logical(&mut self, one: &'v Expr, other: &'v Expr, decisive: bool) -> Outcome<'v> {
        let one = self.expr(one);
        if matches!(one, Ok(Value::Bool(flag)) if flag == decisive) || one == Err(Fault::Exceeded) {
            return one;
        }
        let other = self.expr(other);
        match (one, other) {
            (_, Err(Fault::Exceeded)) => Err(Fault::Exceeded),
            (_, Ok(Value::Bool(flag))) if flag == decisive => Ok(Value::Bool(decisive)),
            (Ok(Value::Bool(_)), Ok(Value::Bool(_))) => Ok(Value::Bool(!decisive)),
            (Err(why), _) | (Ok(Value::Bool(_)), Err(why)) => Err(why),
            _ => Err(Fault::failed("no such overload")),
        }
    }

    fn conditional(&mut self, condition: &'v Expr, yes: &'v Expr, no: &'v Expr) -> Outcome<'v> {
        let branch = match self.expr(condition)? {
            Value::Bool(true) => yes,
            Value::Bool(false) => no,
            _ => return Err(Fault::failed("no such overload")),
        };
        // What is looked up becomes a part of the condition, which upstream does not charge for the variable.
        let before = self.meter.cost();
        let value = self.expr(branch);
        self.meter.refund(before, u64::from(begins_path(branch)));
        value
    }

    fn index(&mut self, of: &'v Expr, index: &'v Expr, optional: bool) -> Outcome<'v> {
        let target = self.expr(of);
        let key = self.expr(index);
        let (target, key) = match (target, key) {
            (Err(Fault::Exceeded), _) | (_, Err(Fault::Exceeded)) => return Err(Fault::Exceeded),
            (target, key) => {
                self.meter.charge(u64::from(!is_path(of)))?;
                (target?, key?)
            }
        };
        let found = element(&target, &key)?;
        // What may be missing and is costs nothing; what is looked up by something that is looked up, only that.
        self.meter.charge(u64::from(!is_path(index) && (found.is_some() || !optional)))?;
        match (&target, found) {
            (Value::Optional(_), found) => Ok(found.map_or_else(Value::none, Value::some)),
            (_, found) if optional => Ok(found.map_or_else(Value::none, Value::some)),
            (_, Some(found)) => Ok(found),
            (Value::List(_), None) => {
                Err(Fault::failed(format!("index out of bounds: {}", format::plain(&key))))
            }
            (_, None) => Err(no_such_key(&format::plain(&key))),
        }
    }

    fn or(&mut self, one: &'v Expr, other: &'v Expr, unwraps: bool) -> Outcome<'v> {
        let one = self.expr(one)?;
        match one {
            Value::Optional(Some(value)) if unwraps => Ok((*value).clone()),
            Value::Optional(None) => self.expr(other),
            Value::Optional(Some(_)) => Ok(one),
            _ => Err(Fault::failed("no such overload")),
        }
    }

    fn list(&mut self, expr: &'v Expr) -> Outcome<'v> {
        let Kind::List(entries) = &expr.kind else { return Err(Fault::NoOverload) };
        let mut items = Vec::with_capacity(entries.len());
        for entry in entries {
            match (self.expr(&entry.value)?, entry.optional) {
                (value, false) => items.push(value),
                (Value::Optional(value), true) => items.extend(value.map(|value| (*value).clone())),
                (value, true) => {
                    let value = format::plain(&value);
                    let why =
                        format!("cannot initialize optional list element from non-optional value {value}");
                    return Err(Fault::failed(why));
                }
            }
        }
        self.meter.charge(LIST)?;
        Ok(Value::list(items))
    }

    fn map(&mut self, expr: &'v Expr) -> Outcome<'v> {
        let Kind::Map(entries) = &expr.kind else { return Err(Fault::NoOverload) };
        let mut made = Vec::with_capacity(entries.len());
        for (key, entry) in entries {
            let key = self.expr(key)?;
            let value = match (self.expr(&entry.value)?, entry.optional) {
                (value, false) => value,
                (Value::Optional(None), true) => continue,
                (Value::Optional(Some(value)), true) => (*value).clone(),
                (value, true) => {
                    let (key, value) = (format::plain(&key), format::plain(&value));
                    let why =
                        format!("cannot initialize optional entry '{key}' from non-optional value {value}");
                    return Err(Fault::failed(why));
                }
            };
            made.push((key, value));
        }
        self.meter.charge(MAP)?;
        crate::value::made(made)
    }

    fn fold(&mut self, fold: &'v Fold) -> Outcome<'v> {
        let range = self.expr(&fold.range)?;
        let init = self.expr(&fold.init);
        if init == Err(Fault::Exceeded) {
            return Err(Fault::Exceeded);
        }
        let outside = self.scopes.len();
        self.scopes.push((fold.accu.into(), init));
        let turned = self.turns(fold, &range, outside);
        let result = turned.and_then(|()| self.expr(&fold.result));
        self.scopes.truncate(outside);
        result
    }

    fn turns(&mut self, fold: &'v Fold, range: &Value<'v>, outside: usize) -> Result<(), Fault> {
        let keys = match range {
            Value::Map(map) => map.keys(),
            Value::List(_) => Vec::new(),
            other => {
                let name = other.type_name();
                return Err(Fault::failed(format!("got '{name}', expected iterable type")));
            }
        };
        let count = if let Value::List(list) = range { list.len() } else { keys.len() };
        for turn in 0..count {
            let (first, second) = match range {
                Value::List(list) => (Ok(Value::Int(turn as i64)), list.get(turn)),
                Value::Map(map) => {
                    let key = keys.get(turn).cloned().unwrap_or(Value::Null);
                    let value = Key::of(&key).filter(|_| fold.second.is_some()).and_then(|key| map.get(&key));
                    (Ok(key), value)
                }
                _ => break,
            };
            let second = second.unwrap_or(Ok(Value::Null));
            match (&fold.second, range) {
                (Some(name), _) => {
                    self.scopes.push((fold.var.clone(), first));
                    self.scopes.push((name.clone(), second));
                }
                (None, Value::List(_)) => self.scopes.push((fold.var.clone(), second)),
                (None, _) => self.scopes.push((fold.var.clone(), first)),
            }
            let goes_on = self.expr(&fold.condition)?.as_bool().unwrap_or(true);
            let step = if goes_on { Some(self.expr(&fold.step)) } else { None };
            self.scopes.truncate(outside + 1);
            match (step, self.scopes.last_mut()) {
                (Some(Err(Fault::Exceeded)), _) => return Err(Fault::Exceeded),
                (Some(next), Some((_, accumulated))) => *accumulated = next,
                _ => break,
            }
        }
        Ok(())
    }

    fn opt_map(&mut self, map: &'v OptMap) -> Outcome<'v> {
        let before = self.meter.cost();
        let target = self.expr(&map.target);
        let spent = self.meter.cost() - before;
        self.meter.charge(1)?;
        let value = match target? {
            Value::Optional(Some(value)) => (*value).clone(),
            Value::Optional(None) => {
                self.meter.charge(1)?;
                return Ok(Value::none());
            }
            _ => return Err(Fault::failed("no such overload")),
        };
        self.meter.charge(spent.saturating_add(1))?;
        self.scopes.push((map.var.clone(), Ok(value)));
        let result = self.expr(&map.body);
        self.scopes.pop();
        let result = result?;
        if map.flat {
            return Ok(result);
        }
        self.meter.charge(1)?;
        Ok(Value::some(result))
    }
}

impl PartialEq for Value<'_> {
    /// For telling outcomes apart; the language's own equality counts what it costs.
    fn eq(&self, other: &Self) -> bool {
        let meter = Meter::new(u64::MAX, crate::no_patterns());
        crate::compare::equal(&meter, self, other).unwrap_or(false)
    }
}

fn no_such_key(key: &str) -> Fault {
    Fault::failed(format!("no such key: {key}"))
}

fn members_of(list: &Expr) -> Option<&std::collections::HashSet<Key<'static>>> {
    list.constant.as_ref()?.members.as_ref()
}

/// Whether something is looked up by it, rather than computed.
fn is_path(expr: &Expr) -> bool {
    match &expr.kind {
        _ if expr.constant.is_some() => false,
        Kind::Ident(_) => !matches!(expr.ty, Type::Type(_)),
        Kind::Select { .. } => true,
        Kind::Call(call) => matches!(&*call.function, "_[_]" | "_[?_]" | "_?._" | "_?_:_"),
        _ => false,
    }
}

/// Whether its first step is charged as that of a variable is.
fn begins_path(expr: &Expr) -> bool {
    match &expr.kind {
        _ if expr.constant.is_some() => false,
        Kind::Ident(_) => is_path(expr),
        Kind::Select { operand, test: false, .. } => !is_path(operand) || begins_path(operand),
        Kind::Call(call) if &*call.function != "_?_:_" && is_path(expr) => {
            call.args.first().is_some_and(|of| !is_path(of) || begins_path(of))
        }
        _ => false,
    }
}

/// A field or an entry; of an optional, that of its value.
fn looked_up<'v>(of: &Value<'v>, field: &str) -> Result<Option<Value<'v>>, Fault> {
    match of {
        Value::Map(map) => map.field(field).transpose(),
        Value::Optional(Some(value)) => looked_up(value, field),
        Value::Optional(None) => Ok(None),
        _ => Err(no_such_key(field)),
    }
}

fn element<'v>(of: &Value<'v>, key: &Value<'v>) -> Result<Option<Value<'v>>, Fault> {
    match of {
        Value::Map(map) => Key::of(key).and_then(|key| map.get(&key)).transpose(),
        Value::List(list) => {
            let Some(Key::Int(at)) = Key::of(key) else {
                return Err(Fault::failed(format!("unsupported index type '{}' in list", key.type_name())));
            };
            usize::try_from(at).ok().and_then(|at| list.get(at)).transpose()
        }
        Value::Optional(Some(value)) => element(value, key),
        Value::Optional(None) => Ok(None),
        other => match key {
            Value::String(name) => Err(no_such_key(name)),
            _ => Err(Fault::failed(format!("invalid qualifier type for '{}'", other.type_name()))),
        },
    }
}

/// Whether a value may be of a type, as far as its outside shows.
fn is_of(value: &Value<'_>, wanted: &Type) -> bool {
    match wanted {
        Type::Dyn | Type::Param(_) => true,
        Type::List(inner) => match value {
            Value::List(list) => {
                list.get(0).is_none_or(|first| first.is_ok_and(|first| is_of(&first, inner)))
            }
            _ => false,
        },
        _ => value.type_name() == wanted.runtime_name(),
    }
}

impl Call {
    /// Whether it turns one literal into another type, so that it can be done once.
    pub(crate) fn is_conversion(&self) -> bool {
        let is_one = matches!(
            &*self.function,
            "bool"
                | "bytes"
                | "double"
                | "duration"
                | "dyn"
                | "int"
                | "string"
                | "timestamp"
                | "type"
                | "uint"
        );
        is_one && self.args.len() == 1 && self.args.iter().all(|arg| arg.constant.is_some())
    }
}
