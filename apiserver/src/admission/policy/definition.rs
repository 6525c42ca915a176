//! A policy, compiled, and what it says of a request.

use std::fmt;
use std::time::{Duration, Instant};

use api::ServedVersion;
use api::field::Look;
use cel::Type;
use serde_json::Value;

use crate::admission::conditions::Conditions;
use crate::admission::expressions::{BUDGET, Compiled, Evaluation, Fault, Found, Inputs, Offered, Variables};
use crate::admission::matching::Matching;

/// Messages that are longer give way to the next best one.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;
/// Of an expression that could not be evaluated. Those that do not compile are refused when they are written.
pub(super) const INVALID: &str = "invalid_error";

/// A policy.
pub(in crate::admission) struct Policy {
    pub name: String,
    pub matching: Matching,
    /// Whether a request goes on that cannot be judged.
    pub is_lenient: bool,
    pub(super) parameter: Option<ParameterKind>,
    conditions: Conditions,
    variables: Variables,
    validations: Vec<Validation>,
    annotations: Vec<(String, Compiled)>,
}

/// The kind of a policy's parameters.
pub(super) struct ParameterKind {
    pub version: ServedVersion,
    pub kind: String,
}

struct Validation {
    expression: Compiled,
    message: String,
    message_expression: Option<Compiled>,
    reason: String,
}

/// What a policy says of a request.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// What a binding's actions are about.
    pub failures: Vec<Failure>,
    /// For the audit log.
    pub annotations: Vec<(String, String)>,
    /// What is refused whatever a binding's actions are.
    pub errors: Vec<String>,
    /// What could not be evaluated, of a policy that goes on then.
    pub passed_over: Vec<Finding>,
}

/// What is counted of a validation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Finding {
    /// As [`super::checks::Outcome::error`].
    pub error: &'static str,
    pub elapsed: Duration,
}

/// A validation that does not hold, or that could not be evaluated.
#[derive(Debug)]
pub(super) struct Failure {
    pub index: usize,
    pub message: String,
    /// Empty where it could not be evaluated.
    pub reason: String,
    pub finding: Finding,
}

impl Policy {
    pub fn read(policy: &Value) -> Self {
        Self::read_as(policy, Type::Dyn, Type::Dyn)
    }

    /// The policy for objects of one type and parameters of another.
    pub(super) fn read_as(policy: &Value, object: Type, params: Type) -> Self {
        let spec = policy.get("spec").unwrap_or(&Value::Null);
        let parameter = spec.at("paramKind").map(ParameterKind::read);
        let request = Offered::new(object, parameter.is_some().then_some(params));
        let conditional = request.with_authorizer();
        let variables = Variables::read(spec, &conditional);
        let (offered, told) = (variables.offered(&conditional), variables.offered(&request));
        let validation = |(index, said): (usize, &Value)| {
            let place = format!("spec.validations[{index}]");
            let message_expression = Some(said).filter(|said| !said.text("messageExpression").is_empty());
            Validation {
                expression: Compiled::read(said, &place, "expression", &offered, &[Type::Bool]),
                message: said.text("message").trim().to_string(),
                message_expression: message_expression
                    .map(|said| Compiled::read(said, &place, "messageExpression", &told, &[Type::String])),
                reason: said.text("reason").to_string(),
            }
        };
        let annotation = |(index, said): (usize, &Value)| {
            let place = format!("spec.auditAnnotations[{index}]");
            let wanted = [Type::String, Type::Null];
            let value = Compiled::read(said, &place, "valueExpression", &offered, &wanted);
            (said.text("key").to_string(), value)
        };
        Self {
            name: api::object::name(policy).to_string(),
            matching: Matching::of_policy(spec.get("matchConstraints").unwrap_or(&Value::Null)),
            is_lenient: spec.text("failurePolicy") == "Ignore",
            conditions: Conditions::read(spec, "spec.", &conditional),
            validations: spec.items("validations").iter().enumerate().map(validation).collect(),
            annotations: spec.items("auditAnnotations").iter().enumerate().map(annotation).collect(),
            variables,
            parameter,
        }
    }

    /// All its expressions.
    pub fn expressions(&self) -> impl Iterator<Item = &Compiled> {
        let conditional = self.conditions.expressions().chain(self.variables.expressions());
        conditional.chain(self.validated()).chain(self.annotations.iter().map(|(_, value)| value))
    }

    /// Those of its validations.
    pub(super) fn validated(&self) -> impl Iterator<Item = &Compiled> {
        let validations = self.validations.iter();
        validations.flat_map(|v| std::iter::once(&v.expression).chain(&v.message_expression))
    }

    /// What it says of a request.
    pub(super) fn judge(&self, inputs: &Inputs<'_>) -> Judgement {
        let mut judgement = Judgement::default();
        match self.conditions.hold(inputs) {
            Ok(true) => {}
            Ok(false) => return judgement,
            Err(why) => {
                self.failed(&mut judgement, 0, why, Finding { error: INVALID, ..Finding::default() });
                return judgement;
            }
        }
        let evaluation = Evaluation::new(inputs, Some(&self.variables), BUDGET);
        for (index, validation) in self.validations.iter().enumerate() {
            let begun = Instant::now();
            let found = evaluation.of(&validation.expression);
            let finding = |error| Finding { error, elapsed: begun.elapsed() };
            match found {
                Ok(Found::Bool(true)) => {}
                Ok(_) => judgement.failures.push(Failure {
                    index,
                    message: validation.message(&evaluation),
                    reason: validation.reason.clone(),
                    finding: finding("no_error"),
                }),
                Err(fault @ Fault::OutOfBudget) => {
                    // What has been found until here does not count either: nobody knows what would have been.
                    judgement.failures.clear();
                    self.failed(&mut judgement, 0, fault.to_string(), finding("out_of_budget"));
                    return judgement;
                }
                Err(fault) => self.failed(&mut judgement, index, fault.to_string(), finding(INVALID)),
            }
        }
        self.annotate(inputs, &mut judgement);
        judgement
    }

    fn failed(&self, judgement: &mut Judgement, index: usize, message: String, finding: Finding) {
        if self.is_lenient {
            judgement.passed_over.push(finding);
        } else {
            judgement.failures.push(Failure { index, message, reason: String::new(), finding });
        }
    }

    fn annotate(&self, inputs: &Inputs<'_>, judgement: &mut Judgement) {
        let evaluation = Evaluation::new(inputs, Some(&self.variables), BUDGET);
        for (key, expression) in &self.annotations {
            match evaluation.of(expression) {
                Ok(Found::Text(text)) if !text.trim().is_empty() => {
                    judgement.annotations.push((key.clone(), text.trim().to_string()));
                }
                Ok(_) => {}
                Err(fault) if !self.is_lenient => judgement.errors.push(fault.to_string()),
                Err(_) => {}
            }
        }
    }
}

impl Validation {
    /// What the user is told: what the expression for it says, the message, or the expression itself.
    fn message<'v>(&'v self, evaluation: &Evaluation<'v>) -> String {
        let computed = self.message_expression.as_ref().and_then(|it| evaluation.of(it).ok());
        let is_fit =
            |text: &&str| !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n');
        if let Some(Found::Text(text)) = &computed
            && let Some(text) = Some(text.trim()).filter(is_fit)
        {
            text.to_string()
        } else if self.message.is_empty() {
            format!("failed expression: {}", self.expression.source.trim())
        } else {
            self.message.clone()
        }
    }
}

impl ParameterKind {
    pub fn read(kind: &Value) -> Self {
        let api_version = kind.text("apiVersion");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let version = ServedVersion { group: group.to_string(), version: version.to_string() };
        Self { version, kind: kind.text("kind").to_string() }
    }
}

impl fmt::Display for ParameterKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServedVersion { group, version } = &self.version;
        write!(out, "{group}/{version}, Kind={}", self.kind)
    }
}
