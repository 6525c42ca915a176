//! Walks over expressions: how deep they nest, and which variables they look at, which are the names that no loop of
//! their own gives a meaning to.

use std::collections::BTreeSet;

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr};

/// Names before a dot that make a function's name rather than a value.
const NAMESPACES: [&str; 5] = ["base64", "cel", "lists", "math", "optional"];

/// The free variables of an expression.
pub(super) fn free(expression: &IdedExpr) -> BTreeSet<String> {
    let mut walk = Walk { bound: Vec::new(), free: BTreeSet::new() };
    walk.expression(&expression.expr);
    walk.free.into_iter().map(str::to_string).collect()
}

/// How many expressions stand within each other.
pub(super) fn depth(expression: &IdedExpr) -> usize {
    // A list of what is to be looked at, rather than a function that calls itself: this is to find out what is too deep.
    let mut open = vec![(expression, 1)];
    let mut deepest = 0;
    while let Some((expression, depth)) = open.pop() {
        deepest = deepest.max(depth);
        open.extend(parts(&expression.expr).into_iter().map(|part| (part, depth + 1)));
    }
    deepest
}

/// The expressions that an expression is made of.
fn parts(expression: &Expr) -> Vec<&IdedExpr> {
    match expression {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => Vec::new(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(loops) => {
            vec![&loops.iter_range, &loops.accu_init, &loops.loop_cond, &loops.loop_step, &loops.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| parts_of_entry(&entry.expr)).collect(),
        Expr::Struct(structure) => {
            structure.entries.iter().flat_map(|entry| parts_of_entry(&entry.expr)).collect()
        }
    }
}

fn parts_of_entry(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

struct Walk<'e> {
    bound: Vec<&'e str>,
    free: BTreeSet<&'e str>,
}

impl<'e> Walk<'e> {
    fn expression(&mut self, expression: &'e Expr) {
        match expression {
            Expr::Ident(name) => {
                if !self.bound.contains(&name.as_str()) {
                    self.free.insert(name);
                }
            }
            Expr::Call(call) if is_namespace(call.target.as_deref()) => {
                call.args.iter().for_each(|argument| self.expression(&argument.expr));
            }
            Expr::Comprehension(loops) => {
                self.expression(&loops.iter_range.expr);
                self.expression(&loops.accu_init.expr);
                let outside = self.bound.len();
                self.bound.extend([loops.iter_var.as_str(), loops.accu_var.as_str()]);
                self.bound.extend(loops.iter_var2.as_deref());
                for inner in [&loops.loop_cond, &loops.loop_step, &loops.result] {
                    self.expression(&inner.expr);
                }
                self.bound.truncate(outside);
            }
            other => parts(other).into_iter().for_each(|part| self.expression(&part.expr)),
        }
    }
}

/// Whether a name before a dot is a part of a function's name.
fn is_namespace(target: Option<&IdedExpr>) -> bool {
    matches!(target.map(|target| &target.expr), Some(Expr::Ident(name)) if NAMESPACES.contains(&name.as_str()))
}
