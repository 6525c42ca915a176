//! Who may ask the agent what: certificates and tokens for who, access reviews for what. Answers of the API server are
//! kept for a while, as upstream keeps them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::agent_state::Agent;

const KEEP_TOKEN: Duration = Duration::from_secs(120);
const KEEP_ALLOWED: Duration = Duration::from_secs(300);
const KEEP_DENIED: Duration = Duration::from_secs(30);
const KEPT_MAX: usize = 1000;
const MASTERS: &str = "system:masters";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The user.
    pub user: String,
    /// The user's groups.
    pub groups: Vec<String>,
}

impl Caller {
    /// The one whom a verified client certificate names.
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_string();
        let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_string);
        let groups = groups.chain(["system:authenticated".to_string()]).collect();
        Some(Self { user, groups })
    }
}

/// What is asked for, in the words of an access review.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Wish {
    caller: Caller,
    verb: &'static str,
    subresource: &'static str,
}

/// Decides over requests.
pub struct Access {
    agent: Arc<Agent>,
    tokens: Kept<[u8; 32], Option<Caller>>,
    wishes: Kept<Wish, bool>,
}

impl Access {
    /// Asks the API server that the agent belongs to.
    pub fn new(agent: Arc<Agent>) -> Self {
        Self { agent, tokens: Kept::default(), wishes: Kept::default() }
    }

    /// Lets a request through, or answers it.
    pub async fn check(State(access): State<Arc<Self>>, request: Request<Body>, next: Next) -> Response {
        let caller = match request.extensions().get::<Caller>() {
            Some(caller) => Some(caller.clone()),
            None => match bearer(&request) {
                Some(token) => access.token_owner(token).await,
                None => None,
            },
        };
        let Some(caller) = caller else {
            return (StatusCode::UNAUTHORIZED, "Unauthorized").into_response();
        };
        let verb = verb(request.method());
        let subresource = subresource(request.uri().path());
        let user = caller.user.clone();
        if access.allows(Wish { caller, verb, subresource }).await {
            return next.run(request).await;
        }
        let node = &access.agent.config.node_name;
        let message = format!(
            "Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{subresource}], node={node})"
        );
        (StatusCode::FORBIDDEN, message).into_response()
    }

    async fn token_owner(&self, token: String) -> Option<Caller> {
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.tokens.get(&key) {
            return known;
        }
        let review =
            TokenReview { spec: TokenReviewSpec { token, audiences: None }, ..TokenReview::default() };
        let api = Api::<TokenReview>::all(self.agent.client.clone());
        let reply = match api.create(&PostParams::default(), &review).await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::warn!(%error, "a token could not be reviewed");
                return None;
            }
        };
        let status = reply.status.unwrap_or_default();
        let caller = status.user.filter(|_| status.authenticated == Some(true)).map(|user| Caller {
            user: user.username.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
        });
        self.tokens.put(key, caller.clone(), KEEP_TOKEN);
        caller
    }

    async fn allows(&self, wish: Wish) -> bool {
        if wish.caller.groups.iter().any(|group| group == MASTERS) {
            return true;
        }
        if let Some(known) = self.wishes.get(&wish) {
            return known;
        }
        let api = Api::<SubjectAccessReview>::all(self.agent.client.clone());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(wish.caller.user.clone()),
                groups: Some(wish.caller.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(wish.verb.to_string()),
                    version: Some("v1".to_string()),
                    resource: Some("nodes".to_string()),
                    subresource: Some(wish.subresource.to_string()),
                    name: Some(self.agent.config.node_name.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        match api.create(&PostParams::default(), &review).await {
            Ok(reply) => {
                let allowed = reply.status.is_some_and(|status| status.allowed);
                let keep = if allowed { KEEP_ALLOWED } else { KEEP_DENIED };
                self.wishes.put(wish, allowed, keep);
                allowed
            }
            Err(error) => {
                tracing::warn!(%error, "access could not be reviewed");
                false
            }
        }
    }
}

fn bearer(request: &Request<Body>) -> Option<String> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_string()).filter(|token| !token.is_empty())
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// As upstream divides the agent's paths.
fn subresource(path: &str) -> &'static str {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "stats" => "stats",
        "metrics" => "metrics",
        "logs" => "log",
        "spec" => "spec",
        "healthz" => "healthz",
        "configz" => "configz",
        "pods" | "runningpods" => "pods",
        _ => "proxy",
    }
}

/// Answers that are kept for a while.
struct Kept<K, V> {
    entries: Mutex<HashMap<K, (V, Instant)>>,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self { entries: Mutex::default() }
    }
}

impl<K: std::hash::Hash + Eq, V: Clone> Kept<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.entries
            .lock()
            .get(key)
            .filter(|(_, until)| *until > Instant::now())
            .map(|(value, _)| value.clone())
    }

    fn put(&self, key: K, value: V, keep: Duration) {
        let mut entries = self.entries.lock();
        let now = Instant::now();
        if entries.len() >= KEPT_MAX {
            entries.retain(|_, (_, until)| *until > now);
        }
        if entries.len() < KEPT_MAX {
            entries.insert(key, (value, now + keep));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_divided_as_upstream_divides_them() {
        assert_eq!(subresource("/stats/summary"), "stats");
        assert_eq!(subresource("/metrics/resource"), "metrics");
        assert_eq!(subresource("/exec/a/b/c"), "proxy");
        assert_eq!(subresource("/gantry/images"), "proxy");
        assert_eq!(verb(&Method::POST), "create");
    }
}
