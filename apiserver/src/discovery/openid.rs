//! Who issues service-account tokens, and with which keys, for those who check tokens elsewhere.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Value, json};
use x509_parser::pem::Pem;

use crate::auth::service_account::{ServiceAccountTokens, key_id};
use crate::http::respond::with_type;
use crate::http::{JSON, Response, body};

/// Answers `/.well-known/openid-configuration`.
pub(super) fn configuration(issuer: &str) -> Response {
    let tree = json!({
        "issuer": issuer, "jwks_uri": format!("{}/openid/v1/jwks", issuer.trim_end_matches('/')),
        "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    with_type(StatusCode::OK, JSON, body::full(tree.to_string()))
}

/// Answers `/openid/v1/jwks`.
pub(super) fn keys(tokens: &ServiceAccountTokens) -> Response {
    let keys: Vec<Value> = tokens.public_keys_pem.iter().filter_map(|pem| key(pem)).collect();
    let tree = json!({"keys": keys});
    with_type(StatusCode::OK, "application/jwk-set+json", body::full(tree.to_string()))
}

/// A P-256 key as a JSON Web Key: its structure ends with the uncompressed point, 4 and two coordinates.
fn key(pem: &str) -> Option<Value> {
    let der = Pem::iter_from_buffer(pem.as_bytes()).next()?.ok()?.contents;
    let point = der.get(der.len().checked_sub(65)?..)?;
    let (tag, coordinates) = point.split_first()?;
    if *tag != 4 {
        return None;
    }
    let (x, y) = coordinates.split_at_checked(32)?;
    Some(json!({
        "use": "sig", "kty": "EC", "kid": key_id(pem), "crv": "P-256", "alg": "ES256",
        "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
    }))
}
