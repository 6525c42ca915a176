//! The most that an expression can cost: a walk over the expression that takes every loop to run over all that it can
//! run over, and every function to touch all of its text.
//!
//! A step is about what upstream calls one unit. Loops over what is in the variables are counted by what is in them;
//! what is computed is taken to be as large as it can be, so that nothing that would exceed a limit begins.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue};
use serde_json::Value;

use super::values::escaped;

/// Functions that go through the whole of a text or list.
const THOROUGH: [&str; 20] = [
    "@in",
    "_+_",
    "contains",
    "distinct",
    "find",
    "findAll",
    "flatten",
    "format",
    "indexOf",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "matches",
    "replace",
    "reverse",
    "sort",
    "split",
    "substring",
    "trim",
    "upperAscii",
];
/// How large a value is taken to be of which nothing is known.
const UNKNOWN_SIZE: u64 = 64;

/// The most that evaluating an expression takes, over variables that hold these trees.
pub(super) fn most(expression: &IdedExpr, variables: &[(&str, &Value)]) -> u64 {
    let scope = variables.iter().map(|(name, value)| (*name, Most::of(vec![*value]))).collect();
    let largest = variables.iter().map(|(_, value)| largest(value)).max().unwrap_or_default();
    Walk { scope, largest: largest.max(UNKNOWN_SIZE) }.expression(&expression.expr).steps
}

/// The most elements or bytes of any list, map or text in a tree.
fn largest(value: &Value) -> u64 {
    let inner = match value {
        Value::Array(items) => items.iter().map(largest).max(),
        Value::Object(map) => map.values().map(largest).max(),
        _ => None,
    };
    size(value).max(inner.unwrap_or_default())
}

fn size(value: &Value) -> u64 {
    let count = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        _ => 1,
    };
    count as u64
}

/// What an expression takes, how large its result may be, and which values that are at hand it may be.
#[derive(Clone, Default)]
struct Most<'v> {
    steps: u64,
    size: u64,
    values: Vec<&'v Value>,
}

impl<'v> Most<'v> {
    fn of(values: Vec<&'v Value>) -> Self {
        Self { steps: 1, size: values.iter().map(|value| size(value)).max().unwrap_or_default(), values }
    }

    fn computed(steps: u64, size: u64) -> Self {
        Self { steps, size, values: Vec::new() }
    }

    fn after(mut self, steps: u64) -> Self {
        self.steps = self.steps.saturating_add(steps);
        self
    }
}

struct Walk<'v, 'e> {
    scope: Vec<(&'e str, Most<'v>)>,
    largest: u64,
}

impl<'v, 'e> Walk<'v, 'e> {
    fn expression(&mut self, expression: &'e Expr) -> Most<'v> {
        match expression {
            Expr::Unspecified => Most::default(),
            Expr::Literal(LiteralValue::String(text)) => Most::computed(0, text.inner().len() as u64),
            Expr::Literal(_) => Most::computed(0, 1),
            Expr::Ident(name) => {
                let known = self.scope.iter().rev().find(|(known, _)| known == name);
                known.map_or_else(|| Most::computed(1, self.largest), |(_, most)| most.clone())
            }
            Expr::Select(select) => {
                let operand = self.expression(&select.operand.expr);
                let found = operand.values.iter().filter_map(|value| member(value, &select.field));
                self.known_or_largest(&operand, found.collect())
            }
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(loops) => self.comprehension(loops),
            Expr::List(list) => {
                let parts = self.all(list.elements.iter());
                Most::computed(parts.steps.saturating_add(10), list.elements.len() as u64)
            }
            Expr::Map(map) => self.entries(map.entries.iter().map(|entry| &entry.expr)),
            Expr::Struct(structure) => self.entries(structure.entries.iter().map(|entry| &entry.expr)),
        }
    }

    /// Values that are part of those of the operand; of a computed operand, anything.
    fn known_or_largest(&self, operand: &Most<'v>, found: Vec<&'v Value>) -> Most<'v> {
        if operand.values.is_empty() {
            return Most::computed(operand.steps.saturating_add(1), self.largest);
        }
        Most::of(found).after(operand.steps)
    }

    fn call(&mut self, call: &'e CallExpr) -> Most<'v> {
        let mut parts: Vec<Most<'v>> = Vec::with_capacity(call.args.len() + 1);
        for part in call.target.iter().map(|target| &**target).chain(&call.args) {
            parts.push(self.expression(&part.expr));
        }
        let steps = parts.iter().fold(1_u64, |all, part| all.saturating_add(part.steps));
        let together = parts.iter().fold(0_u64, |all, part| all.saturating_add(part.size));
        let name = call.func_name.as_str();
        match (name, parts.as_slice()) {
            ("_[_]" | "_[?_]", [operand, ..]) => {
                let found: Vec<&'v Value> = operand.values.iter().flat_map(|value| elements(value)).collect();
                self.known_or_largest(&Most { steps, ..operand.clone() }, found)
            }
            ("_?_:_", [_, one, other]) => Most {
                steps,
                size: one.size.max(other.size),
                values: one.values.iter().chain(&other.values).copied().collect(),
            },
            _ if THOROUGH.contains(&name) => Most::computed(steps.saturating_add(together / 10), together),
            // Comparisons end with the shorter side, and what only looks takes no time.
            _ => {
                let shorter = parts.iter().map(|part| part.size).min().unwrap_or_default();
                Most::computed(steps.saturating_add(shorter / 10), together)
            }
        }
    }

    fn comprehension(&mut self, loops: &'e ComprehensionExpr) -> Most<'v> {
        let range = self.expression(&loops.iter_range.expr);
        let init = self.expression(&loops.accu_init.expr);
        let outside = self.scope.len();
        let turns = range.size.max(1);
        let inner: Vec<&'v Value> = range.values.iter().flat_map(|value| elements(value)).collect();
        let is_list = range.values.iter().all(|value| value.is_array());
        let element =
            if inner.is_empty() || !is_list { Most::computed(1, self.largest) } else { Most::of(inner) };
        self.scope.push((&loops.iter_var, element));
        if let Some(second) = &loops.iter_var2 {
            self.scope.push((second, Most::computed(1, self.largest)));
        }
        self.scope.push((&loops.accu_var, Most::computed(1, turns.max(init.size))));
        let each = [&loops.loop_cond, &loops.loop_step].map(|part| self.expression(&part.expr).steps);
        let each = each.iter().fold(1_u64, |all, steps| all.saturating_add(*steps));
        let result = self.expression(&loops.result.expr);
        self.scope.truncate(outside);
        let once =
            [range.steps, init.steps, result.steps].iter().fold(0_u64, |all, s| all.saturating_add(*s));
        Most::computed(once.saturating_add(turns.saturating_mul(each)), result.size.max(turns))
    }

    fn entries(&mut self, entries: impl Iterator<Item = &'e EntryExpr>) -> Most<'v> {
        let mut all = Most::computed(30, 0);
        for entry in entries {
            let parts = match entry {
                EntryExpr::StructField(field) => vec![&field.value],
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
            };
            all = all.after(self.all(parts.into_iter()).steps);
            all.size += 1;
        }
        all
    }

    fn all(&mut self, parts: impl Iterator<Item = &'e IdedExpr>) -> Most<'v> {
        parts.fold(Most::default(), |all, part| {
            let part = self.expression(&part.expr);
            let size = all.size.saturating_add(part.size);
            Most { size, ..all.after(part.steps) }
        })
    }
}

/// A field by the name that expressions give it.
fn member<'v>(value: &'v Value, field: &str) -> Option<&'v Value> {
    let map = value.as_object()?;
    map.get(field).or_else(|| map.iter().find(|(name, _)| escaped(name) == field).map(|(_, value)| value))
}

fn elements(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}
