//! Reviews: objects that are questions. They are created, answered in their status, and never stored.

use std::sync::Arc;

use api::{ApiError, FieldError};
use serde_json::{Value, json};

use crate::auth::UserInfo;
use crate::auth::service_account::ServiceAccountTokens;
use crate::authz::rbac::Rbac;
use crate::authz::{Attributes, AuthorizerChain, Decision};
use crate::http::request_info::RequestInfo;

/// Whom the reviews ask.
#[derive(Clone)]
pub struct Reviewers {
    /// May somebody do something?
    pub authorizers: AuthorizerChain,
    /// What may somebody do?
    pub rbac: Arc<Rbac>,
    /// Whose token is it?
    pub tokens: Arc<ServiceAccountTokens>,
}

impl Reviewers {
    /// Answers a review of any kind. `namespace` is that of the request.
    pub async fn answer(
        &self,
        kind: &str,
        user: &UserInfo,
        namespace: &str,
        mut review: Value,
    ) -> Result<Value, ApiError> {
        let none = Value::Null;
        let spec = review.get("spec").unwrap_or(&none);
        let status = match kind {
            "SelfSubjectAccessReview" => self.access(user, spec).await?,
            "SubjectAccessReview" => self.access(&subject(kind, spec)?, spec).await?,
            "LocalSubjectAccessReview" => {
                let asked = review.pointer("/spec/resourceAttributes/namespace").and_then(Value::as_str);
                if asked.unwrap_or_default() != namespace {
                    let error = FieldError {
                        reason: "FieldValueInvalid",
                        field: "spec.resourceAttributes.namespace".into(),
                        message: format!("Invalid value: {asked:?}: must match metadata.namespace"),
                    };
                    return Err(ApiError::invalid("authorization.k8s.io", kind, "", &[error]));
                }
                self.access(&subject(kind, spec)?, spec).await?
            }
            "SelfSubjectRulesReview" => {
                let place = review.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or_default();
                self.rules(user, place)
            }
            "SelfSubjectReview" => json!({"userInfo": user_info(user)}),
            "TokenReview" => self.token(spec).await,
            other => return Err(ApiError::internal(format!("{other} is not a review"))),
        };
        crate::tree::set(&mut review, &["status"], status);
        Ok(review)
    }

    async fn access(&self, user: &UserInfo, spec: &Value) -> Result<Value, ApiError> {
        let info = request_of(spec)?;
        let decision = self.authorizers.decide(&Attributes { user, info: &info }).await;
        Ok(match decision {
            Decision::Allow(reason) => json!({"allowed": true, "reason": reason}),
            Decision::Deny(reason) => json!({"allowed": false, "denied": true, "reason": reason}),
            Decision::NoOpinion(reason) if reason.is_empty() => json!({"allowed": false}),
            Decision::NoOpinion(reason) => json!({"allowed": false, "reason": reason}),
        })
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> Value {
        let rules = self.rbac.rules_of(user, namespace);
        let (paths, resources): (Vec<_>, Vec<_>) =
            rules.into_iter().partition(|rule| !rule.non_resource_urls.is_empty());
        let resources: Vec<Value> = resources
            .into_iter()
            .map(|rule| {
                let mut object =
                    json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
                if !rule.resource_names.is_empty() {
                    crate::tree::set(&mut object, &["resourceNames"], rule.resource_names);
                }
                object
            })
            .collect();
        let paths: Vec<Value> = paths
            .into_iter()
            .map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}))
            .collect();
        // Members of system:masters and nodes have rights that no rule lists.
        let incomplete = user.is_in(crate::auth::MASTERS) || user.is_in("system:nodes");
        json!({"incomplete": incomplete, "nonResourceRules": paths, "resourceRules": resources})
    }

    async fn token(&self, spec: &Value) -> Value {
        let token = spec.get("token").and_then(Value::as_str).unwrap_or_default();
        let audiences = spec.get("audiences").and_then(Value::as_array).into_iter().flatten();
        let audiences: Vec<String> = audiences.filter_map(Value::as_str).map(str::to_string).collect();
        match self.tokens.verify(token, &audiences) {
            Ok(Some((user, good_for))) => json!({
                "authenticated": true, "user": user_info(&user.authenticated()), "audiences": good_for}),
            Ok(None) => json!({"authenticated": false}),
            Err(refused) => json!({"authenticated": false, "error": refused.to_string()}),
        }
    }
}

/// A user as `authentication.k8s.io` writes it.
pub fn user_info(user: &UserInfo) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        crate::tree::set(&mut info, &["uid"], user.uid.as_str());
    }
    if !user.extra.is_empty() {
        crate::tree::set(&mut info, &["extra"], json!(user.extra));
    }
    info
}

fn subject(kind: &str, spec: &Value) -> Result<UserInfo, ApiError> {
    let text = |field: &str| spec.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
    let groups = spec.get("groups").and_then(Value::as_array).into_iter().flatten();
    let groups: Vec<String> = groups.filter_map(Value::as_str).map(str::to_string).collect();
    if text("user").is_empty() && groups.is_empty() {
        let error = FieldError {
            reason: "FieldValueInvalid",
            field: "spec.user".into(),
            message: "Invalid value: \"\": at least one of user or group must be specified".into(),
        };
        return Err(ApiError::invalid("authorization.k8s.io", kind, "", &[error]));
    }
    Ok(UserInfo { name: text("user"), uid: text("uid"), groups, ..UserInfo::default() })
}

/// The request that a review asks about.
fn request_of(spec: &Value) -> Result<RequestInfo, ApiError> {
    let text = |attributes: &Value, field: &str| {
        attributes.get(field).and_then(Value::as_str).unwrap_or_default().to_string()
    };
    if let Some(attributes) = spec.get("resourceAttributes").filter(|attributes| !attributes.is_null()) {
        return Ok(RequestInfo {
            is_resource: true,
            verb: verb(&text(attributes, "verb")),
            group: text(attributes, "group"),
            version: text(attributes, "version"),
            namespace: text(attributes, "namespace"),
            resource: text(attributes, "resource"),
            subresource: text(attributes, "subresource"),
            name: text(attributes, "name"),
            ..RequestInfo::default()
        });
    }
    if let Some(attributes) = spec.get("nonResourceAttributes").filter(|attributes| !attributes.is_null()) {
        return Ok(RequestInfo {
            verb: verb(&text(attributes, "verb")),
            path: text(attributes, "path"),
            ..RequestInfo::default()
        });
    }
    Err(ApiError::bad_request("exactly one of nonResourceAttributes or resourceAttributes must be specified"))
}

/// The verbs that requests have are known text; of others only `*` and those of special rules can be asked.
fn verb(text: &str) -> &'static str {
    const KNOWN: [&str; 25] = [
        "*",
        "approve",
        "attest",
        "bind",
        "connect",
        "create",
        "delete",
        "deletecollection",
        "escalate",
        "get",
        "head",
        "impersonate",
        "list",
        "options",
        "patch",
        "post",
        "proxy",
        "put",
        "sign",
        "update",
        "use",
        "watch",
        "trace",
        "request-serviceaccounts-token-audience",
        "nominate",
    ];
    KNOWN.into_iter().find(|known| *known == text).unwrap_or("unknown")
}
