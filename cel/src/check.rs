//! Types: which overloads calls may be, and what is wrong before there is a value.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ast::{Call, Entry, Expr, Fold, Kind};
use crate::error::Issue;
use crate::functions;
use crate::types::{Solver, Type, most_general};
use crate::value::Value;

/// What an expression can speak of.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Vec<(Arc<str>, Type)>,
}

impl Environment {
    /// Nothing but functions and types.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a variable. Its name may have dots, and then stands before the fields of whatever is before the dot.
    #[must_use]
    pub fn with(mut self, name: &str, of: Type) -> Self {
        self.variables.push((name.into(), of));
        self
    }
}

/// Types that have names.
fn named_type(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "string" => Type::String,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "null_type" => Type::Null,
        "type" => Type::Type(Arc::new(Type::Dyn)),
        "optional_type" => Type::optional(Type::Dyn),
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Timestamp" => Type::Timestamp,
        "net.IP" => Type::Opaque("net.IP"),
        "net.CIDR" => Type::Opaque("net.CIDR"),
        "kubernetes.Quantity" => Type::Opaque("kubernetes.Quantity"),
        "kubernetes.URL" => Type::Opaque("kubernetes.URL"),
        "kubernetes.Semver" => Type::Opaque("kubernetes.Semver"),
        "kubernetes.NamedFormat" => Type::Opaque("kubernetes.NamedFormat"),
        _ => return None,
    })
}

/// What a check finds out besides the types that it writes into the tree.
pub(crate) struct Checked {
    pub issues: Vec<Issue>,
    /// The variables of the environment that the expression speaks of.
    pub used: BTreeSet<Arc<str>>,
}

/// Checks a tree.
pub(crate) fn check(expr: &mut Expr, environment: &Environment) -> Checked {
    let mut checker = Checker {
        environment,
        scopes: Vec::new(),
        solver: Solver::default(),
        found: Checked { issues: Vec::new(), used: BTreeSet::new() },
    };
    checker.expr(expr);
    checker.settle(expr);
    if checker.found.issues.is_empty() {
        checker.literals(expr);
    }
    checker.found
}

struct Checker<'e> {
    environment: &'e Environment,
    /// What macros bind, the innermost last.
    scopes: Vec<(Arc<str>, Type)>,
    solver: Solver,
    found: Checked,
}

impl Checker<'_> {
    fn issue(&mut self, at: usize, message: String) -> Type {
        self.found.issues.push(Issue { at, message });
        Type::Error
    }

    fn mismatch(&mut self, at: usize, expected: &Type, found: &Type) -> Type {
        let (expected, found) = (self.solver.settle(expected), self.solver.settle(found));
        self.issue(at, format!("expected type '{expected}' but found '{found}'"))
    }

    fn undeclared(&mut self, at: usize, name: &str) -> Type {
        self.issue(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn expr(&mut self, expr: &mut Expr) {
        let at = expr.at;
        expr.ty = match &mut expr.kind {
            Kind::Literal => {
                expr.constant.as_ref().map_or(Type::Error, |constant| literal_type(&constant.value))
            }
            Kind::Ident(name) => {
                let name = name.clone();
                self.known(&name).unwrap_or_else(|| self.undeclared(at, &name))
            }
            Kind::Select { .. } => self.select(expr),
            Kind::Call(_) => self.call(expr),
            Kind::List(entries) => self.list(entries),
            Kind::Map(entries) => self.map(entries),
            Kind::Fold(fold) => self.fold(fold),
            Kind::OptMap(_) => self.opt_map(expr),
        };
    }

    /// The type of a name, which may have dots.
    fn known(&mut self, name: &str) -> Option<Type> {
        if let Some((_, bound)) = self.scopes.iter().rev().find(|(bound, _)| **bound == *name) {
            return Some(bound.clone());
        }
        if let Some((variable, of)) =
            self.environment.variables.iter().find(|(variable, _)| **variable == *name)
        {
            self.found.used.insert(variable.clone());
            return Some(of.clone());
        }
        named_type(name).map(|named| Type::Type(Arc::new(named)))
    }

    fn select(&mut self, expr: &mut Expr) -> Type {
        if let Some(name) = expr.qualified_name()
            && let Some(known) = self.known(&name)
        {
            expr.kind = Kind::Ident(name.into());
            return known;
        }
        let at = expr.at;
        let Kind::Select { operand, field, test } = &mut expr.kind else { return Type::Error };
        self.expr(operand);
        let of = self.field(at, &operand.ty.clone(), field, false);
        if *test { Type::Bool } else { self.solver.resolve(&of) }
    }

    fn field(&mut self, at: usize, operand: &Type, field: &str, optional: bool) -> Type {
        let operand = self.solver.resolve(operand);
        let (target, is_optional) = match &operand {
            Type::Optional(inner) => (&**inner, true),
            other => (other, false),
        };
        let of = match target {
            Type::Map(parts) => parts.1.clone(),
            Type::Object(object) => match object.shape.field(field) {
                Some(known) => Type::of_shape(&known.shape, &format!("{}.{field}", object.name)),
                None => self.issue(at, format!("undefined field '{field}'")),
            },
            Type::Param(_) => {
                self.solver.admits(&[Type::Dyn], std::slice::from_ref(target));
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                self.issue(at, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        };
        if is_optional || optional { Type::optional(of) } else { of }
    }

    fn call(&mut self, expr: &mut Expr) -> Type {
        let at = expr.at;
        let Kind::Call(call) = &mut expr.kind else { return Type::Error };
        if &*call.function == "_?._" {
            return self.optional_select(at, call);
        }
        if call.member
            && let Some(prefix) = call.args.first().and_then(Expr::qualified_name)
        {
            let name = format!("{prefix}.{}", call.function);
            if !functions::overloads(&name).is_empty() {
                // A function with a dot in its name rather than one of what is before the dot.
                call.function = name.into();
                call.member = false;
                call.args.remove(0);
            }
        }
        call.args.iter_mut().for_each(|arg| self.expr(arg));
        self.overload(at, call)
    }

    fn optional_select(&mut self, at: usize, call: &mut Call) -> Type {
        let [operand, field] = call.args.as_mut_slice() else { return Type::Error };
        self.expr(operand);
        field.ty = Type::String;
        let Some(Value::String(name)) = field.as_literal() else { return Type::Error };
        let name = name.clone();
        self.field(at, &operand.ty.clone(), &name, true)
    }

    /// Finds the overloads that a call may be; what it gives is what the first does, or anything if they differ.
    fn overload(&mut self, at: usize, call: &mut Call) -> Type {
        let all = functions::overloads(&call.function);
        if all.is_empty() {
            return self.undeclared(at, &call.function.clone());
        }
        let given: Vec<Type> = call.args.iter().map(|arg| arg.ty.clone()).collect();
        if matches!(&*call.function, "_&&_" | "_||_") {
            return self.logical(call, &given);
        }
        let mut result: Option<Type> = None;
        for overload in all.iter().filter(|overload| overload.member == call.member) {
            let base = self.solver.fresh_base();
            let wanted: Vec<Type> = overload.args.iter().map(|arg| Solver::instance(arg, base)).collect();
            if !self.solver.admits(&given, &wanted) {
                continue;
            }
            if call.overloads.last().is_none_or(|last| last.row != overload.row) {
                call.overloads.push(overload);
            }
            let gives = self.solver.resolve(&Solver::instance(&overload.result, base));
            result = Some(match result {
                None => gives,
                Some(before) if before == gives => before,
                Some(_) => Type::Dyn,
            });
        }
        result.unwrap_or_else(|| {
            let mut given = given.iter().map(|given| self.solver.settle(given).to_string());
            let target = if call.member { given.next().map(|target| target + ".") } else { None };
            let given = given.collect::<Vec<_>>().join(", ");
            let applied = format!("{}({given})", target.unwrap_or_default());
            self.issue(
                at,
                format!("found no matching overload for '{}' applied to '{applied}'", call.function),
            )
        })
    }

    fn logical(&mut self, call: &mut Call, given: &[Type]) -> Type {
        call.overloads.extend(functions::overloads(&call.function).first());
        let mut result = Type::Bool;
        for (arg, given) in call.args.iter().zip(given) {
            if !self.solver.admits(std::slice::from_ref(given), &[Type::Bool]) {
                result = self.mismatch(arg.at, &Type::Bool, given);
            }
        }
        result
    }

    fn list(&mut self, entries: &mut [Entry]) -> Type {
        let mut items = None;
        for entry in entries {
            let item = self.entry(entry);
            items = Some(self.joined(items, item));
        }
        Type::list(items.unwrap_or_else(|| self.solver.fresh())).bounded()
    }

    fn map(&mut self, entries: &mut [(Expr, Entry)]) -> Type {
        let (mut keys, mut values) = (None, None);
        for (key, entry) in entries {
            self.expr(key);
            keys = Some(self.joined(keys, key.ty.clone()));
            let value = self.entry(entry);
            values = Some(self.joined(values, value));
        }
        let keys = keys.unwrap_or_else(|| self.solver.fresh());
        let values = values.unwrap_or_else(|| self.solver.fresh());
        Type::map(keys, values).bounded()
    }

    fn entry(&mut self, entry: &mut Entry) -> Type {
        self.expr(&mut entry.value);
        let of = entry.value.ty.clone();
        match (&of, entry.optional) {
            (_, false) | (Type::Dyn, true) => of,
            (Type::Optional(inner), true) => (**inner).clone(),
            (_, true) => self.mismatch(entry.value.at, &Type::optional(of.clone()), &of),
        }
    }

    /// The type of what holds both.
    fn joined(&mut self, before: Option<Type>, next: Type) -> Type {
        let Some(before) = before else { return next };
        let fits = self.solver.admits(std::slice::from_ref(&before), std::slice::from_ref(&next));
        if fits { most_general(&before, &next) } else { Type::Dyn }
    }

    fn fold(&mut self, fold: &mut Fold) -> Type {
        self.expr(&mut fold.range);
        self.expr(&mut fold.init);
        let range = self.solver.resolve(&fold.range.ty);
        let (first, second) = match &range {
            Type::List(item) if fold.second.is_some() => (Type::Int, (**item).clone()),
            Type::List(item) => ((**item).clone(), Type::Dyn),
            Type::Map(parts) => (parts.0.clone(), parts.1.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.solver.admits(&[Type::Dyn], std::slice::from_ref(&range));
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let why = "cannot be range of a comprehension (must be list, map, or dynamic)";
                self.issue(fold.range.at, format!("expression of type '{other}' {why}"));
                (Type::Error, Type::Error)
            }
        };
        let outside = self.scopes.len();
        let accumulated = fold.init.ty.clone();
        self.scopes.push((fold.accu.into(), accumulated.clone()));
        self.scopes.push((fold.var.clone(), first));
        self.scopes.extend(fold.second.clone().map(|name| (name, second)));
        self.expr(&mut fold.condition);
        self.wanted(&fold.condition, &Type::Bool);
        self.expr(&mut fold.step);
        self.wanted(&fold.step, &accumulated);
        self.scopes.truncate(outside + 1);
        self.expr(&mut fold.result);
        self.scopes.truncate(outside);
        self.solver.resolve(&fold.result.ty)
    }

    fn wanted(&mut self, expr: &Expr, wanted: &Type) {
        if !self.solver.admits(std::slice::from_ref(wanted), std::slice::from_ref(&expr.ty)) {
            self.mismatch(expr.at, wanted, &expr.ty);
        }
    }

    fn opt_map(&mut self, expr: &mut Expr) -> Type {
        let at = expr.at;
        let Kind::OptMap(map) = &mut expr.kind else { return Type::Error };
        self.expr(&mut map.target);
        let target = self.solver.resolve(&map.target.ty);
        let inner = match &target {
            Type::Optional(inner) => (**inner).clone(),
            Type::Dyn | Type::Error => Type::Dyn,
            Type::Param(_) => {
                let inner = self.solver.fresh();
                self.solver.admits(&[target], &[Type::optional(inner.clone())]);
                inner
            }
            other => {
                self.issue(at, format!("found no matching overload for 'hasValue' applied to '{other}.()'"))
            }
        };
        self.scopes.push((map.var.clone(), inner));
        self.expr(&mut map.body);
        self.scopes.pop();
        let body = self.solver.resolve(&map.body.ty);
        match body {
            _ if !map.flat => Type::optional(body),
            Type::Optional(_) | Type::Dyn | Type::Error | Type::Param(_) => body,
            other => {
                let applied = format!("(bool, {other}, optional_type(dyn))");
                self.issue(at, format!("found no matching overload for '_?_:_' applied to '{applied}'"))
            }
        }
    }

    /// Writes what was found out in the end in place of what was to be found out.
    fn settle(&self, expr: &mut Expr) {
        expr.ty = self.solver.settle(&expr.ty);
        expr.parts_mut().into_iter().for_each(|part| self.settle(part));
    }

    /// Literals that cannot be what functions take them for, and lists and maps of different things, which are only for
    /// `format`.
    fn literals(&mut self, expr: &Expr) {
        let mut mixed = |at: usize, one: &Type, other: &Type| {
            if one != other {
                let message = format!("expected type '{one}' but found '{other}'");
                self.found.issues.push(Issue { at, message });
            }
        };
        match &expr.kind {
            Kind::List(entries) => {
                let different = entries.iter().skip(1).find(|entry| !same(entries, entry));
                if let (Some(first), Some(entry)) = (entries.first(), different) {
                    mixed(entry.value.at, entry_type(first), entry_type(entry));
                }
            }
            Kind::Map(entries) => {
                if let Some((key, value)) = entries.first() {
                    for (next, entry) in entries.iter().skip(1) {
                        mixed(next.at, &key.ty, &next.ty);
                        mixed(entry.value.at, entry_type(value), entry_type(entry));
                    }
                }
            }
            Kind::Call(call) if &*call.function == "format" => return self.pattern(expr.at, call),
            Kind::Call(call) => self.arguments(call),
            _ => {}
        }
        expr.parts().into_iter().for_each(|part| self.literals(part));
    }

    /// A pattern that is spelled out, with values that are.
    fn pattern(&mut self, at: usize, call: &Call) {
        let [pattern, list] = call.args.as_slice() else { return };
        let (Some(Value::String(pattern)), Kind::List(entries)) = (pattern.as_literal(), &list.kind) else {
            return;
        };
        let types: Vec<&Type> = entries.iter().map(|entry| &entry.value.ty).collect();
        if let Some((wrong, why)) = functions::format::misfit(pattern, &types) {
            let wrong = wrong.and_then(|index| entries.get(index));
            self.issue(wrong.map_or(at, |entry| entry.value.at), why);
        }
    }

    fn arguments(&mut self, call: &Call) {
        let argument = call.args.get(usize::from(call.member));
        let Some(value) = argument.and_then(Expr::as_literal) else { return };
        let converts = |name: &str| {
            let meter = crate::meter::Meter::new(u64::MAX, crate::no_patterns());
            let convert = functions::overloads(name).first().map(|overload| overload.run);
            convert.is_some_and(|convert| convert(&meter, vec![value.clone()]).is_ok())
        };
        let is_valid = match (&*call.function, value) {
            (name @ ("duration" | "timestamp"), _) => converts(name),
            ("matches", Value::String(text)) => crate::library::regex::compile(text).is_ok(),
            _ => true,
        };
        if !is_valid {
            let at = argument.map_or(0, |argument| argument.at);
            self.issue(at, format!("invalid {} argument", call.function));
        }
    }
}

fn same(entries: &[Entry], entry: &Entry) -> bool {
    entries.first().is_none_or(|first| entry_type(first) == entry_type(entry))
}

fn entry_type(entry: &Entry) -> &Type {
    match (&entry.value.ty, entry.optional) {
        (Type::Optional(inner), true) => inner,
        (other, _) => other,
    }
}

fn literal_type(value: &Value<'_>) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::String(_) => Type::String,
        Value::Bytes(_) => Type::Bytes,
        _ => Type::Dyn,
    }
}
