//! Service-account tokens: signed here, bound to an account and, if asked, to a pod, a secret or a node; good for a
//! time and an audience. A token ends with what it is bound to.
//!
//! The signature of a token is checked once and remembered; its time, its audience and that what it is bound to still
//! lives are checked every time. As upstream, a token that the agent renews for a pod every hour (3607 seconds) is in
//! truth good for a year as long as the pod lives, for clients that read their token only once.

mod known;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::ApiError;
use async_trait::async_trait;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Authenticator, Credentials, Refused, UserInfo};
use crate::config::ServiceAccountKeys;
use crate::objects::Objects;
use known::{Known, KnownTokens};

const USER_PREFIX: &str = "system:serviceaccount:";
/// The lifetime that is asked for tokens in pods; others are taken at their word.
const RENEWED_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;
/// What is deleted gracefully still counts for so long after its time.
const DELETED_LEEWAY_SECONDS: i64 = 60;

/// What a token says. The names of the fields are upstream's.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    bound: Bound,
}

/// What a token is bound to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Bound {
    namespace: String,
    serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    secret: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    node: Option<Reference>,
    /// When a client should have got a new one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    warnafter: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Reference {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
}

/// What a token is to be bound to beside its account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoundTo {
    /// `v1`
    pub api_version: String,
    /// `Pod`, `Secret` or `Node`.
    pub kind: String,
    /// Its name, in the account's namespace.
    pub name: String,
    /// If it is said, the object must have it.
    pub uid: String,
}

/// A request for a token, already authorized and defaulted.
#[derive(Clone, Debug)]
pub struct TokenSpec {
    /// For whom the token is; the API server itself when empty.
    pub audiences: Vec<String>,
    /// For how long.
    pub lifetime_seconds: i64,
    /// What it is bound to beside the account.
    pub bound_to: Option<BoundTo>,
}

/// Signs and checks tokens.
pub struct ServiceAccountTokens {
    objects: Objects,
    issuer: String,
    signing: EncodingKey,
    verifying: Vec<DecodingKey>,
    /// The public keys, PEM, for `/openid/v1/jwks`.
    pub public_keys_pem: Vec<String>,
    key_id: String,
    known: Mutex<KnownTokens>,
}

impl ServiceAccountTokens {
    /// Fails when a key is not a P-256 key in PEM.
    pub fn new(objects: Objects, keys: &ServiceAccountKeys) -> Result<Self, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("the service-account key: {error}");
        let private = std::str::from_utf8(&keys.signing_key_pem).map_err(|e| wrong(&e))?;
        let own_public = pki::public_key_pem(private).map_err(|e| wrong(&e))?;
        let mut public_keys_pem = vec![own_public];
        for older in &keys.verification_keys_pem {
            public_keys_pem.push(String::from_utf8(older.clone()).map_err(|e| wrong(&e))?);
        }
        let verifying = public_keys_pem.iter().map(|pem| DecodingKey::from_ec_pem(pem.as_bytes()));
        let verifying = verifying.collect::<Result<Vec<_>, _>>().map_err(|e| wrong(&e))?;
        let key_id = public_keys_pem.first().map(|pem| key_id(pem)).unwrap_or_default();
        Ok(Self {
            objects,
            issuer: keys.issuer.clone(),
            signing: EncodingKey::from_ec_pem(&keys.signing_key_pem).map_err(|e| wrong(&e))?,
            verifying,
            public_keys_pem,
            key_id,
            known: Mutex::default(),
        })
    }

    /// For whom tokens are when nobody else is named.
    pub fn default_audience(&self) -> &str {
        &self.issuer
    }

    /// Whether one of the audiences is this API server.
    pub fn is_own_audience(&self, audiences: &[String]) -> bool {
        audiences.contains(&self.issuer)
    }

    /// Signs a token for an account; `now` in seconds. Answers the token and when it has to be renewed.
    pub fn issue(&self, account: &Value, spec: &TokenSpec, now: i64) -> Result<(String, i64), ApiError> {
        let (namespace, name) = (api::object::namespace(account), api::object::name(account));
        let mut bound = Bound {
            namespace: namespace.to_string(),
            serviceaccount: reference(account),
            ..Bound::default()
        };
        if let Some(to) = &spec.bound_to {
            self.bind(&mut bound, to, namespace, name)?;
        }
        let audiences =
            if spec.audiences.is_empty() { vec![self.issuer.clone()] } else { spec.audiences.clone() };
        let renew_at = now.saturating_add(spec.lifetime_seconds);
        let is_renewed = bound.pod.is_some()
            && spec.lifetime_seconds == RENEWED_SECONDS
            && audiences.iter().all(|audience| *audience == self.issuer);
        if is_renewed {
            bound.warnafter = Some(renew_at);
        }
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: format!("{USER_PREFIX}{namespace}:{name}"),
            aud: audiences,
            exp: if is_renewed { now.saturating_add(EXTENDED_SECONDS) } else { renew_at },
            iat: now,
            nbf: now,
            jti: uuid::Uuid::new_v4().to_string(),
            bound,
        };
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, &claims, &self.signing)
            .map_err(|error| ApiError::internal(format!("the token could not be signed: {error}")))?;
        Ok((token, renew_at))
    }

    fn bind(&self, bound: &mut Bound, to: &BoundTo, namespace: &str, account: &str) -> Result<(), ApiError> {
        let (row, plural, place) = match (to.api_version.as_str(), to.kind.as_str()) {
            ("v1" | "", "Pod") => ("core/pods", "pods", namespace),
            ("v1" | "", "Secret") => ("core/secrets", "secrets", namespace),
            ("v1" | "", "Node") => ("core/nodes", "nodes", ""),
            (version, kind) => {
                let (group, version) = version.split_once('/').unwrap_or(("", version));
                let why = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
                return Err(ApiError::bad_request(why));
            }
        };
        let object = self
            .objects
            .get(row, place, &to.name)
            .ok_or_else(|| ApiError::not_found("", plural, &to.name))?;
        let target = reference(&object);
        if to.kind == "Pod" {
            let runs_as = object.pointer("/spec/serviceAccountName").and_then(Value::as_str);
            if runs_as != Some(account) {
                let why = format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                );
                return Err(ApiError::bad_request(why));
            }
        }
        if !to.uid.is_empty() && to.uid != target.uid {
            let why = format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                to.uid
            );
            return Err(ApiError::conflict("", &to.kind, &to.name, &why));
        }
        match to.kind.as_str() {
            "Pod" => {
                let node = object.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
                if !node.is_empty() {
                    let known = self.objects.get("core/nodes", "", node).map(|node| reference(&node));
                    let nameless = || Reference { name: node.to_string(), uid: String::new() };
                    bound.node = Some(known.unwrap_or_else(nameless));
                }
                bound.pod = Some(target);
            }
            "Secret" => bound.secret = Some(target),
            _ => bound.node = Some(target),
        }
        Ok(())
    }

    /// Who a token stands for, if it is one of ours and good for one of the audiences (by default: this API server).
    pub fn verify(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<(UserInfo, Vec<String>)>, Refused> {
        let hash = known::hash_of(token);
        let found = self.known.lock().get(&hash);
        let known = match found {
            Some(known) => known,
            None if !self.is_ours(token) => return Ok(None),
            None => {
                let claims = self.decode(token)?;
                let known = Arc::new(Known::new(user_of(&claims), claims));
                self.known.lock().insert(hash, known.clone());
                known
            }
        };
        let claims = &known.claims;
        let now = Timestamp::now().as_second();
        if now >= claims.exp {
            return Err(Refused("service account token has expired".to_string()));
        }
        if now < claims.nbf {
            return Err(Refused("service account token is not valid yet".to_string()));
        }
        let own = [self.issuer.clone()];
        let wanted = if audiences.is_empty() { own.as_slice() } else { audiences };
        let good_for: Vec<String> =
            wanted.iter().filter(|audience| claims.aud.contains(audience)).cloned().collect();
        if good_for.is_empty() {
            let why =
                format!("token audiences {:?} is invalid for the target audiences {wanted:?}", claims.aud);
            return Err(Refused(why));
        }
        known.check_bound(&self.objects, now)?;
        Ok(Some((known.user.clone(), good_for)))
    }

    /// Like [`Self::verify`]; what it refuses has been compared with the newest state.
    pub async fn verify_current(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<(UserInfo, Vec<String>)>, Refused> {
        match self.verify(token, audiences) {
            // The account may have been made a moment ago.
            Err(_) if self.objects.catch_up().await => self.verify(token, audiences),
            decided => decided,
        }
    }

    /// Whether the token is a JWT that says that we issued it, signed or not.
    fn is_ours(&self, token: &str) -> bool {
        use base64::Engine;
        let mut parts = token.split('.');
        let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).ok();
        let claims: Option<Value> = decoded.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        claims.is_some_and(|claims| claims.get("iss").and_then(Value::as_str) == Some(&self.issuer))
    }

    /// Checks the signature, with our algorithm whatever the token asks for. Times are checked every time.
    fn decode(&self, token: &str) -> Result<Claims, Refused> {
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_issuer(&[&self.issuer]);
        rules.validate_exp = false;
        rules.validate_aud = false;
        let mut last = "there are no keys".to_string();
        for key in &self.verifying {
            match jsonwebtoken::decode::<Claims>(token, key, &rules) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) => last = error.to_string(),
            }
        }
        Err(Refused(format!("service account token: {last}")))
    }
}

#[async_trait]
impl Authenticator for ServiceAccountTokens {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<UserInfo>, Refused> {
        let Some(token) = credentials.bearer_token() else { return Ok(None) };
        Ok(self.verify_current(token, &[]).await?.map(|(user, _)| user))
    }
}

fn reference(object: &Value) -> Reference {
    Reference {
        name: api::object::name(object).to_string(),
        uid: api::object::metadata(object, "uid").unwrap_or_default().to_string(),
    }
}

fn user_of(claims: &Claims) -> UserInfo {
    let bound = &claims.bound;
    let mut extra = BTreeMap::new();
    let mut say = |key: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_string()]);
        }
    };
    say("credential-id", &format!("JTI={}", claims.jti));
    if let Some(pod) = &bound.pod {
        say("pod-name", &pod.name);
        say("pod-uid", &pod.uid);
    }
    if let Some(node) = &bound.node {
        say("node-name", &node.name);
        say("node-uid", &node.uid);
    }
    UserInfo {
        name: format!("{USER_PREFIX}{}:{}", bound.namespace, bound.serviceaccount.name),
        uid: bound.serviceaccount.uid.clone(),
        groups: vec![
            "system:serviceaccounts".to_string(),
            format!("system:serviceaccounts:{}", bound.namespace),
        ],
        extra,
    }
}

/// A short name for a key, the same on every server.
pub(crate) fn key_id(public_pem: &str) -> String {
    use base64::Engine;
    use sha2::Digest;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(public_pem.trim()))
}
