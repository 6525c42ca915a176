//! What all policies together have found: told to the user, to the audit log, or both.

use api::{ApiError, Reason};
use serde_json::{Value, json};

use super::binding::Binding;
use super::checks::{Outcome, PolicyChecks};
use super::definition::{Finding, INVALID, Judgement, Policy};
use crate::admission::AdmissionRequest;

/// Longer values are cut in the audit log.
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;

/// What has been found.
#[derive(Default)]
pub(super) struct Findings {
    /// The first refusal: its words and its reason.
    refusal: Option<(String, String)>,
    /// What bindings want to have audited.
    failures: Vec<Value>,
    warnings: Vec<String>,
    /// What the policy that is being examined wants in the audit log.
    annotations: Vec<(String, String)>,
}

impl Findings {
    /// A policy, or one of its bindings, that cannot be followed.
    pub fn misconfigured(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str) {
        let what = if binding.is_some() { "binding" } else { "policy" };
        if !policy.is_lenient {
            self.refuse(&policy.name, binding, &format!("failed to configure {what}: {why}"), "");
        }
    }

    /// What a policy has said of a request that it judges because of a binding.
    pub fn add(&mut self, binding: &Binding, judgement: Judgement, checks: &PolicyChecks) {
        let count = |finding: &Finding, action| {
            let (Finding { error, elapsed }, policy) = (*finding, &binding.policy);
            checks.observe(&Outcome { policy, binding: &binding.name, error, action, elapsed });
        };
        judgement.passed_over.iter().for_each(|finding| count(finding, "allow"));
        for failure in &judgement.failures {
            for action in &binding.actions {
                match action.as_str() {
                    "Deny" => count(&failure.finding, "deny"),
                    "Audit" => count(&failure.finding, "audit"),
                    "Warn" => count(&failure.finding, "warn"),
                    _ => {}
                }
                match action.as_str() {
                    "Deny" => self.refuse(&binding.policy, Some(binding), &failure.message, &failure.reason),
                    "Audit" => self.failures.push(json!({
                        "message": failure.message, "policy": binding.policy, "binding": binding.name,
                        "expressionIndex": failure.index, "validationActions": binding.actions,
                    })),
                    "Warn" => self.warnings.push(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        binding.policy, binding.name, failure.message
                    )),
                    _ => {}
                }
            }
        }
        for why in &judgement.errors {
            count(&Finding { error: INVALID, ..Finding::default() }, "deny");
            self.refuse(&binding.policy, Some(binding), why, "");
        }
        self.annotations.extend(judgement.annotations);
    }

    fn refuse(&mut self, policy: &str, binding: Option<&Binding>, why: &str, reason: &str) {
        let because = binding.map(|binding| format!(" with binding '{}'", binding.name)).unwrap_or_default();
        let told = format!("ValidatingAdmissionPolicy '{policy}'{because} denied request: {why}");
        self.refusal.get_or_insert((told, reason.to_string()));
    }

    /// Leaves a policy's annotations in the audit log: the different values of each key, behind one another.
    pub fn publish(&mut self, policy: &str, request: &AdmissionRequest<'_>) {
        let all = std::mem::take(&mut self.annotations);
        for (at, (key, _)) in all.iter().enumerate() {
            if all.iter().take(at).any(|(earlier, _)| earlier == key) {
                continue;
            }
            let mut values: Vec<&str> = Vec::new();
            for (_, value) in all.iter().filter(|(other, _)| other == key) {
                let value = cut(value);
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            request.note(&format!("{policy}/{key}"), &values.join(", "));
        }
    }

    /// Warns, notes and refuses.
    pub fn conclude(self, request: &AdmissionRequest<'_>) -> Result<(), ApiError> {
        request.warnings.lock().extend(self.warnings);
        if !self.failures.is_empty() {
            let failures = Value::from(self.failures).to_string();
            request.note("validation.policy.admission.k8s.io/validation_failure", &failures);
        }
        let Some((told, reason)) = self.refusal else { return Ok(()) };
        let mut error = request.forbidden(&told);
        error.reason = match reason.as_str() {
            "Forbidden" => Reason::Forbidden,
            "Unauthorized" => Reason::Unauthorized,
            "RequestEntityTooLarge" => Reason::RequestEntityTooLarge,
            _ => Reason::Invalid,
        };
        let causes = json!([{"message": told}]);
        crate::tree::set(error.details.get_or_insert_default(), &["causes"], causes);
        Err(error)
    }
}

fn cut(value: &str) -> &str {
    (0..=ANNOTATION_BYTES_MAX)
        .rev()
        .find_map(|end| value.get(..end))
        .filter(|_| value.len() > ANNOTATION_BYTES_MAX)
        .unwrap_or(value)
}
