//! The file of `--admission-control-config-file`: upstream's `AdmissionConfiguration`, of which the plugin `PodSecurity` can
//! be set. Another plugin in it is an error rather than a silent difference.

use schema::decode::{Limits, yaml};
use serde::Deserialize;
use serde_json::Value;

use super::pod_security::{PodSecurityConfig, Policy, Standard, level, version};

/// A file that cannot be used. It has to be corrected.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AdmissionConfigError(String);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Plugin {
    name: String,
    #[serde(default)]
    configuration: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PodSecurityFile {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    kind: String,
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    exemptions: Exemptions,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Defaults {
    enforce: Option<String>,
    enforce_version: Option<String>,
    audit: Option<String>,
    audit_version: Option<String>,
    warn: Option<String>,
    warn_version: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Exemptions {
    usernames: Vec<String>,
    runtime_classes: Vec<String>,
    namespaces: Vec<String>,
}

/// Reads the file.
pub fn read_admission_config(text: &str) -> Result<PodSecurityConfig, AdmissionConfigError> {
    let fault = |why: &dyn std::fmt::Display| AdmissionConfigError(why.to_string());
    let tree = yaml(text.as_bytes(), &Limits::default()).map_err(|error| fault(&error))?;
    let file: File = serde_json::from_value(tree.value).map_err(|error| fault(&error))?;
    if file.kind != "AdmissionConfiguration" || !file.api_version.starts_with("apiserver.config.k8s.io/") {
        return Err(fault(&"it is no AdmissionConfiguration of apiserver.config.k8s.io/v1"));
    }
    let mut config = PodSecurityConfig::default();
    for plugin in file.plugins {
        if plugin.name != "PodSecurity" {
            return Err(fault(&format!(
                "the plugin {:?} cannot be configured, only PodSecurity can",
                plugin.name
            )));
        }
        let file: PodSecurityFile =
            serde_json::from_value(plugin.configuration).map_err(|error| fault(&error))?;
        if file.kind != "PodSecurityConfiguration" {
            return Err(fault(&"the configuration of PodSecurity is no PodSecurityConfiguration"));
        }
        let defaults = file.defaults;
        config = PodSecurityConfig {
            defaults: Policy {
                enforce: standard(defaults.enforce, defaults.enforce_version)?,
                audit: standard(defaults.audit, defaults.audit_version)?,
                warn: standard(defaults.warn, defaults.warn_version)?,
            },
            exempt_users: file.exemptions.usernames,
            exempt_namespaces: file.exemptions.namespaces,
            exempt_runtime_classes: file.exemptions.runtime_classes,
        };
    }
    Ok(config)
}

fn standard(
    level_text: Option<String>,
    version_text: Option<String>,
) -> Result<Standard, AdmissionConfigError> {
    let fault = |text: &str, why: &str| AdmissionConfigError(format!("defaults: {text:?} {why}"));
    Ok(Standard {
        level: level_text
            .map_or(Ok(Default::default()), |text| level(&text).map_err(|why| fault(&text, why)))?,
        minor: version_text.map_or(Ok(None), |text| version(&text).map_err(|why| fault(&text, why)))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::pod_security::Level;

    const FILE: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: baseline, enforce-version: v1.30, warn: restricted}
    exemptions: {usernames: [ada], namespaces: [kube-system], runtimeClasses: [kata]}
"#;

    #[test]
    fn upstreams_file_is_read() {
        let config = read_admission_config(FILE).unwrap();
        assert_eq!(config.defaults.enforce, Standard { level: Level::Baseline, minor: Some(30) });
        assert_eq!(config.defaults.warn, Standard { level: Level::Restricted, minor: None });
        assert_eq!(
            (config.exempt_users, config.exempt_namespaces),
            (vec!["ada".into()], vec!["kube-system".into()])
        );
    }

    #[test]
    fn what_would_be_ignored_is_an_error() {
        for (from, to, told) in [
            ("name: PodSecurity", "name: ImagePolicyWebhook", "only PodSecurity can"),
            ("enforce: baseline", "enforce: strict", "must be one of"),
            ("usernames:", "users:", "unknown field"),
            ("kind: AdmissionConfiguration", "kind: Other", "no AdmissionConfiguration"),
        ] {
            let error = read_admission_config(&FILE.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
