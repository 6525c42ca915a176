//! Nobody gives rights that they do not have: neither by a role nor by binding one.
//!
//! As upstream: members of `system:masters` may; so may those who are allowed to `escalate` the role, or to `bind` it.
//! An aggregation rule, which can gather anything, needs all rights there are. Changes that only let the garbage
//! collector do its work (owners, finalizers) are nobody's gift.

use std::sync::Arc;

use api::{ApiError, Scope};
use async_trait::async_trait;
use serde_json::Value;

use super::{Admission, AdmissionRequest, Operation};
use crate::auth::{MASTERS, UserInfo};
use crate::authz::rbac::{Rbac, Rule, rules_in};
use crate::authz::{Attributes, AuthorizerChain, Decision, list, missing_rights};
use crate::http::request_info::RequestInfo;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The plugin.
pub struct RightsEscalation {
    authorizers: AuthorizerChain,
    rbac: Arc<Rbac>,
}

impl RightsEscalation {
    /// Asks for `escalate` and `bind`, and compares with the rules that the user has.
    pub fn new(authorizers: AuthorizerChain, rbac: Arc<Rbac>) -> Self {
        Self { authorizers, rbac }
    }

    async fn may(&self, user: &UserInfo, verb: &str, kind: &str, namespace: &str, name: &str) -> bool {
        let resource = if kind == "Role" { "roles" } else { "clusterroles" };
        let info = RequestInfo {
            is_resource: true,
            special_verb: verb.to_string(),
            group: GROUP.to_string(),
            version: "*".to_string(),
            resource: resource.to_string(),
            namespace: namespace.to_string(),
            name: name.to_string(),
            ..RequestInfo::default()
        };
        matches!(self.authorizers.decide(&Attributes { user, info: &info }).await, Decision::Allow(_))
    }

    fn confirm(&self, user: &UserInfo, namespace: &str, wanted: &[Rule]) -> Result<(), String> {
        let missing = missing_rights(&self.rbac.rules_of(user, namespace), wanted);
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            list(&user.groups),
            missing.join("\n")
        ))
    }

    async fn check_role(&self, request: &AdmissionRequest<'_>, role: &Value) -> Result<(), ApiError> {
        let kind = request.row.kind.as_str();
        // On creation the name is not part of the question, as it is none of the path.
        let name = if request.operation == Operation::Create { "" } else { request.name };
        if self.may(request.user, "escalate", kind, request.namespace, name).await {
            return Ok(());
        }
        self.confirm(request.user, request.namespace, &rules_in(role.get("rules")))
            .map_err(|why| request.forbidden(&why))?;
        if [Some(role), request.old].into_iter().flatten().any(aggregates) {
            self.confirm(request.user, "", &everything()).map_err(|_| {
                request.forbidden("must have cluster-admin privileges to use the aggregationRule")
            })?;
        }
        Ok(())
    }

    async fn check_binding(&self, request: &AdmissionRequest<'_>, binding: &Value) -> Result<(), ApiError> {
        let text = |field: &str| {
            binding.pointer(&format!("/roleRef/{field}")).and_then(Value::as_str).unwrap_or_default()
        };
        let (kind, name) = (text("kind"), text("name"));
        if self.may(request.user, "bind", kind, request.namespace, name).await {
            return Ok(());
        }
        self.rbac.catch_up().await;
        let Some(rules) = self.rbac.rules_of_role(kind, request.namespace, name) else {
            let resource = if kind == "Role" { "roles" } else { "clusterroles" };
            return Err(ApiError::not_found(GROUP, resource, name));
        };
        self.confirm(request.user, request.namespace, &rules).map_err(|why| request.forbidden(&why))
    }
}

#[async_trait]
impl Admission for RightsEscalation {
    async fn validate(&self, request: &AdmissionRequest<'_>, object: Option<&Value>) -> Result<(), ApiError> {
        let Some(object) = object else { return Ok(()) };
        let concerns = request.row.storage.group == GROUP
            && request.subresource.is_empty()
            && matches!(request.operation, Operation::Create | Operation::Update);
        if !concerns || request.user.is_in(MASTERS) || request.old.is_some_and(|old| same(old, object)) {
            return Ok(());
        }
        debug_assert!(request.row.scope == Scope::Namespaced || request.namespace.is_empty());
        match request.row.plural.as_str() {
            "roles" | "clusterroles" => self.check_role(request, object).await,
            "rolebindings" | "clusterrolebindings" => self.check_binding(request, object).await,
            _ => Ok(()),
        }
    }
}

fn aggregates(role: &Value) -> bool {
    let selectors = role.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array);
    selectors.is_some_and(|selectors| !selectors.is_empty())
}

fn everything() -> [Rule; 2] {
    let any = || vec!["*".to_string()];
    [
        Rule { verbs: any(), api_groups: any(), resources: any(), ..Rule::default() },
        Rule { verbs: any(), non_resource_urls: any(), ..Rule::default() },
    ]
}

/// Whether two states differ by nothing but what the garbage collector and the server write.
fn same(old: &Value, new: &Value) -> bool {
    const IGNORED: [&str; 5] =
        ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation"];
    let bare = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| !IGNORED.contains(&field.as_str()));
        }
        object
    };
    bare(old) == bare(new)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_of_finalizers_alone_gives_nothing() {
        let old = json!({"metadata": {"name": "r", "finalizers": ["a"]}, "rules": []});
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!([]);
        assert!(same(&old, &new));
        new["rules"] = json!([{"verbs": ["*"]}]);
        assert!(!same(&old, &new));
    }
}
