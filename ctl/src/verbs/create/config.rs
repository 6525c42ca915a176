//! Config maps and secrets from texts and files, quotas and priority classes.

use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{Made, bare};

/// Where texts come from.
#[derive(Args, Clone, Debug, Default)]
pub struct Sources {
    /// A key and its text: key=value
    #[arg(long, value_name = "KEY=VALUE")]
    from_literal: Vec<String>,
    /// A file, as KEY=FILE or under its own name, or a directory of files
    #[arg(long, value_name = "[KEY=]FILE")]
    from_file: Vec<String>,
    /// A file of lines KEY=VALUE
    #[arg(long, value_name = "FILE")]
    from_env_file: Vec<String>,
}

impl Sources {
    /// All keys with what they hold.
    fn read(&self) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut all: Vec<(String, Vec<u8>)> = Vec::new();
        let mut add = |key: &str, value: Vec<u8>| {
            if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
                bail!(
                    "error: {key:?} is not a key: letters, digits, '-', '_' and '.' only; give another as KEY=FILE"
                );
            }
            if all.iter().any(|(known, _)| known == key) {
                bail!("error: cannot add key \"{key}\", another key by that name already exists");
            }
            all.push((key.to_string(), value));
            Ok(())
        };
        for source in &self.from_file {
            match source.split_once('=') {
                Some((key, path)) => add(key, read(Path::new(path))?)?,
                None if Path::new(source).is_dir() => {
                    for path in files_of(Path::new(source))? {
                        add(&own_name(&path), read(&path)?)?;
                    }
                }
                None => add(&own_name(Path::new(source)), read(Path::new(source))?)?,
            }
        }
        for literal in &self.from_literal {
            let (key, value) = literal
                .split_once('=')
                .with_context(|| format!("error: invalid literal source {literal:?}, expected key=value"))?;
            add(key, unquoted(value).as_bytes().to_vec())?;
        }
        for path in &self.from_env_file {
            let text = String::from_utf8(read(Path::new(path))?)
                .with_context(|| format!("error: {path} is not text"))?;
            for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
                let line = line.trim_start();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                match line.split_once('=') {
                    Some((key, value)) => add(key, value.as_bytes().to_vec()),
                    // A name alone takes its value from this process, as Docker does.
                    None => match std::env::var(line) {
                        Ok(value) => add(line, value.into_bytes()),
                        Err(_) => Ok(()),
                    },
                }
                .with_context(|| format!("error: {path}:{}", number + 1))?;
            }
        }
        Ok(all)
    }
}

/// A value without the quotes around all of it.
fn unquoted(value: &str) -> &str {
    let quoted = |quote: char| value.len() >= 2 && value.starts_with(quote) && value.ends_with(quote);
    if quoted('"') || quoted('\'') { value.get(1..value.len() - 1).unwrap_or(value) } else { value }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("error: cannot read {}", path.display()))
}

fn own_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn files_of(directory: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("error: cannot read {}", directory.display()))?;
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}

fn base64(bytes: &[u8]) -> Value {
    base64::engine::general_purpose::STANDARD.encode(bytes).into()
}

/// The flags of `create configmap`.
#[derive(Args, Clone, Debug)]
pub struct ConfigMapOptions {
    /// The name
    name: String,
    #[command(flatten)]
    sources: Sources,
}

impl ConfigMapOptions {
    /// The object.
    pub fn make(&self) -> anyhow::Result<Made> {
        let mut object = bare("v1", "ConfigMap", &self.name);
        for (key, value) in self.sources.read()? {
            match String::from_utf8(value) {
                Ok(text) => object["data"][key] = text.into(),
                Err(error) => object["binaryData"][key] = base64(error.as_bytes()),
            }
        }
        Ok(Made::namespaced("/api/v1", "configmaps", object))
    }
}

/// The kinds of secrets.
#[derive(Subcommand, Clone, Debug)]
pub enum Secret {
    /// Any texts and files
    Generic(GenericOptions),
    /// A certificate and its key
    Tls(TlsOptions),
    /// Who may pull from a registry
    DockerRegistry(RegistryOptions),
}

/// The flags of `create secret generic`.
#[derive(Args, Clone, Debug)]
pub struct GenericOptions {
    /// The name
    name: String,
    #[command(flatten)]
    sources: Sources,
    /// The type of the secret
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
}

/// The flags of `create secret tls`.
#[derive(Args, Clone, Debug)]
pub struct TlsOptions {
    /// The name
    name: String,
    /// The certificate, as PEM
    #[arg(long, value_name = "FILE")]
    cert: String,
    /// Its key, as PEM
    #[arg(long, value_name = "FILE")]
    key: String,
}

/// The flags of `create secret docker-registry`.
#[derive(Args, Clone, Debug)]
pub struct RegistryOptions {
    /// The name
    name: String,
    /// The registry
    #[arg(long, default_value = "https://index.docker.io/v1/", value_name = "URL")]
    docker_server: String,
    /// The user there
    #[arg(long, value_name = "NAME", required_unless_present = "from_file")]
    docker_username: Option<String>,
    /// The user's password
    #[arg(long, value_name = "PASSWORD", required_unless_present = "from_file")]
    docker_password: Option<String>,
    /// The user's address
    #[arg(long, value_name = "ADDRESS")]
    docker_email: Option<String>,
    /// A configuration file of Docker instead
    #[arg(long, value_name = "FILE")]
    from_file: Option<String>,
}

impl Secret {
    /// The object.
    pub fn make(&self) -> anyhow::Result<Made> {
        let object = match self {
            Self::Generic(options) => {
                let kind = options.kind.as_deref().unwrap_or("Opaque");
                let sources = options.sources.read()?;
                let data = sources.into_iter().map(|(key, value)| (key, base64(&value)));
                secret(&options.name, kind, data.collect())
            }
            Self::Tls(options) => {
                let certificate = read(Path::new(&options.cert))?;
                let key = read(Path::new(&options.key))?;
                for (path, bytes, wanted) in [
                    (&options.cert, &certificate, "CERTIFICATE-----"),
                    (&options.key, &key, "PRIVATE KEY-----"),
                ] {
                    if !String::from_utf8_lossy(bytes).contains(wanted) {
                        bail!(
                            "error: {path} holds no PEM block of the kind {}",
                            wanted.trim_end_matches('-')
                        );
                    }
                }
                let data = [("tls.crt", certificate), ("tls.key", key)];
                let data = data.into_iter().map(|(name, bytes)| (name.to_string(), base64(&bytes)));
                secret(&options.name, "kubernetes.io/tls", data.collect())
            }
            Self::DockerRegistry(options) => {
                let config = match &options.from_file {
                    Some(path) => read(Path::new(path))?,
                    None => serde_json::to_vec(&options.config())?,
                };
                let data = [(".dockerconfigjson".to_string(), base64(&config))];
                secret(&options.name, "kubernetes.io/dockerconfigjson", data.into_iter().collect())
            }
        };
        Ok(Made::namespaced("/api/v1", "secrets", object))
    }
}

impl RegistryOptions {
    fn config(&self) -> Value {
        let user = self.docker_username.as_deref().unwrap_or_default();
        let password = self.docker_password.as_deref().unwrap_or_default();
        let mut login = json!({"username": user, "password": password, "auth": base64(format!("{user}:{password}").as_bytes())});
        if let Some(email) = &self.docker_email {
            login["email"] = email.as_str().into();
        }
        json!({"auths": {&self.docker_server: login}})
    }
}

fn secret(name: &str, kind: &str, data: Map<String, Value>) -> Value {
    let mut object = bare("v1", "Secret", name);
    object["type"] = kind.into();
    if !data.is_empty() {
        object["data"] = data.into();
    }
    object
}

/// The flags of `create quota`.
#[derive(Args, Clone, Debug)]
pub struct QuotaOptions {
    /// The name
    name: String,
    /// The limits: cpu=1,memory=1Gi,pods=2
    #[arg(long, value_delimiter = ',', value_name = "LIMITS")]
    hard: Vec<String>,
    /// What they count: BestEffort, NotTerminating, …
    #[arg(long, value_delimiter = ',', value_name = "SCOPES")]
    scopes: Vec<String>,
}

impl QuotaOptions {
    /// The object.
    pub fn make(&self) -> anyhow::Result<Made> {
        let mut object = bare("v1", "ResourceQuota", &self.name);
        for limit in &self.hard {
            let (resource, amount) = limit.split_once('=').with_context(|| {
                format!("error: Invalid argument syntax {limit:?}, expected <resource>=<value>")
            })?;
            object["spec"]["hard"][resource] = amount.into();
        }
        if !self.scopes.is_empty() {
            object["spec"]["scopes"] = json!(self.scopes);
        }
        Ok(Made::namespaced("/api/v1", "resourcequotas", object))
    }
}

/// The flags of `create priorityclass`.
#[derive(Args, Clone, Debug)]
pub struct PriorityClassOptions {
    /// The name
    name: String,
    /// The importance
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    value: i32,
    /// Whether it is that of pods which name none
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set, default_value_t = false)]
    global_default: bool,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Whether less important pods give way: PreemptLowerPriority or Never
    #[arg(long, value_name = "POLICY")]
    preemption_policy: Option<String>,
}

impl PriorityClassOptions {
    /// The object.
    pub fn make(&self) -> anyhow::Result<Made> {
        let mut object = bare("scheduling.k8s.io/v1", "PriorityClass", &self.name);
        object["value"] = self.value.into();
        if self.global_default {
            object["globalDefault"] = true.into();
        }
        if let Some(description) = &self.description {
            object["description"] = description.as_str().into();
        }
        if let Some(policy) = &self.preemption_policy {
            object["preemptionPolicy"] = policy.as_str().into();
        }
        Ok(Made::of_cluster("/apis/scheduling.k8s.io/v1", "priorityclasses", object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_files_become_keys() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("site.conf"), "listen 80;").unwrap();
        std::fs::write(path("blob"), [0xff, 0xfe]).unwrap();
        std::fs::write(path("vars.env"), "# comment\nA=1\n\nB=x=y\n").unwrap();
        let map = ConfigMapOptions {
            name: "c".into(),
            sources: Sources {
                from_literal: vec!["k='v w'".into()],
                from_file: vec![
                    path("site.conf").display().to_string(),
                    format!("raw={}", path("blob").display()),
                ],
                from_env_file: vec![path("vars.env").display().to_string()],
            },
        };
        let object = map.make().unwrap().object;
        assert_eq!(object["data"], json!({"site.conf": "listen 80;", "k": "v w", "A": "1", "B": "x=y"}));
        assert_eq!(object["binaryData"]["raw"], "//4=");
    }

    #[test]
    fn a_key_given_twice_or_a_missing_file_is_told() {
        let twice = Sources { from_literal: vec!["a=1".into(), "a=2".into()], ..Sources::default() };
        assert!(twice.read().unwrap_err().to_string().contains("\"a\""));
        let missing = Sources { from_file: vec!["/nowhere/file".into()], ..Sources::default() };
        assert!(missing.read().unwrap_err().to_string().contains("/nowhere/file"));
        let malformed = Sources { from_literal: vec!["a".into()], ..Sources::default() };
        assert!(malformed.read().unwrap_err().to_string().contains("expected key=value"));
    }
}
