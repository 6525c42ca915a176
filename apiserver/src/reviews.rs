//! Reviews: objects that are questions. They are created, answered in their status, and never stored.

use std::sync::Arc;

use api::{ApiError, FieldError};
use serde_json::{Value, json};

use crate::auth::service_account::ServiceAccountTokens;
use crate::auth::{BootstrapTokens, Oidc, Refused, UserInfo};
use crate::authz::rbac::{Rbac, Rule};
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
    /// Or that of a joining node?
    pub bootstrap: Arc<BootstrapTokens>,
    /// Or that of somebody whom an issuer outside knows?
    pub oidc: Option<Arc<Oidc>>,
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
            "SelfSubjectAccessReview" => self.access(kind, user, spec).await?,
            "SubjectAccessReview" => self.access(kind, &subject(kind, spec)?, spec).await?,
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
                if spec.get("nonResourceAttributes").is_some_and(|attributes| !attributes.is_null()) {
                    let error = FieldError {
                        reason: "FieldValueInvalid",
                        field: "spec.nonResourceAttributes".into(),
                        message: "Invalid value: disallowed on this kind of request".into(),
                    };
                    return Err(ApiError::invalid("authorization.k8s.io", kind, "", &[error]));
                }
                self.access(kind, &subject(kind, spec)?, spec).await?
            }
            "SelfSubjectRulesReview" => {
                let place = spec.get("namespace").and_then(Value::as_str).unwrap_or_default();
                if place.is_empty() {
                    return Err(ApiError::bad_request("no namespace on request"));
                }
                self.rbac.catch_up().await;
                self.rules(user, place)
            }
            "SelfSubjectReview" => json!({"userInfo": user_info(user)}),
            "TokenReview" => self.token(spec).await?,
            other => return Err(ApiError::internal(format!("{other} is not a review"))),
        };
        crate::tree::set(&mut review, &["status"], status);
        Ok(review)
    }

    async fn access(&self, kind: &str, user: &UserInfo, spec: &Value) -> Result<Value, ApiError> {
        let info = request_of(kind, spec)?;
        let decision = self.authorizers.decide(&Attributes { user, info: &info }).await;
        Ok(match decision {
            Decision::Allow(reason) if reason.is_empty() => json!({"allowed": true}),
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
        let all = |rules: Vec<Rule>| -> Vec<Value> { rules.iter().map(Rule::to_json).collect() };
        let (paths, resources) = (all(paths), all(resources));
        let mut status = json!({"incomplete": false, "nonResourceRules": paths, "resourceRules": resources});
        // Nodes have rights that no rule lists.
        if crate::authz::node::node_of(user).is_some() {
            crate::tree::set(&mut status, &["incomplete"], true);
            let why = "node authorizer does not support user rule resolution";
            crate::tree::set(&mut status, &["evaluationError"], why);
        }
        status
    }

    /// Who a token stands for that this server has not signed.
    async fn foreign(&self, token: &str) -> Result<Option<UserInfo>, Refused> {
        match (self.bootstrap.verify(token).await?, &self.oidc) {
            (None, Some(oidc)) => oidc.verify(token).await,
            (known, _) => Ok(known),
        }
    }

    async fn token(&self, spec: &Value) -> Result<Value, ApiError> {
        let token = spec.get("token").and_then(Value::as_str).unwrap_or_default();
        if token.is_empty() {
            return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences = spec.get("audiences").and_then(Value::as_array).into_iter().flatten();
        let audiences: Vec<String> = audiences.filter_map(Value::as_str).map(str::to_string).collect();
        let known = match self.tokens.verify_current(token, &audiences).await {
            // Tokens of these kinds name no audience of ours: they are for this server.
            Ok(None) => match self.foreign(token).await {
                Ok(Some(_)) if !audiences.is_empty() && !self.tokens.is_own_audience(&audiences) => Ok(None),
                Ok(user) => Ok(user.map(|user| (user, vec![self.tokens.default_audience().to_string()]))),
                Err(refused) => Err(refused),
            },
            known => known,
        };
        Ok(match known {
            Ok(Some((user, good_for))) => json!({
                "authenticated": true, "user": user_info(&user.authenticated()), "audiences": good_for}),
            Ok(None) => json!({"error": "[invalid bearer token]"}),
            Err(refused) => json!({"error": format!("[invalid bearer token, {refused}]")}),
        })
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
    let extra = spec.get("extra").and_then(Value::as_object).into_iter().flatten();
    let extra = extra.map(|(key, values)| {
        let values = values.as_array().into_iter().flatten().filter_map(Value::as_str);
        (key.to_ascii_lowercase(), values.map(str::to_string).collect())
    });
    Ok(UserInfo { name: text("user"), uid: text("uid"), groups, extra: extra.collect() })
}

/// The request that a review asks about.
fn request_of(kind: &str, spec: &Value) -> Result<RequestInfo, ApiError> {
    let text = |attributes: &Value, field: &str| {
        attributes.get(field).and_then(Value::as_str).unwrap_or_default().to_string()
    };
    let part = |field: &str| spec.get(field).filter(|attributes| !attributes.is_null());
    let fault = |field: &str, why: &str| {
        let error = FieldError {
            reason: "FieldValueInvalid",
            field: format!("spec.{field}"),
            message: format!("Invalid value: null: {why}"),
        };
        ApiError::invalid("authorization.k8s.io", kind, "", &[error])
    };
    match (part("resourceAttributes"), part("nonResourceAttributes")) {
        (Some(_), Some(_)) => {
            Err(fault("nonResourceAttributes", "cannot be specified in combination with resourceAttributes"))
        }
        (None, None) => Err(fault(
            "resourceAttributes",
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        (Some(attributes), None) => Ok(RequestInfo {
            is_resource: true,
            special_verb: text(attributes, "verb"),
            verb: verb(&text(attributes, "verb")),
            group: text(attributes, "group"),
            version: text(attributes, "version"),
            namespace: text(attributes, "namespace"),
            resource: text(attributes, "resource"),
            subresource: text(attributes, "subresource"),
            name: text(attributes, "name"),
            selected_node: selected(attributes, "spec.nodeName"),
            ..RequestInfo::default()
        }),
        (None, Some(attributes)) => Ok(RequestInfo {
            special_verb: text(attributes, "verb"),
            verb: verb(&text(attributes, "verb")),
            path: text(attributes, "path"),
            ..RequestInfo::default()
        }),
    }
}

/// The value that a review's field selector demands of a field.
fn selected(attributes: &Value, field: &str) -> String {
    let selector = attributes.get("fieldSelector").unwrap_or(&Value::Null);
    let requirements = selector.get("requirements").and_then(Value::as_array).into_iter().flatten();
    let exact = requirements.filter(|r| r["key"] == field && r["operator"] == "In").find_map(|r| {
        match r["values"].as_array().map(Vec::as_slice) {
            Some([value]) => value.as_str(),
            _ => None,
        }
    });
    let raw = selector.get("rawSelector").and_then(Value::as_str).unwrap_or_default();
    let raw = api::selector::FieldSelector::parse(raw).ok();
    let raw = raw.as_ref().and_then(|selector| selector.exact(field));
    exact.or(raw).unwrap_or_default().to_string()
}

/// The verbs that requests have; authorizers that treat them differently look here, roles at the special verb.
fn verb(text: &str) -> &'static str {
    const KNOWN: [&str; 12] = [
        "create",
        "delete",
        "deletecollection",
        "get",
        "head",
        "list",
        "options",
        "patch",
        "post",
        "put",
        "update",
        "watch",
    ];
    KNOWN.into_iter().find(|known| *known == text).unwrap_or("other")
}
