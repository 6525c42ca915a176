//! Service-account tokens: signed here, bound to an account and, if asked, to a pod, a secret or a node; good for a
//! time and an audience. A token ends with what it is bound to.

use std::collections::BTreeMap;

use api::ApiError;
use async_trait::async_trait;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Authenticator, Credentials, Refused, UserInfo};
use crate::config::ServiceAccountKeys;
use crate::objects::Objects;

const USER_PREFIX: &str = "system:serviceaccount:";

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
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Reference {
    name: String,
    uid: String,
}

/// A request for a token, already authorized and defaulted.
#[derive(Clone, Debug)]
pub struct TokenSpec {
    /// For whom the token is; the API server itself when empty.
    pub audiences: Vec<String>,
    /// For how long.
    pub lifetime_seconds: i64,
    /// Kind and name of what it is bound to beside the account.
    pub bound_to: Option<(String, String)>,
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
        })
    }

    /// For whom tokens are when nobody else is named.
    pub fn default_audience(&self) -> &str {
        &self.issuer
    }

    /// Signs a token for an account; `now` in seconds. Answers the token and when it expires.
    pub fn issue(&self, account: &Value, spec: &TokenSpec, now: i64) -> Result<(String, i64), ApiError> {
        let (namespace, name) = (api::object::namespace(account), api::object::name(account));
        let mut bound = Bound {
            namespace: namespace.to_string(),
            serviceaccount: reference(account),
            ..Bound::default()
        };
        if let Some((kind, target)) = &spec.bound_to {
            self.bind(&mut bound, kind, target, namespace, name)?;
        }
        let audiences =
            if spec.audiences.is_empty() { vec![self.issuer.clone()] } else { spec.audiences.clone() };
        let expires = now + spec.lifetime_seconds;
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: format!("{USER_PREFIX}{namespace}:{name}"),
            aud: audiences,
            exp: expires,
            iat: now,
            nbf: now,
            jti: uuid::Uuid::new_v4().to_string(),
            bound,
        };
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, &claims, &self.signing)
            .map_err(|error| ApiError::internal(format!("the token could not be signed: {error}")))?;
        Ok((token, expires))
    }

    fn bind(
        &self,
        bound: &mut Bound,
        kind: &str,
        target: &str,
        namespace: &str,
        account: &str,
    ) -> Result<(), ApiError> {
        let (row, plural, place) = match kind {
            "Pod" => ("core/pods", "pods", namespace),
            "Secret" => ("core/secrets", "secrets", namespace),
            "Node" => ("core/nodes", "nodes", ""),
            other => {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token to a {other}; only to a Pod, Secret or Node"
                )));
            }
        };
        let object =
            self.objects.get(row, place, target).ok_or_else(|| ApiError::not_found("", plural, target))?;
        let slot = match kind {
            "Pod" => {
                let runs_as = object.pointer("/spec/serviceAccountName").and_then(Value::as_str);
                if runs_as != Some(account) {
                    let why = format!(
                        "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                    );
                    return Err(ApiError::bad_request(why));
                }
                if let Some(node) = object.pointer("/spec/nodeName").and_then(Value::as_str) {
                    bound.node = self.objects.get("core/nodes", "", node).map(|node| reference(&node));
                }
                &mut bound.pod
            }
            "Secret" => &mut bound.secret,
            _ => &mut bound.node,
        };
        *slot = Some(reference(&object));
        Ok(())
    }

    /// Who a token stands for, if it is one of ours and good for one of the audiences (by default: this API server).
    pub fn verify(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<(UserInfo, Vec<String>)>, Refused> {
        if !self.is_ours(token) {
            return Ok(None);
        }
        let claims = self.decode(token)?;
        let own = [self.issuer.clone()];
        let wanted = if audiences.is_empty() { own.as_slice() } else { audiences };
        let good_for: Vec<String> =
            wanted.iter().filter(|audience| claims.aud.contains(audience)).cloned().collect();
        if good_for.is_empty() {
            return Err(Refused(format!("the token is for {:?}", claims.aud)));
        }
        self.check_bound(&claims.bound)?;
        Ok(Some((user_of(&claims), good_for)))
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

    fn decode(&self, token: &str) -> Result<Claims, Refused> {
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_issuer(&[&self.issuer]);
        rules.validate_nbf = true;
        rules.validate_aud = false;
        let mut last = "there are no keys".to_string();
        for key in &self.verifying {
            match jsonwebtoken::decode::<Claims>(token, key, &rules) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) => last = error.to_string(),
            }
        }
        Err(Refused(format!("a service-account token: {last}")))
    }

    /// A token outlives neither its account nor its pod, secret or node.
    fn check_bound(&self, bound: &Bound) -> Result<(), Refused> {
        let namespace = bound.namespace.as_str();
        let mut all = vec![("core/serviceaccounts", namespace, Some(&bound.serviceaccount))];
        all.push(("core/pods", namespace, bound.pod.as_ref()));
        all.push(("core/secrets", namespace, bound.secret.as_ref()));
        // With a pod the node is told for information; the pod is what counts.
        all.push(("core/nodes", "", bound.node.as_ref().filter(|_| bound.pod.is_none())));
        for (row, place, reference) in all {
            let Some(wanted) = reference else { continue };
            let found = self.objects.get(row, place, &wanted.name);
            let alive =
                found.is_some_and(|object| api::object::metadata(&object, "uid") == Some(&wanted.uid));
            if !alive {
                return Err(Refused(format!("the token is bound to {row} {}, which is gone", wanted.name)));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Authenticator for ServiceAccountTokens {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<UserInfo>, Refused> {
        let Some(token) = credentials.bearer_token() else { return Ok(None) };
        match self.verify(token, &[]) {
            // The account may have been made a moment ago, on another server.
            Err(_) if self.objects.catch_up().await => Ok(self.verify(token, &[])?.map(|(user, _)| user)),
            decided => Ok(decided?.map(|(user, _)| user)),
        }
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
        extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_string()]);
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
