//! Registry credentials out of a pod's imagePullSecrets.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_cri::v1::AuthConfig;
use serde::Deserialize;

#[derive(Default, Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Clone, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: String,
}

/// The credentials that match an image, the most specific first. A secret that cannot be read gives none.
pub fn matching(image: &str, secrets: &[BTreeMap<String, Vec<u8>>]) -> Vec<AuthConfig> {
    let repository = repository(image);
    let mut found: Vec<(usize, AuthConfig)> = Vec::new();
    for secret in secrets {
        let entries = if let Some(bytes) = secret.get(".dockerconfigjson") {
            serde_json::from_slice::<DockerConfig>(bytes).unwrap_or_default().auths
        } else if let Some(bytes) = secret.get(".dockercfg") {
            serde_json::from_slice(bytes).unwrap_or_default()
        } else {
            continue;
        };
        for (registry, entry) in entries {
            let pattern = normalize(&registry);
            if matches(&pattern, &repository) {
                found.push((pattern.len(), auth(&registry, &entry)));
            }
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn auth(registry: &str, entry: &Entry) -> AuthConfig {
    let decoded = STANDARD.decode(&entry.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (username, password) = match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((username, password)) => (username.to_string(), password.trim_end_matches('\0').to_string()),
        None => (entry.username.clone(), entry.password.clone()),
    };
    AuthConfig {
        username,
        password,
        server_address: registry.to_string(),
        identity_token: entry.identitytoken.clone(),
        ..AuthConfig::default()
    }
}

/// `host/path` of an image, with Docker's defaults.
fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let name = match name.rsplit_once(':') {
        Some((before, after)) if !after.contains('/') => before,
        _ => name,
    };
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_string(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

fn normalize(registry: &str) -> String {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    if bare == "index.docker.io" { "docker.io".to_string() } else { bare.to_string() }
}

/// Hosts match part by part with `*` for any one part; paths match as prefixes.
fn matches(pattern: &str, repository: &str) -> bool {
    let (pattern_host, pattern_path) = pattern.split_once('/').unwrap_or((pattern, ""));
    let (host, path) = repository.split_once('/').unwrap_or((repository, ""));
    let parts = |host: &str| host.split('.').map(str::to_string).collect::<Vec<_>>();
    let (wanted, given) = (parts(pattern_host), parts(host));
    let hosts = wanted.len() == given.len() && wanted.iter().zip(&given).all(|(w, g)| w == "*" || w == g);
    let rest = path.strip_prefix(pattern_path);
    hosts && rest.is_some_and(|rest| pattern_path.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_entry_comes_first_and_strangers_not_at_all() {
        let config = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": {"auth": STANDARD.encode("hub:1")},
            "reg.example:5000": {"auth": STANDARD.encode("wide:2")},
            "reg.example:5000/team": {"username": "team", "password": "3"},
            "*.corp.example": {"username": "star", "password": "4"},
        }});
        let secret = BTreeMap::from([(".dockerconfigjson".to_string(), config.to_string().into_bytes())]);
        let users = |image: &str| -> Vec<String> {
            matching(image, std::slice::from_ref(&secret)).into_iter().map(|auth| auth.username).collect()
        };
        assert_eq!(users("reg.example:5000/team/web:v1"), ["team", "wide"]);
        assert_eq!(users("reg.example:5000/teamwork/web"), ["wide"]);
        assert_eq!(users("busybox"), ["hub"]);
        assert_eq!(users("a.corp.example/x@sha256:00"), ["star"]);
        assert!(users("other.example/x").is_empty());
    }
}
