//! Authorization: who may do what.
//!
//! A chain of [`Authorizer`]s is asked in turn; the first with an opinion decides, and without any the answer is no.

mod escalation;
mod masters;
pub mod node;
mod node_graph;
mod policy;
pub mod rbac;
mod rbac_index;
mod reconcile;

use std::sync::Arc;

use api::{ApiError, Reason};
use async_trait::async_trait;

pub(crate) use escalation::{list, missing_rights};
pub use masters::Masters;
pub(crate) use policy::bootstrap_objects;
pub(crate) use reconcile::reconciled;

use crate::auth::UserInfo;
use crate::http::request_info::RequestInfo;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a UserInfo,
    /// What, to which object.
    pub info: &'a RequestInfo,
}

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and why.
    Allow(String),
    /// No, whatever others say, and why.
    Deny(String),
    /// Ask the next one; the text tells why this one could not say yes.
    NoOpinion(String),
}

impl Decision {
    /// Why it is allowed, or upstream's 403.
    pub fn into_result(self, attributes: &Attributes<'_>) -> Result<String, ApiError> {
        match self {
            Self::Allow(reason) => Ok(reason),
            Self::Deny(reason) | Self::NoOpinion(reason) => Err(forbidden(attributes, &reason)),
        }
    }
}

/// One source of rights.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Decides.
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision;
}

/// Authorizers in their order.
#[derive(Clone)]
pub struct AuthorizerChain(Arc<[Arc<dyn Authorizer>]>);

impl AuthorizerChain {
    /// A chain.
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Self(authorizers.into())
    }

    /// What the chain as a whole says; `NoOpinion` means no.
    pub async fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let mut reasons = Vec::new();
        for authorizer in self.0.iter() {
            match authorizer.authorize(attributes).await {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join(", "))
    }

    /// Refuses with upstream's 403 what is not allowed.
    pub async fn require(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        self.decide(attributes).await.into_result(attributes).map(|_| ())
    }
}

fn forbidden(attributes: &Attributes<'_>, reason: &str) -> ApiError {
    let Attributes { user, info } = attributes;
    let suffix = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    if !info.is_resource {
        let message = format!(
            "forbidden: User {:?} cannot {} path {:?}{suffix}",
            user.name,
            info.authorized_verb(),
            info.path
        );
        return ApiError::new(Reason::Forbidden, message);
    }
    let resource = match info.subresource.as_str() {
        "" => info.resource.clone(),
        subresource => format!("{}/{subresource}", info.resource),
    };
    let place = if info.namespace.is_empty() {
        " at the cluster scope".to_string()
    } else {
        format!(" in the namespace {:?}", info.namespace)
    };
    let why = format!(
        "User {:?} cannot {} resource {resource:?} in API group {:?}{place}{suffix}",
        user.name,
        info.authorized_verb(),
        info.group
    );
    if info.name.is_empty() {
        let qualified = match info.group.as_str() {
            "" => info.resource.clone(),
            group => format!("{}.{group}", info.resource),
        };
        let mut error = ApiError::new(Reason::Forbidden, format!("{qualified} is forbidden: {why}"));
        let mut details = serde_json::json!({"kind": info.resource});
        if !info.group.is_empty() {
            crate::tree::set(&mut details, &["group"], info.group.as_str());
        }
        error.details = Some(Box::new(details));
        return error;
    }
    ApiError::forbidden(&info.group, &info.resource, &info.name, &why)
}
