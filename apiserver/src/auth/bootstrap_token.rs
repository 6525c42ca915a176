//! Bootstrap tokens: what a joining node says before it has a certificate. Each is a secret in `kube-system`.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::{Authenticator, Credentials, Refused, UserInfo};
use crate::objects::Objects;

const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

/// Knows the tokens whose secrets are in the cache.
pub struct BootstrapTokens {
    objects: Objects,
}

impl BootstrapTokens {
    /// Looks secrets up in the cache.
    pub fn new(objects: Objects) -> Self {
        Self { objects }
    }

    fn user(&self, id: &str, secret: &str) -> Result<UserInfo, Refused> {
        let refused = |why: &str| Refused(format!("bootstrap token {id}: {why}"));
        let object = self
            .objects
            .get("core/secrets", "kube-system", &format!("bootstrap-token-{id}"))
            .ok_or_else(|| refused("there is no such token"))?;
        if object.get("type").and_then(Value::as_str) != Some(SECRET_TYPE) {
            return Err(refused("its secret is not of the type for tokens"));
        }
        let field = |name: &str| data(&object, name).unwrap_or_default();
        if object.pointer("/metadata/deletionTimestamp").is_some() {
            return Err(refused("it is being deleted"));
        }
        if field("token-id") != id || !equal(field("token-secret").as_bytes(), secret.as_bytes()) {
            return Err(refused("the secret half is wrong"));
        }
        if field("usage-bootstrap-authentication") != "true" {
            return Err(refused("it is not for authentication"));
        }
        let expiration = field("expiration");
        if !expiration.is_empty() {
            match expiration.parse::<Timestamp>() {
                Ok(end) if end > Timestamp::now() => {}
                Ok(_) => return Err(refused("it has expired")),
                Err(_) => return Err(refused("its expiration is not a time")),
            }
        }
        let mut groups = vec![GROUP.to_string()];
        let extra = field("auth-extra-groups");
        let extra =
            extra.split(',').map(str::trim).filter(|group| group.starts_with("system:bootstrappers:"));
        groups.extend(extra.map(str::to_string));
        Ok(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() })
    }
}

impl BootstrapTokens {
    /// Who a token stands for, if it is of this kind.
    pub async fn verify(&self, token: &str) -> Result<Option<UserInfo>, Refused> {
        let Some((id, secret)) = parse(token) else { return Ok(None) };
        match self.user(id, secret) {
            Err(_) if self.objects.catch_up().await => self.user(id, secret).map(Some),
            decided => decided.map(Some),
        }
    }
}

#[async_trait]
impl Authenticator for BootstrapTokens {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<UserInfo>, Refused> {
        match credentials.bearer_token() {
            Some(token) => self.verify(token).await,
            None => Ok(None),
        }
    }
}

/// `abcdef.0123456789abcdef`, or nothing.
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

fn data(secret: &Value, field: &str) -> Option<String> {
    let encoded = secret.get("data")?.get(field)?.as_str()?;
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

/// Takes the same time whether the first or the last byte differs.
fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_form_of_a_bootstrap_token_is_taken_for_one() {
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        assert_eq!(parse("abcdef.0123456789abcde"), None);
        assert_eq!(parse("eyJhbGciOi.eyJpc3M.sig"), None);
    }

    #[test]
    fn comparison_sees_every_difference() {
        assert!(equal(b"abc", b"abc"));
        assert!(!equal(b"abc", b"abd"));
        assert!(!equal(b"abc", b"ab"));
    }
}
