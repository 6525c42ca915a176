//! The most that an expression can cost: a walk over the expression that takes every loop to run over all there is.
//!
//! A step is about what upstream calls one unit. The bound is generous where values are built and exact where they are
//! only looked at, so that nothing that would exceed a limit begins.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr};
use serde_json::Value;

/// How large the largest of the values is that an expression looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Elements of a list or map.
    pub elements: u64,
    /// Bytes of a text.
    pub bytes: u64,
}

impl Sizes {
    /// The sizes in a tree.
    pub fn of(value: &Value) -> Self {
        let count = |length: usize| length as u64;
        match value {
            Value::String(text) => Self { elements: 0, bytes: count(text.len()) },
            Value::Array(items) => {
                let inner = items.iter().map(Self::of).fold(Self::default(), Self::or);
                inner.or(Self { elements: count(items.len()), bytes: 0 })
            }
            Value::Object(map) => {
                let keys = map.keys().map(|key| count(key.len())).max().unwrap_or_default();
                let inner = map.values().map(Self::of).fold(Self::default(), Self::or);
                inner.or(Self { elements: count(map.len()), bytes: keys })
            }
            _ => Self::default(),
        }
    }

    /// The larger of both.
    pub fn or(self, other: Self) -> Self {
        Self { elements: self.elements.max(other.elements), bytes: self.bytes.max(other.bytes) }
    }
}

/// The most that evaluating an expression takes.
pub(super) fn most(expression: &IdedExpr, sizes: Sizes) -> u64 {
    walk(&expression.expr, sizes).steps
}

/// What an expression takes, and how many elements or bytes its result may have.
#[derive(Clone, Copy)]
struct Most {
    steps: u64,
    size: u64,
}

fn walk(expression: &Expr, sizes: Sizes) -> Most {
    let at_hand = sizes.elements.max(sizes.bytes);
    match expression {
        Expr::Unspecified | Expr::Literal(_) => Most { steps: 0, size: 64 },
        Expr::Ident(_) => Most { steps: 1, size: at_hand },
        Expr::Select(select) => {
            Most { steps: walk(&select.operand.expr, sizes).steps.saturating_add(1), size: at_hand }
        }
        Expr::Call(call) => {
            let parts = call.target.iter().map(|target| &**target).chain(&call.args);
            let all = sum(parts.map(|part| walk(&part.expr, sizes)));
            // A tenth of a step for every byte or element that is touched.
            Most { steps: all.steps.saturating_add(1 + all.size / 10), size: all.size }
        }
        Expr::Comprehension(loops) => {
            let range = walk(&loops.iter_range.expr, sizes);
            let [init, condition, step, result] =
                [&loops.accu_init, &loops.loop_cond, &loops.loop_step, &loops.result]
                    .map(|e| walk(&e.expr, sizes));
            let turns = range.size.max(1);
            let each = condition.steps.saturating_add(step.steps).saturating_add(1);
            let steps =
                sum([range, init, result].into_iter()).steps.saturating_add(turns.saturating_mul(each));
            Most { steps, size: range.size.max(init.size) }
        }
        Expr::List(list) => {
            let all = sum(list.elements.iter().map(|e| walk(&e.expr, sizes)));
            Most { steps: all.steps.saturating_add(10), size: (list.elements.len() as u64).max(at_hand) }
        }
        Expr::Map(map) => entries(map.entries.iter().map(|entry| &entry.expr), sizes),
        Expr::Struct(structure) => entries(structure.entries.iter().map(|entry| &entry.expr), sizes),
    }
}

fn entries<'a>(entries: impl Iterator<Item = &'a EntryExpr>, sizes: Sizes) -> Most {
    let all = sum(entries.map(|entry| match entry {
        EntryExpr::StructField(field) => walk(&field.value.expr, sizes),
        EntryExpr::MapEntry(entry) => {
            sum([&entry.key, &entry.value].into_iter().map(|part| walk(&part.expr, sizes)))
        }
    }));
    Most { steps: all.steps.saturating_add(30), size: all.size }
}

fn sum(parts: impl Iterator<Item = Most>) -> Most {
    parts.fold(Most { steps: 0, size: 0 }, |all, part| Most {
        steps: all.steps.saturating_add(part.steps),
        size: all.size.saturating_add(part.size),
    })
}
