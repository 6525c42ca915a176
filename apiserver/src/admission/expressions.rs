//! Expressions of webhooks and policies: the one place where admission meets the expression language.
//!
//! What they see are plain trees, in which every field goes by its own name. What an expression does not look at is not
//! turned into a value; a variable of a policy is computed when the first expression that mentions it is evaluated, and
//! one that fails is missed only by who reads it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

use api::ServedVersion;
use api::field::Look;
use cel::{Environment, Expression, Type};
use serde_json::Value;

use super::described::{described, shown};
use super::matching::Subject;

/// What is on offer to every expression.
const ALWAYS: [&str; 4] = ["object", "oldObject", "request", NAMESPACE];
pub(super) const NAMESPACE: &str = "namespaceObject";
pub(super) const PARAMS: &str = "params";
const VARIABLES: &str = "variables";
/// The most that one evaluation may cost, as upstream.
const COST_MAX: u64 = 1_000_000;
/// The most that the conditions of a webhook or policy may cost together, as upstream.
pub(super) const BUDGET_OF_CONDITIONS: u64 = 2_500_000;
/// The most that the validations of a policy may cost together, as upstream.
pub(super) const BUDGET: u64 = 10_000_000;

/// An expression, or why it is none.
#[derive(Debug)]
pub(super) struct Compiled {
    pub source: String,
    /// Where it stands, as field errors write it.
    pub place: String,
    expression: Result<Expression, String>,
}

/// What an expression says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Bool(bool),
    Text(String),
    Null,
    Other,
}

/// Why an expression says nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// This one failed.
    #[error("{0}")]
    Failed(String),
    /// There is nothing left to spend, for this one and those after it.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    OutOfBudget,
}

/// What expressions may look at beside what they always may.
#[derive(Clone, Copy)]
pub(super) struct Offered {
    pub params: bool,
    pub variables: bool,
}

impl Compiled {
    /// The expression in a field of `parent`, whose fields stand behind `place`.
    pub fn read(parent: &Value, place: &str, field: &str, offered: Offered) -> Self {
        let source = parent.text(field).to_string();
        let mut names = ALWAYS.to_vec();
        names.extend(offered.params.then_some(PARAMS));
        names.extend(offered.variables.then_some(VARIABLES));
        let environment =
            names.into_iter().fold(Environment::new(), |environment, name| environment.with(name, Type::Dyn));
        let expression = Expression::compile(&source, &environment);
        let expression = expression.map_err(|error| format!("compilation failed: {error}"));
        Self { source, place: format!("{place}.{field}"), expression }
    }

    /// Why it is no expression.
    pub fn fault(&self) -> Option<&str> {
        self.expression.as_ref().err().map(String::as_str)
    }

    /// The variables that it mentions: at least those that it reads.
    fn mentions(&self, name: &str) -> bool {
        self.source.match_indices(name).any(|(at, _)| {
            let before = self.source.get(..at).unwrap_or_default().trim_end();
            before.ends_with('.') || before.ends_with('?') || before.ends_with(['"', '\''])
        })
    }
}

/// The variables of a policy, each of which may read those before it.
#[derive(Debug, Default)]
pub(super) struct Variables(Vec<(String, Compiled)>);

impl Variables {
    /// Those of a policy's specification.
    pub fn read(spec: &Value, has_params: bool) -> Self {
        let offered = Offered { params: has_params, variables: true };
        let read = |(index, variable): (usize, &Value)| {
            let place = format!("spec.variables[{index}]");
            (variable.text("name").to_string(), Compiled::read(variable, &place, "expression", offered))
        };
        Self(spec.items("variables").iter().enumerate().map(read).collect())
    }

    /// Their expressions.
    pub fn expressions(&self) -> impl Iterator<Item = &Compiled> {
        self.0.iter().map(|(_, expression)| expression)
    }
}

/// What expressions look at while one request is judged.
pub(super) struct Inputs<'a> {
    trees: Vec<(&'static str, Cow<'a, Value>)>,
    variables: Option<&'a Variables>,
    computed: RefCell<HashMap<&'a str, Result<cel::Value<'static>, String>>>,
}

impl<'a> Inputs<'a> {
    /// A request and its objects, in the version of the rule that matched. There is no namespace to look at yet.
    pub fn of(subject: &Subject<'a>, version: &ServedVersion) -> Self {
        let Subject { request, object, .. } = *subject;
        let mut inputs = Self { trees: Vec::new(), variables: None, computed: RefCell::default() };
        inputs.put("object", shown(request, version, object));
        inputs.put("oldObject", shown(request, version, request.old));
        inputs.put("request", Cow::Owned(described(request, version)));
        inputs.with(NAMESPACE, Value::Null)
    }

    /// And this.
    pub fn with(mut self, name: &'static str, tree: Value) -> Self {
        self.trees.retain(|(known, _)| *known != name);
        self.put(name, Cow::Owned(tree));
        self
    }

    fn put(&mut self, name: &'static str, tree: Cow<'a, Value>) {
        self.trees.push((name, tree));
    }

    /// And a policy's variables, which are computed from them.
    pub fn with_variables(self, variables: &'a Variables) -> Self {
        Self { variables: Some(variables), ..self }
    }

    /// What an expression says; what that may cost is taken off the budget.
    pub fn evaluate(&self, compiled: &Compiled, budget: &mut u64) -> Result<Found, Fault> {
        let said = self.value_of(compiled, budget).map_err(|fault| match fault {
            Fault::Failed(why) if compiled.fault().is_none() => {
                Fault::Failed(format!("expression '{}' resulted in error: {why}", compiled.source))
            }
            other => other,
        })?;
        Ok(match said {
            cel::Value::Bool(flag) => Found::Bool(flag),
            cel::Value::String(text) => Found::Text(text.to_string()),
            cel::Value::Null => Found::Null,
            _ => Found::Other,
        })
    }

    fn value_of<'v>(&'v self, compiled: &'v Compiled, budget: &mut u64) -> Result<cel::Value<'v>, Fault> {
        let expression =
            compiled.expression.as_ref().map_err(|why| Fault::Failed(format!("compilation error: {why}")))?;
        let variables =
            expression.uses(VARIABLES).then(|| self.variables_for(compiled, budget)).transpose()?;
        let seen = |name: &str| match name {
            VARIABLES => variables.clone().map(Ok),
            _ => {
                let (_, tree) = self.trees.iter().find(|(known, _)| *known == name)?;
                Some(Ok(cel::Value::of_json(tree)))
            }
        };
        let evaluated = expression.evaluate(&seen, COST_MAX);
        *budget = budget.checked_sub(evaluated.cost).ok_or(Fault::OutOfBudget)?;
        evaluated.outcome.map_err(|fault| match fault {
            cel::Fault::Exceeded => Fault::OutOfBudget,
            other => Fault::Failed(self.cause(compiled, other.to_string())),
        })
    }

    /// The variables that an expression mentions, and what those need.
    fn variables_for(&self, compiled: &Compiled, budget: &mut u64) -> Result<cel::Value<'static>, Fault> {
        let mut known_by_name = Vec::new();
        for (name, variable) in self.mentioned(compiled) {
            let known = self.computed.borrow().get(name).cloned();
            let value = match known {
                Some(value) => value,
                None => {
                    let value = match self.value_of(variable, budget) {
                        Err(Fault::OutOfBudget) => return Err(Fault::OutOfBudget),
                        other => other.and_then(owned).map_err(|fault| fault.to_string()),
                    };
                    self.computed.borrow_mut().insert(name, value.clone());
                    value
                }
            };
            if let Ok(value) = value {
                known_by_name.push((name, value));
            }
        }
        Ok(cel::Value::fields(known_by_name))
    }

    /// The variables that an expression mentions; to a variable, only those before it exist.
    fn mentioned(&self, compiled: &Compiled) -> Vec<(&'a str, &'a Compiled)> {
        let all = self.variables.map_or(&[][..], |variables| &variables.0);
        let earlier = all.iter().take_while(|(_, variable)| !std::ptr::eq(variable, compiled));
        let mentioned = earlier.filter(|(name, _)| compiled.mentions(name));
        mentioned.map(|(name, variable)| (name.as_str(), variable)).collect()
    }

    /// Why an expression failed: because a variable that it reads did, if one did.
    fn cause(&self, compiled: &Compiled, why: String) -> String {
        let computed = self.computed.borrow();
        let failed =
            |(name, _): (&'a str, _)| computed.get(name)?.as_ref().err().map(|why| (name, why.clone()));
        self.mentioned(compiled)
            .into_iter()
            .find_map(failed)
            .map_or(why, |(name, why)| format!("composited variable {name:?} fails to evaluate: {why}"))
    }
}

/// A value that stays when what it was computed from does not.
fn owned(value: cel::Value<'_>) -> Result<cel::Value<'static>, Fault> {
    value.into_owned().map_err(|fault| Fault::Failed(fault.to_string()))
}
