//! OpenID Connect: users who bring an id token of an issuer outside.
//!
//! As upstream's `--oidc-…` flags: tokens of that issuer are checked by the keys that it publishes, for this cluster's
//! client id, in their time; the user and the groups are claims, with prefixes that keep them apart from the cluster's
//! own. Keys are fetched when a token names one that is not known, at most every ten seconds, and kept when the issuer
//! cannot be reached. Absent: several issuers, CEL mappings, distributed claims.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Authenticator, Credentials, Refused, UserInfo};
use crate::http::outgoing::{Outgoing, https};

const FETCH_EVERY: Duration = Duration::from_secs(10);
const FETCH_MAX: Duration = Duration::from_secs(10);
/// Clocks differ.
const LEEWAY_SECONDS: u64 = 10;

/// Whose tokens count, and what they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcConfig {
    /// `https://…`, as tokens name it.
    pub issuer_url: String,
    /// For whom tokens have to be.
    pub client_id: String,
    /// Who vouches for the issuer's server, PEM; empty for those whom the machine trusts.
    pub authority_pem: Vec<u8>,
    /// The claim that is the user's name: `sub`, `email`, …
    pub username_claim: String,
    /// What is put before it.
    pub username_prefix: String,
    /// The claim that lists groups.
    pub groups_claim: Option<String>,
    /// What is put before each.
    pub groups_prefix: String,
    /// Claims that have to be there with these values.
    pub required_claims: BTreeMap<String, String>,
    /// How tokens may be signed.
    pub algorithms: Vec<Algorithm>,
}

/// The authenticator.
pub struct Oidc {
    config: OidcConfig,
    keys: RwLock<JwkSet>,
    /// When keys were last asked for; held by the one who asks.
    fetched: Mutex<Option<Instant>>,
}

impl Oidc {
    /// Fetches nothing yet.
    pub fn new(config: OidcConfig) -> Result<Self, String> {
        https(&config.issuer_url).map_err(|why| format!("--oidc-issuer-url {why}"))?;
        Ok(Self { config, keys: RwLock::new(JwkSet { keys: Vec::new() }), fetched: Mutex::default() })
    }

    /// Who a token stands for; `None` when it is not the issuer's.
    pub async fn verify(&self, token: &str) -> Result<Option<UserInfo>, Refused> {
        if issuer_of(token).as_deref() != Some(self.config.issuer_url.as_str()) {
            return Ok(None);
        }
        let refused = |why: &dyn std::fmt::Display| Refused(format!("oidc: {why}"));
        let header = jsonwebtoken::decode_header(token).map_err(|error| refused(&error))?;
        if !self.config.algorithms.contains(&header.alg) {
            return Err(refused(&format!("tokens signed with {:?} are not accepted", header.alg)));
        }
        let mut keys = self.keys_of(header.kid.as_deref());
        if keys.is_empty() {
            self.fetch().await?;
            keys = self.keys_of(header.kid.as_deref());
        }
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&[&self.config.client_id]);
        validation.set_issuer(&[&self.config.issuer_url]);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        let mut last = refused(&"no key of the issuer fits");
        for key in keys {
            match jsonwebtoken::decode::<Value>(token, &key, &validation) {
                Ok(data) => return self.user(&data.claims).map(Some),
                Err(error) => last = refused(&error),
            }
        }
        Err(last)
    }

    /// The keys of an id; all of them for a token that names none.
    fn keys_of(&self, id: Option<&str>) -> Vec<DecodingKey> {
        let keys = self.keys.read();
        let named = keys.keys.iter().filter(|key| id.is_none() || key.common.key_id.as_deref() == id);
        named.filter_map(|key| DecodingKey::from_jwk(key).ok()).collect()
    }

    async fn fetch(&self) -> Result<(), Refused> {
        let mut fetched = self.fetched.lock().await;
        if fetched.is_some_and(|at| at.elapsed() < FETCH_EVERY) {
            return Ok(());
        }
        *fetched = Some(Instant::now());
        match tokio::time::timeout(FETCH_MAX, self.published()).await {
            Ok(Ok(keys)) => {
                *self.keys.write() = keys;
                Ok(())
            }
            Ok(Err(why)) => Err(Refused(format!("oidc: the issuer's keys: {why}"))),
            Err(_) => Err(Refused("oidc: the issuer's keys: no answer in time".to_string())),
        }
    }

    async fn published(&self) -> Result<JwkSet, String> {
        let issuers = Outgoing::new(self.config.authority_pem.clone());
        let get = async |url: String| issuers.exchange(&url, None, None).await;
        let issuer = self.config.issuer_url.trim_end_matches('/');
        let document = get(format!("{issuer}/.well-known/openid-configuration")).await?;
        if document.get("issuer").and_then(Value::as_str) != Some(self.config.issuer_url.as_str()) {
            return Err("the server speaks for another issuer".to_string());
        }
        let keys = document.get("jwks_uri").and_then(Value::as_str).ok_or("it names no jwks_uri")?;
        serde_json::from_value(get(keys.to_string()).await?).map_err(|error| error.to_string())
    }

    fn user(&self, claims: &Value) -> Result<UserInfo, Refused> {
        let OidcConfig {
            username_claim, username_prefix, groups_claim, groups_prefix, required_claims, ..
        } = &self.config;
        let refused = |why: String| Refused(format!("oidc: {why}"));
        for (claim, wanted) in required_claims {
            if claims.get(claim).and_then(Value::as_str) != Some(wanted) {
                return Err(refused(format!("the claim {claim:?} is not as required")));
            }
        }
        let name = claims.get(username_claim).and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| refused(format!("there is no claim {username_claim:?}")))?;
        if username_claim == "email" && claims.get("email_verified").is_some_and(|verified| verified != true)
        {
            return Err(refused("the email address is not verified".to_string()));
        }
        let groups = match groups_claim.as_ref().and_then(|claim| claims.get(claim)) {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let groups = groups.into_iter().map(|group| format!("{groups_prefix}{group}")).collect();
        Ok(UserInfo { name: format!("{username_prefix}{name}"), groups, ..UserInfo::default() })
    }
}

/// What a token says of its issuer, whether or not that is true.
fn issuer_of(token: &str) -> Option<String> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    claims.get("iss")?.as_str().map(str::to_string)
}

#[async_trait]
impl Authenticator for Oidc {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<UserInfo>, Refused> {
        match credentials.bearer_token() {
            Some(token) => self.verify(token).await,
            None => Ok(None),
        }
    }
}
