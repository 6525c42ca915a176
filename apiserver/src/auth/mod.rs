//! Authentication: who asks.
//!
//! A list of [`Authenticator`]s is asked in turn; the first that knows the credentials decides. A request without any
//! credentials is anonymous; one with credentials that nobody accepts is refused with 401.

mod bootstrap_token;
mod client_certificate;
mod impersonation;
mod oidc;
pub mod service_account;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{ApiError, Reason};
use async_trait::async_trait;
use http::HeaderMap;

pub use bootstrap_token::BootstrapTokens;
pub use client_certificate::{ClientCertificate, PeerCertificates};
pub(crate) use impersonation::impersonated;
pub use jsonwebtoken::Algorithm;
pub use oidc::{Oidc, OidcConfig};

/// The group of every authenticated user.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

/// The API server itself: in its own process, and towards agents. Nobody is it who comes over the network.
pub(crate) const API_SERVER: &str = "system:apiserver";

/// Who asks, in the words of `authentication.k8s.io/v1 UserInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// `kubernetes-admin`, `system:node:n1`, …
    pub name: String,
    /// Set for service accounts.
    pub uid: String,
    /// Groups, without `system:authenticated` unless it has been added by the chain.
    pub groups: Vec<String>,
    /// Whatever else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user with groups.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        Self {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).to_string()).collect(),
            ..Self::default()
        }
    }

    /// Who sends no credentials.
    pub fn anonymous() -> Self {
        Self::new("system:anonymous", &[UNAUTHENTICATED])
    }

    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The user with `system:authenticated` among the groups.
    #[must_use]
    pub fn authenticated(mut self) -> Self {
        if self.name != "system:anonymous" && !self.is_in(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_string());
        }
        self
    }
}

/// What a request shows of its sender.
pub struct Credentials<'a> {
    /// The verified client certificate of the connection, if there was one.
    pub certificates: Option<&'a PeerCertificates>,
    /// The request's headers.
    pub headers: &'a HeaderMap,
}

impl Credentials<'_> {
    /// The bearer token, if there is one. Never to be logged.
    pub fn bearer_token(&self) -> Option<&str> {
        let value = self.headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|t| !t.is_empty())
    }
}

/// Credentials that an authenticator knows and refuses. The text goes to the log, not to the sender.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// One way to know who asks.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// The user; `None` when these credentials are not of the kind that this one knows.
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<UserInfo>, Refused>;
}

/// Asks the authenticators in turn.
pub(crate) async fn authenticate(
    chain: &[Arc<dyn Authenticator>],
    credentials: &Credentials<'_>,
) -> Result<UserInfo, ApiError> {
    let mut refused = false;
    for authenticator in chain {
        match authenticator.authenticate(credentials).await {
            Ok(Some(user)) => return Ok(user.authenticated()),
            Ok(None) => {}
            Err(refusal) => {
                tracing::debug!(%refusal, "credentials were refused");
                refused = true;
            }
        }
    }
    if refused || credentials.headers.contains_key(http::header::AUTHORIZATION) {
        return Err(ApiError::new(Reason::Unauthorized, "Unauthorized"));
    }
    Ok(UserInfo::anonymous())
}
