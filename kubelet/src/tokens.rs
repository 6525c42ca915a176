//! Service-account tokens for pods: asked for when first needed, and anew when four fifths of their life have passed.

use std::collections::HashMap;

use client::ErrorExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::{Api, Client};
use parking_lot::Mutex;

use crate::pod::PodExt;

/// A token is not used for longer than this, whatever its life.
const AGE_MAX: SignedDuration = SignedDuration::from_hours(24);

struct Token {
    text: String,
    renew_at: Timestamp,
}

/// One pod's tokens, by audience and life.
#[derive(Default)]
pub struct Tokens {
    held: Mutex<HashMap<(String, i64), Token>>,
}

impl Tokens {
    /// The token for an audience; a held one while it is fresh enough.
    pub async fn get(
        &self,
        client: &Client,
        pod: &Pod,
        audience: &str,
        seconds: i64,
    ) -> Result<String, String> {
        let key = (audience.to_string(), seconds);
        let now = Timestamp::now();
        if let Some(token) = self.held.lock().get(&key).filter(|token| now < token.renew_at) {
            return Ok(token.text.clone());
        }
        match ask(client, pod, audience, seconds).await {
            Ok(token) => {
                let text = token.text.clone();
                self.held.lock().insert(key, token);
                Ok(text)
            }
            // A token past its renewal is better than none: it is good for a fifth of its life yet.
            Err(error) => match self.held.lock().get_mut(&key) {
                Some(token) => {
                    tracing::warn!(pod = pod.title(), %error, "a token could not be renewed; trying again");
                    token.renew_at = now.saturating_add(SignedDuration::from_secs(10)).unwrap_or(now);
                    Ok(token.text.clone())
                }
                None => Err(error),
            },
        }
    }

    /// When the first token is due for renewal.
    pub fn renew_at(&self) -> Option<Timestamp> {
        self.held.lock().values().map(|token| token.renew_at).min()
    }
}

async fn ask(client: &Client, pod: &Pod, audience: &str, seconds: i64) -> Result<Token, String> {
    let account =
        pod.spec().service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(audience).filter(|a| !a.is_empty()).map(|a| vec![a.to_string()]),
            expiration_seconds: Some(seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_string()),
                kind: Some("Pod".to_string()),
                name: Some(pod.name().to_string()),
                uid: Some(pod.uid().to_string()),
            }),
        }),
        ..TokenRequest::default()
    };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), pod.namespace());
    let reply = accounts
        .create_token_request(account, &kube::api::PostParams::default(), &request)
        .await
        .map_err(|error| format!("failed to fetch token: {}", error.told()))?;
    let status = reply.status.ok_or("failed to fetch token: the answer has no status")?;
    let now = Timestamp::now();
    let (Some(text), Some(expires)) = (status.token, status.expiration_timestamp) else {
        return Err("failed to fetch token: the answer has none".to_string());
    };
    let life = expires.0.duration_since(now);
    let fresh = (life * 4 / 5).min(AGE_MAX);
    Ok(Token { text, renew_at: now.saturating_add(fresh).unwrap_or(now) })
}
