//! Rules in CEL that a definition's schemas hold (`x-kubernetes-validations`), and what they say of objects.
//!
//! Guarantees: rules that look at the old state are asked only where there is one to compare with; rules that do not
//! are not asked again of what has not changed, so that a new rule does not stand in the way of other changes; all
//! rules of one object together cost no more than upstream allows.
//! Deliberately absent: upstream's warnings about rules that are let pass because nothing has changed.

mod compile;
mod faults;

use api::field::{Errors, FieldError, Path, PathExt};
use cel::{Fault, Variables};
use schema::Schema;
use serde_json::Value;

use compile::{Compiled, Node};
pub(crate) use faults::faults_of;

/// The most that one evaluation may cost, as upstream.
const COST_MAX: u64 = 1_000_000;
/// The most that all rules of one object may cost.
const BUDGET: u64 = 10_000_000;
/// The longest message that an expression may make.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;
const THIS: &str = "self";
const OLD: &str = "oldSelf";

/// The compiled rules of a schema.
pub(super) struct Rules {
    root: Node,
}

impl Rules {
    /// Compiles the rules of a schema; `None` when it has none.
    pub fn of(schema: &Schema) -> Option<Self> {
        Node::of(schema, schema, true).map(|root| Self { root })
    }

    /// What the rules have against an object, or against what it has become.
    pub fn check(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut walk = Walk { errors: Errors::new(), budget: Some(BUDGET) };
        walk.node(&self.root, &Path::ROOT, &Sight { new, old, within: None, by_itself: true });
        walk.errors.into_vec()
    }
}

/// A value as it is and as it was.
#[derive(Clone, Copy)]
struct Sight<'v> {
    new: &'v Value,
    /// `None` where there is nothing to compare with.
    old: Option<&'v Value>,
    /// The closest value around it that was there before, and what it was.
    within: Option<(&'v Value, &'v Value)>,
    /// Whether rules go by what the value itself was. Those below `allOf` go by what is around, as upstream has it.
    by_itself: bool,
}

impl<'v> Sight<'v> {
    fn part(&self, new: &'v Value, old: Option<&'v Value>) -> Self {
        let around = self.old.filter(|_| self.by_itself).map(|old| (self.new, old));
        Self {
            new,
            old: old.filter(|old| !old.is_null()),
            within: around.or(self.within),
            by_itself: self.by_itself,
        }
    }

    fn is_unchanged(&self) -> bool {
        match (self.old, self.within) {
            (Some(old), _) if self.by_itself => self.new == old,
            (_, Some((new, old))) => new == old,
            (_, None) => false,
        }
    }
}

struct Walk {
    errors: Errors,
    /// What may still be spent; `None` when nothing more is to be asked.
    budget: Option<u64>,
}

impl Walk {
    fn node(&mut self, node: &Node, path: &Path, sight: &Sight<'_>) {
        if sight.new.is_null() {
            return;
        }
        for rule in &node.rules {
            if self.budget.is_none() {
                return;
            }
            self.rule(node, path, rule, sight);
        }
        for other in &node.all_of {
            self.node(other, path, &Sight { by_itself: false, ..*sight });
        }
        match sight.new {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let old = sight.old.and_then(|old| old.get(name));
                    if let Some((_, below)) = node.fields.iter().find(|(field, _)| **field == **name) {
                        self.node(below, &path.field(name), &sight.part(value, old));
                    } else if let Some(below) = node.elements.as_deref() {
                        self.node(below, &path.key(name), &sight.part(value, old));
                    }
                }
            }
            Value::Array(items) => {
                let Some(below) = node.elements.as_deref() else { return };
                for (index, item) in items.iter().enumerate() {
                    let old = sight.old.and_then(|old| node.counterpart(item, old));
                    self.node(below, &path.index(index), &sight.part(item, old));
                }
            }
            _ => {}
        }
    }

    fn rule(&mut self, node: &Node, path: &Path, rule: &Compiled, sight: &Sight<'_>) {
        let expression = match &rule.expression {
            None => return,
            Some(Ok(expression)) => expression,
            Some(Err(why)) => {
                return self.errors.invalid(path, node.type_name, format!("rule compile error: {why}"));
            }
        };
        let optional = rule.source.optional_old_self == Some(true);
        let is_transition = expression.uses(OLD);
        if is_transition && !optional && sight.old.is_none() || !is_transition && sight.is_unchanged() {
            return;
        }
        let variables = |name: &str| match (name, sight.old) {
            (THIS, _) => Some(cel::Value::view(sight.new, &node.shape)),
            (OLD, Some(old)) if optional => Some(cel::Value::view(old, &node.shape).map(cel::Value::some)),
            (OLD, Some(old)) => Some(cel::Value::view(old, &node.shape)),
            (OLD, None) if optional => Some(Ok(cel::Value::none())),
            _ => None,
        };
        let evaluated = expression.evaluate(&variables, COST_MAX);
        if !self.spend(evaluated.cost) {
            let why = "validation failed due to running out of cost budget, no further validation rules will be run";
            return self.errors.invalid(path, node.type_name, why);
        }
        let told = rule.told();
        let why = match evaluated.outcome {
            Ok(cel::Value::Bool(true)) => return,
            Ok(_) => return self.refuse(node, path, rule, sight.new, &variables),
            Err(Fault::Exceeded) => {
                self.budget = None;
                format!(
                    "'{}': no further validation rules will be run due to call cost exceeds limit for rule: {told}",
                    Fault::Exceeded
                )
            }
            Err(fault) if fault.to_string().starts_with("no such overload") => format!(
                "'{fault}': call arguments did not match a supported operator, function or macro signature for rule: {told}"
            ),
            Err(fault) => format!("{fault} evaluating rule: {told}"),
        };
        self.errors.invalid(path, node.type_name, why);
    }

    /// Takes a cost out of the budget, unless it is more than is left.
    fn spend(&mut self, cost: u64) -> bool {
        self.budget = self.budget.and_then(|budget| budget.checked_sub(cost));
        self.budget.is_some()
    }

    fn refuse<'v>(
        &mut self,
        node: &Node,
        path: &Path,
        rule: &'v Compiled,
        value: &Value,
        variables: &Variables<'_, 'v>,
    ) {
        let named = rule.field_path.as_deref().map(|below| path.field(below));
        let path = named.as_ref().unwrap_or(path);
        let said = match self.message(rule, variables) {
            Ok(said) => said,
            Err(why) => {
                self.budget = None;
                return self.errors.invalid(path, node.type_name, why);
            }
        };
        match rule.source.reason.as_str() {
            "FieldValueForbidden" => self.errors.forbidden(path, &said),
            "FieldValueRequired" => self.errors.required(path, &said),
            "FieldValueDuplicate" => self.errors.duplicate(path, value.clone()),
            _ if matches!(node.type_name, "object" | "array") => self.errors.invalid_unnamed(path, said),
            _ => self.errors.invalid(path, value.clone(), said),
        }
    }

    /// What an expression says is wrong, or else the rule's message. Fails where nothing more may be asked.
    fn message<'v>(&mut self, rule: &'v Compiled, variables: &Variables<'_, 'v>) -> Result<String, String> {
        let Some(Ok(expression)) = &rule.message else { return Ok(rule.message_or_rule()) };
        let evaluated = expression.evaluate(variables, COST_MAX);
        if !self.spend(evaluated.cost) {
            let why = "messageExpression evaluation failed due to running out of cost budget";
            return Err(format!("{why}, no further validation rules will be run"));
        }
        match evaluated.outcome {
            Err(Fault::Exceeded) => {
                let why = "no further validation rules will be run due to call cost exceeds limit";
                Err(format!("{why} for messageExpression: {:?}", rule.source.message_expression))
            }
            Ok(cel::Value::String(text)) => {
                let said = text.trim();
                let is_message = !said.is_empty() && said.len() <= MESSAGE_BYTES_MAX && !said.contains('\n');
                Ok(if is_message { said.to_string() } else { rule.message_or_rule() })
            }
            _ => Ok(rule.message_or_rule()),
        }
    }
}
