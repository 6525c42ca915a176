//! What an administrator's flags and files say about who is let do what.

use std::path::{Path, PathBuf};

use anyhow::Context;
use apiserver::Security;
use apiserver::admission::read_admission_config;
use apiserver::audit::{AuditConfig, AuditPolicy};
use apiserver::auth::{Algorithm, OidcConfig};

/// Flags; the files that they name are read when the API server is built.
#[derive(Clone, Debug)]
pub struct SecuritySettings {
    pub admission_control_config_file: Option<PathBuf>,
    /// The policy and the log.
    pub audit: Option<(PathBuf, PathBuf)>,
    pub oidc: Option<OidcSettings>,
}

/// An issuer outside whose users are let in.
#[derive(Clone, Debug)]
pub struct OidcSettings {
    pub issuer_url: String,
    pub client_id: String,
    pub username_claim: String,
    pub username_prefix: Option<String>,
    pub groups_claim: Option<String>,
    pub groups_prefix: String,
    /// As `key=value`.
    pub required_claims: Vec<String>,
    pub authority_file: Option<PathBuf>,
    pub algorithms: Vec<String>,
}

impl SecuritySettings {
    /// Reads the files.
    pub fn load(&self) -> anyhow::Result<Security> {
        let mut security = Security::default();
        if let Some(path) = &self.admission_control_config_file {
            let problem = || format!("--admission-control-config-file {}", path.display());
            security.pod_security = read_admission_config(&read(path, problem)?).with_context(problem)?;
        }
        if let Some((policy, log)) = &self.audit {
            let problem = || format!("--audit-policy-file {}", policy.display());
            let policy = AuditPolicy::read(&read(policy, problem)?).with_context(problem)?;
            security.audit = Some(AuditConfig { policy, path: log.clone() });
        }
        security.oidc = self.oidc.as_ref().map(OidcSettings::load).transpose()?;
        Ok(security)
    }
}

impl OidcSettings {
    fn load(&self) -> anyhow::Result<OidcConfig> {
        let claim = |text: &String| {
            let (key, value) = text
                .split_once('=')
                .with_context(|| format!("--oidc-required-claim {text} is not key=value"))?;
            Ok((key.to_string(), value.to_string()))
        };
        let algorithm = |name: &String| {
            let known: Option<Algorithm> = name.parse().ok().filter(|_| !name.starts_with("HS"));
            known.with_context(|| format!("--oidc-signing-algs {name} is none of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384"))
        };
        let prefix = match self.username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) => prefix.to_string(),
            None if self.username_claim == "email" => String::new(),
            None => format!("{}#", self.issuer_url),
        };
        let authority = self.authority_file.as_ref();
        let authority =
            authority.map(|path| read(path, || format!("--oidc-ca-file {}", path.display()))).transpose()?;
        Ok(OidcConfig {
            issuer_url: self.issuer_url.clone(),
            client_id: self.client_id.clone(),
            authority_pem: authority.unwrap_or_default().into_bytes(),
            username_claim: self.username_claim.clone(),
            username_prefix: prefix,
            groups_claim: self.groups_claim.clone(),
            groups_prefix: self.groups_prefix.clone(),
            required_claims: self.required_claims.iter().map(claim).collect::<anyhow::Result<_>>()?,
            algorithms: self.algorithms.iter().map(algorithm).collect::<anyhow::Result<_>>()?,
        })
    }
}

fn read(path: &Path, problem: impl Fn() -> String) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> OidcSettings {
        OidcSettings {
            issuer_url: "https://id.example.com".into(),
            client_id: "c".into(),
            username_claim: "sub".into(),
            username_prefix: None,
            groups_claim: None,
            groups_prefix: String::new(),
            required_claims: Vec::new(),
            authority_file: None,
            algorithms: vec!["ES256".into()],
        }
    }

    #[test]
    fn names_of_others_are_kept_apart_unless_one_says_otherwise() {
        let prefix = |settings: OidcSettings| settings.load().unwrap().username_prefix;
        assert_eq!(prefix(settings()), "https://id.example.com#");
        assert_eq!(prefix(OidcSettings { username_claim: "email".into(), ..settings() }), "");
        assert_eq!(prefix(OidcSettings { username_prefix: Some("-".into()), ..settings() }), "");
        assert_eq!(prefix(OidcSettings { username_prefix: Some("x:".into()), ..settings() }), "x:");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let error = |settings: OidcSettings| settings.load().unwrap_err().to_string();
        assert!(error(OidcSettings { algorithms: vec!["HS256".into()], ..settings() }).contains("HS256"));
        assert!(
            error(OidcSettings { required_claims: vec!["a".into()], ..settings() }).contains("key=value")
        );
    }
}
