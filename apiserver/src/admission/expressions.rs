//! Expressions of webhooks and policies: what they may look at, of which type that is, and what they may cost.
//!
//! The objects of a request can be anything to an expression; the request itself, the namespace and a policy's variables
//! have types, by which an expression is checked when it is written. Nothing is computed that no expression reads.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use api::ServedVersion;
use api::field::Look;
use cel::{CompileError, Environment, Expression, Outcome, Type};
use serde_json::Value;

use super::described::{described, shown};
use super::matching::Subject;
use super::rights::Rights;
use super::types::{namespace_shape, request_shape};

const VARIABLES: &str = "variables.";
const AUTHORIZER: &str = "authorizer";
const OWN_RESOURCE: &str = "authorizer.requestResource";
pub(super) const NAMESPACE: &str = "namespaceObject";
pub(super) const PARAMS: &str = "params";
/// The most that one expression may cost, as upstream.
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

/// What expressions may look at.
#[derive(Clone)]
pub(super) struct Offered(Environment);

impl Offered {
    /// A request; its objects and the parameters, if there are any, are of these types.
    pub fn new(object: Type, params: Option<Type>) -> Self {
        let mut offered = Environment::new()
            .with("object", object.clone())
            .with("oldObject", object)
            .with("request", Type::of(request_shape(), "kubernetes.AdmissionRequest"))
            .with(NAMESPACE, Type::of(namespace_shape(), "kubernetes.Namespace"));
        if let Some(params) = params {
            offered = offered.with(PARAMS, params);
        }
        Self(offered)
    }

    /// And who may do what.
    pub fn with_authorizer(&self) -> Self {
        let authorizer = Type::Opaque("kubernetes.authorization.Authorizer");
        let check = Type::Opaque("kubernetes.authorization.ResourceCheck");
        Self(self.0.clone().with(AUTHORIZER, authorizer).with(OWN_RESOURCE, check))
    }
}

impl Compiled {
    /// The expression in a field of `parent`, which stands at `place`, and has to be of one of these types; of any where
    /// there are none.
    pub fn read(parent: &Value, place: &str, field: &str, offered: &Offered, wanted: &[Type]) -> Self {
        let source = parent.text(field).to_string();
        let expression = match Expression::compile(&source, &offered.0) {
            Err(CompileError::Issues(issues)) => Err(format!("compilation failed: {issues}")),
            Err(CompileError::Constant(why)) => Err(format!("program instantiation failed: {why}")),
            Ok(expression) if wanted.is_empty() || wanted.contains(expression.output()) => Ok(expression),
            Ok(expression) => Err(mismatch(wanted, expression.output())),
        };
        Self { source, place: format!("{place}.{field}"), expression }
    }

    /// Why it is no expression.
    pub fn fault(&self) -> Option<&str> {
        self.expression.as_ref().err().map(String::as_str)
    }

    fn output(&self) -> Type {
        self.expression.as_ref().map_or(Type::Dyn, |expression| expression.output().clone())
    }
}

fn mismatch(wanted: &[Type], got: &Type) -> String {
    let name = |of: &Type| if *of == Type::Null { "null_type".to_string() } else { of.to_string() };
    let names: Vec<String> = wanted.iter().map(name).collect();
    match names.as_slice() {
        [one] => format!("must evaluate to {one} but got {got}"),
        many => format!("must evaluate to one of [{}] but got {got}", many.join(" ")),
    }
}

/// The variables of a policy, each of which may read those before it.
#[derive(Debug, Default)]
pub(super) struct Variables(Vec<(String, Compiled)>);

impl Variables {
    /// Those of a policy's specification.
    pub fn read(spec: &Value, offered: &Offered) -> Self {
        let mut read = Self::default();
        for (index, variable) in spec.items("variables").iter().enumerate() {
            let place = format!("spec.variables[{index}]");
            let compiled = Compiled::read(variable, &place, "expression", &read.offered(offered), &[]);
            read.0.push((variable.text("name").to_string(), compiled));
        }
        read
    }

    /// What is on offer, and they as well.
    pub fn offered(&self, offered: &Offered) -> Offered {
        let add = |all: Environment, (name, variable): &(String, Compiled)| {
            all.with(&format!("{VARIABLES}{name}"), variable.output())
        };
        Offered(self.0.iter().fold(offered.0.clone(), add))
    }

    /// Their expressions.
    pub fn expressions(&self) -> impl Iterator<Item = &Compiled> {
        self.0.iter().map(|(_, expression)| expression)
    }
}

/// What expressions look at while one request is judged.
pub(super) struct Inputs<'a> {
    trees: Vec<(&'static str, Cow<'a, Value>)>,
    rights: Arc<Rights>,
}

impl<'a> Inputs<'a> {
    /// A request and its objects, in the version of the rule that matched. There is no namespace to look at yet.
    pub fn of(subject: &Subject<'a>, version: &ServedVersion, rights: &Arc<Rights>) -> Self {
        let Subject { request, object, .. } = *subject;
        let trees = vec![
            ("object", shown(request, version, object)),
            ("oldObject", shown(request, version, request.old)),
            ("request", Cow::Owned(described(request, version))),
        ];
        Self { trees, rights: rights.clone() }
    }

    /// And this.
    pub fn with(mut self, name: &'static str, tree: Value) -> Self {
        self.trees.push((name, Cow::Owned(tree)));
        self
    }
}

/// The evaluation of expressions that share a budget.
pub(super) struct Evaluation<'v> {
    inputs: &'v Inputs<'v>,
    variables: &'v [(String, Compiled)],
    computed: RefCell<HashMap<&'v str, Outcome<'v>>>,
    budget: Cell<u64>,
}

impl<'v> Evaluation<'v> {
    pub fn new(inputs: &'v Inputs<'_>, variables: Option<&'v Variables>, budget: u64) -> Self {
        let variables = variables.map_or(&[][..], |variables| &variables.0);
        Self { inputs, variables, computed: RefCell::default(), budget: Cell::new(budget) }
    }

    /// What an expression says.
    pub fn of(&self, compiled: &'v Compiled) -> Result<Found, Fault> {
        let expression = match &compiled.expression {
            Ok(expression) => expression,
            Err(why) => return Err(Fault::Failed(format!("compilation error: {why}"))),
        };
        let outcome = self.outcome(expression);
        if self.budget.get() == 0 {
            return Err(Fault::OutOfBudget);
        }
        match outcome {
            Ok(cel::Value::Bool(flag)) => Ok(Found::Bool(flag)),
            Ok(cel::Value::Null) => Ok(Found::Null),
            Ok(other) => Ok(other.as_str().map_or(Found::Other, |text| Found::Text(text.to_string()))),
            Err(fault) => {
                Err(Fault::Failed(format!("expression '{}' resulted in error: {fault}", compiled.source)))
            }
        }
    }

    /// What comes of an expression; what it has cost is taken off the budget, of which nothing is left when it was not
    /// enough.
    fn outcome(&self, expression: &'v Expression) -> Outcome<'v> {
        let evaluated = expression.evaluate(&|name| self.look(name), COST_MAX.min(self.budget.get()));
        self.budget.set(self.budget.get().saturating_sub(evaluated.cost));
        evaluated.outcome
    }

    fn look(&self, name: &str) -> Option<Outcome<'v>> {
        if let Some(name) = name.strip_prefix(VARIABLES) {
            return self.variable(name);
        }
        let rights = &self.inputs.rights;
        let tree = match name {
            AUTHORIZER => return Some(Ok(rights.clone().authorizer(None))),
            OWN_RESOURCE => {
                let request = self.tree("request");
                return Some(Ok(rights.clone().authorizer(request)));
            }
            name => self.tree(name),
        };
        match (name, tree.unwrap_or(&Value::Null)) {
            (_, Value::Null) => Some(Ok(cel::Value::Null)),
            ("request", tree) => Some(cel::Value::view(tree, request_shape())),
            (NAMESPACE, tree) => Some(cel::Value::view(tree, namespace_shape())),
            (_, tree) => Some(Ok(cel::Value::of_json(tree))),
        }
    }

    fn tree(&self, name: &str) -> Option<&'v Value> {
        self.inputs.trees.iter().find(|(known, _)| *known == name).map(|(_, tree)| &**tree)
    }

    fn variable(&self, name: &str) -> Option<Outcome<'v>> {
        if let Some(known) = self.computed.borrow().get(name) {
            return Some(known.clone());
        }
        let (name, compiled) = self.variables.iter().find(|(known, _)| known == name)?;
        let outcome = match &compiled.expression {
            Err(why) => Err(format!("composited variable {name:?} fails to compile: {why}")),
            Ok(expression) => self
                .outcome(expression)
                .map_err(|fault| format!("composited variable {name:?} fails to evaluate: {fault}")),
        };
        let outcome = outcome.map_err(cel::Fault::Failed);
        self.computed.borrow_mut().insert(name, outcome.clone());
        Some(outcome)
    }
}
