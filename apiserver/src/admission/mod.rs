//! Admission: rules on writes that depend on more than the object itself.
//!
//! Plugins run in the order of the list, all mutations before all validations. They see objects in their storage
//! version. After a mutation the pipeline defaults again; what a plugin changes is not asked for by the user and
//! therefore owned by nobody.

mod certificates;
mod conditions;
mod config_file;
mod described;
mod escalation;
mod expressions;
mod faults;
mod kept;
mod limit_ranger;
mod matching;
mod namespace_lifecycle;
mod node_restriction;
mod pod_resize;
pub mod pod_security;
mod policy;
mod priority;
mod rights;
mod runtime_class;
mod service_account;
mod storage_class;
mod tolerations;
mod types;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{ApiError, Row, ServedVersion};
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;

pub use certificates::Certificates;
pub use config_file::{AdmissionConfigError, read_admission_config};
pub use escalation::RightsEscalation;
pub(crate) use faults::faults;
pub use limit_ranger::LimitRanger;
pub use namespace_lifecycle::NamespaceLifecycle;
pub use node_restriction::NodeRestriction;
pub use pod_resize::PodResize;
pub use pod_security::PodSecurity;
pub use policy::ValidatingPolicies;
pub(crate) use policy::{POLICIES, PolicyChecks, tell_status};
pub use priority::Priority;
pub use runtime_class::RuntimeClass;
pub use service_account::ServiceAccount;
pub use storage_class::DefaultStorageClass;
pub use tolerations::{DefaultTolerations, NotReadyTaint};

use self::webhook::Webhooks;
use crate::auth::{API_SERVER, MASTERS, UserInfo};
use crate::authz::AuthorizerChain;
use crate::objects::Objects;
use crate::pipeline::Options;

/// What is about to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object, or a POST to a subresource.
    Create,
    /// A change.
    Update,
    /// A deletion.
    Delete,
    /// A stream to a pod, service or node.
    Connect,
}

/// A write on its way to the store.
pub struct AdmissionRequest<'a> {
    /// What is about to happen.
    pub operation: Operation,
    /// Who asks.
    pub user: &'a UserInfo,
    /// The row written to.
    pub row: &'a Row,
    /// The version that the request speaks; objects are in the storage version all the same.
    pub version: &'a ServedVersion,
    /// The subresource, or the empty string.
    pub subresource: &'a str,
    /// The namespace, or the empty string.
    pub namespace: &'a str,
    /// The name; empty while it is not yet generated.
    pub name: &'a str,
    /// The object before the write, if there is one.
    pub old: Option<&'a Value>,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// What else the client has asked for.
    pub(crate) options: Options<'a>,
    /// What the user should hear though the write succeeds.
    pub warnings: &'a Mutex<Vec<String>>,
    /// What the audit log should say beside the request.
    pub annotations: &'a Mutex<BTreeMap<String, String>>,
}

impl AdmissionRequest<'_> {
    /// Whether the request is about a resource itself, such as `is("", "pods")`.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.row.storage.group == group && self.row.plural == resource
    }

    /// Whether the API server itself asks, which no configuration of its users stands in the way of.
    pub fn is_own(&self) -> bool {
        self.user.name == API_SERVER && self.user.is_in(MASTERS)
    }

    /// Leaves a note for the audit log.
    pub fn note(&self, key: &str, value: &str) {
        self.annotations.lock().insert(key.to_string(), value.to_string());
    }

    /// A refusal in upstream's words.
    pub fn forbidden(&self, why: &str) -> ApiError {
        ApiError::forbidden(&self.row.storage.group, &self.row.plural, self.name, why)
    }
}

/// One rule, or a set of them.
#[async_trait]
pub trait Admission: Send + Sync {
    /// Changes the object before it is validated.
    async fn mutate(&self, _request: &AdmissionRequest<'_>, _object: &mut Value) -> Result<(), ApiError> {
        Ok(())
    }

    /// Refuses the write. The object is `None` on deletion.
    async fn validate(
        &self,
        _request: &AdmissionRequest<'_>,
        _object: Option<&Value>,
    ) -> Result<(), ApiError> {
        Ok(())
    }
}

/// The plugins in their order, and the webhooks after them.
#[derive(Clone)]
pub struct AdmissionChain {
    plugins: Arc<[Arc<dyn Admission>]>,
    mutating: Arc<Webhooks>,
    validating: Arc<Webhooks>,
}

impl AdmissionChain {
    /// A chain; webhooks are looked up in the cache.
    pub fn new(plugins: Vec<Arc<dyn Admission>>, objects: &Objects, authorizers: &AuthorizerChain) -> Self {
        Self {
            plugins: plugins.into(),
            mutating: Arc::new(Webhooks::mutating(objects, authorizers)),
            validating: Arc::new(Webhooks::validating(objects, authorizers)),
        }
    }

    /// What webhooks have changed goes by the plugins once more, and then by the webhooks that ask for it.
    pub(crate) async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        self.mutate_by_plugins(request, object).await?;
        let round = self.mutating.mutate(request, object, None).await?;
        if round.has_changed {
            let before = object.clone();
            self.mutate_by_plugins(request, object).await?;
            let again = round.again(*object != before);
            if !again.is_empty() {
                self.mutating.mutate(request, object, Some(&again)).await?;
            }
        }
        Ok(())
    }

    async fn mutate_by_plugins(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        for plugin in self.plugins.iter() {
            plugin.mutate(request, object).await?;
        }
        Ok(())
    }

    pub(crate) async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        let streams = request.operation == Operation::Connect;
        for plugin in self.plugins.iter() {
            plugin.validate(request, object).await?;
        }
        if streams || request.operation == Operation::Delete {
            // There is nothing to change, but they may refuse.
            self.mutating.validate(request, object).await?;
        }
        self.validating.validate(request, object).await
    }
}
