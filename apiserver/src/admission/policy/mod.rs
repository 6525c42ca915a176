//! ValidatingAdmissionPolicy: rules in CEL that writes have to keep, wherever bindings put them in force.
//!
//! As upstream: a policy without a binding does nothing; what cannot be decided is refused or passed over by the
//! policy's failure policy; the first refusal is what the user is told; what bindings only want audited or warned of
//! goes on. Policies and their bindings are nobody's business, so that a bad one can be removed, and neither is what
//! the API server writes by itself. A policy is in force with the answer to its creation.
//!
//! Other than upstream, which keeps the first one only, `validation_failure` in the audit log lists every failure.
//! MutatingAdmissionPolicy is not here yet; definitions, bindings and parameters are what it will need as well.

mod binding;
mod checks;
mod definition;
mod findings;
mod status;

use std::sync::Arc;

use api::{ApiError, ResourceTable, Row, ServedVersion};
use async_trait::async_trait;
use parking_lot::RwLock;
use serde_json::Value;

use self::binding::Binding;
pub(crate) use self::checks::PolicyChecks;
use self::definition::ParameterKind;
pub(super) use self::definition::Policy;
use self::findings::Findings;
pub(crate) use self::status::tell_status;
use super::described::Converted;
use super::expressions::{Inputs, NAMESPACE, PARAMS};
use super::kept::Kept;
use super::matching::{NamespaceOf, Subject};
use super::rights::Rights;
use super::{Admission, AdmissionRequest};
use crate::authz::AuthorizerChain;
use crate::objects::Objects;

pub(crate) const POLICIES: &str = "admissionregistration.k8s.io/validatingadmissionpolicies";
const BINDINGS: &str = "admissionregistration.k8s.io/validatingadmissionpolicybindings";

/// The plugin.
pub struct ValidatingPolicies {
    objects: Objects,
    table: Arc<RwLock<Arc<ResourceTable>>>,
    authorizers: AuthorizerChain,
    policies: Kept<Policy>,
    bindings: Kept<Binding>,
    checks: Arc<PolicyChecks>,
}

impl ValidatingPolicies {
    /// Looks policies, bindings and parameters up in the cache; the table knows the kinds of parameters, the authorizers
    /// what `authorizer` says.
    pub(crate) fn new(
        objects: Objects,
        table: Arc<RwLock<Arc<ResourceTable>>>,
        authorizers: AuthorizerChain,
        checks: Arc<PolicyChecks>,
    ) -> Self {
        Self {
            policies: Kept::new(objects.clone(), POLICIES, Policy::read),
            bindings: Kept::new(objects.clone(), BINDINGS, Binding::read),
            objects,
            table,
            authorizers,
            checks,
        }
    }

    /// Adds what a policy finds that covers the request in a version.
    async fn examine(
        &self,
        policy: &Policy,
        bindings: &[Arc<Binding>],
        subject: &Subject<'_>,
        (version, rights): (&ServedVersion, &Arc<Rights>),
        findings: &mut Findings,
    ) {
        let own: Vec<_> = bindings.iter().filter(|binding| binding.policy == policy.name).collect();
        if own.is_empty() {
            return;
        }
        let converted = match Converted::of(&self.objects, subject, version).await {
            Ok(converted) => converted,
            Err(error) => {
                let why = format!("failed to convert object version: {error}");
                return findings.misconfigured(policy, None, &why);
            }
        };
        let request = converted.as_ref().map(|converted| converted.request(subject.request));
        let seen = match (&request, &converted) {
            (Some(request), Some(converted)) => Subject { request, object: converted.object(), ..*subject },
            _ => *subject,
        };
        let kind = match policy.parameter.as_ref().map(|kind| self.row_of(kind)).transpose() {
            Ok(row) => policy.parameter.as_ref().zip(row),
            Err(why) => return findings.misconfigured(policy, None, &why),
        };
        for binding in own {
            if !binding.covers(subject) {
                continue;
            }
            let parameters = match (&kind, &binding.parameters) {
                (Some((kind, row)), Some(parameters)) => {
                    let place = subject.request.namespace;
                    let found = parameters.find(&self.objects, row, &kind.version, place).await;
                    found.map(|found| found.into_iter().map(Some).collect())
                }
                _ => Ok(vec![None]),
            };
            let parameters: Vec<Option<Value>> = match parameters {
                Ok(parameters) => parameters,
                Err(why) => {
                    findings.misconfigured(policy, Some(binding), &why);
                    continue;
                }
            };
            for parameter in parameters {
                let inputs = Inputs::of(&seen, version, rights).with(PARAMS, parameter.unwrap_or_default());
                let inputs =
                    inputs.with(NAMESPACE, subject.namespace.get().map(without_owners).unwrap_or_default());
                let user = subject.request.user;
                let judgement = rights.settled(&self.authorizers, user, || policy.judge(&inputs)).await;
                findings.add(binding, judgement, &self.checks);
            }
        }
        findings.publish(&policy.name, subject.request);
    }

    fn row_of(&self, kind: &ParameterKind) -> Result<Arc<Row>, String> {
        let ServedVersion { group, version } = &kind.version;
        let row = self.table.read().kind(group, version, &kind.kind).cloned();
        row.ok_or_else(|| format!("failed to find resource referenced by paramKind: '{kind}'"))
    }
}

/// A namespace as expressions see it.
fn without_owners(namespace: &Value) -> Value {
    let mut seen = namespace.clone();
    if let Some(metadata) = seen.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata
            .retain(|field, _| !["managedFields", "ownerReferences", "selfLink"].contains(&field.as_str()));
    }
    seen
}

#[async_trait]
impl Admission for ValidatingPolicies {
    async fn validate(&self, request: &AdmissionRequest<'_>, object: Option<&Value>) -> Result<(), ApiError> {
        let policies = self.policies.all();
        if policies.is_empty() || request.is_own() || is_exempt(request) {
            return Ok(());
        }
        let bindings = self.bindings.all();
        let subject = Subject { request, object, namespace: &NamespaceOf::new(&self.objects, request) };
        let rights = Arc::<Rights>::default();
        let mut findings = Findings::default();
        for policy in policies.iter() {
            if let Some(version) = policy.matching.version(&subject) {
                self.examine(policy, &bindings, &subject, (&version, &rights), &mut findings).await;
            }
        }
        findings.conclude(request)
    }
}

/// Policies of all kinds, and their bindings.
fn is_exempt(request: &AdmissionRequest<'_>) -> bool {
    request.row.storage.group == "admissionregistration.k8s.io"
        && request.row.kind.contains("AdmissionPolicy")
}
