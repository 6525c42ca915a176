//! Which cluster, as whom, in which namespace: from flags, `$KUBECONFIG`, `~/.kube/config`, the pod this runs in, and
//! last the administrator's file of a Gantry on this machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use crate::cli::GlobalOptions;

const DEFAULT_DATA_DIR: &str = "/var/lib/gantry";

/// A cluster that can be asked.
#[derive(Clone)]
pub struct Connection {
    /// Speaks to the API server.
    pub client: Client,
    /// From what the client was made, for those who need another.
    pub config: Config,
    /// The namespace when no flag names one.
    pub namespace: String,
    /// Where the API server is, for messages.
    pub server: String,
}

impl Connection {
    /// Connects as the flags and files say. Nothing is sent yet.
    pub async fn open(options: &GlobalOptions) -> anyhow::Result<Self> {
        let mut config = load(options).await?;
        if let Some(server) = &options.server {
            config.cluster_url = server.parse().with_context(|| format!("--server {server} is not a URL"))?;
        }
        if let Some(token) = &options.token {
            config.auth_info.token = Some(token.clone().into());
        }
        if options.insecure_skip_tls_verify {
            config.accept_invalid_certs = true;
        }
        if options.impersonate.is_some() || !options.impersonate_groups.is_empty() {
            config.auth_info.impersonate = options.impersonate.clone();
            config.auth_info.impersonate_groups =
                Some(options.impersonate_groups.clone()).filter(|groups| !groups.is_empty());
        }
        let namespace = options.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        // Watches and logs are silent for as long as nothing happens.
        config.read_timeout = options.request_timeout.map(|time| time.0).filter(|time| !time.is_zero());
        let client = Client::try_from(config.clone()).context("cannot make a client from the kubeconfig")?;
        Ok(Self { client, config, namespace, server })
    }
}

async fn load(options: &GlobalOptions) -> anyhow::Result<Config> {
    let choice = KubeConfigOptions {
        context: options.context.clone(),
        cluster: options.cluster.clone(),
        user: options.user.clone(),
    };
    if let Some(kubeconfig) = read(options)? {
        if let Some(wanted) = options.context.as_ref().or(kubeconfig.current_context.as_ref())
            && !wanted.is_empty()
            && !kubeconfig.contexts.iter().any(|context| context.name == *wanted)
        {
            let known: Vec<&str> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
            bail!("error: context \"{wanted}\" does not exist; there are: {}", known.join(", "));
        }
        let config = Config::from_custom_kubeconfig(kubeconfig, &choice).await;
        return config.map(without_retries).context("the kubeconfig is incomplete");
    }
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Config::incluster().map(without_retries).context("cannot use the pod's service account");
    }
    bail!(
        "no cluster is configured: start one with `gantry up`, or name a kubeconfig with --kubeconfig or $KUBECONFIG"
    )
}

/// After a 504 nobody knows whether a write was done: the user has to look before it is sent again.
fn without_retries(mut config: Config) -> Config {
    config.default_retry = false;
    config
}

/// The kubeconfig that applies, if there is one: of several files what each says first.
pub fn read(options: &GlobalOptions) -> anyhow::Result<Option<Kubeconfig>> {
    let mut merged: Option<Kubeconfig> = None;
    for path in files(options).into_iter().filter(|path| options.kubeconfig.is_some() || path.exists()) {
        let next = read_file(&path)?;
        merged = Some(match merged {
            Some(before) => before.merge(next).with_context(|| format!("cannot merge {}", path.display()))?,
            None => next,
        });
    }
    Ok(merged)
}

/// The files that apply together: those of `$KUBECONFIG` that exist, or the first place that has one; where none exists,
/// the one to make.
pub fn files(options: &GlobalOptions) -> Vec<PathBuf> {
    let all = candidates(options);
    let mut existing: Vec<_> = all.iter().filter(|path| path.exists()).cloned().collect();
    if !is_listed(options) {
        existing.truncate(1);
    }
    if existing.is_empty() {
        existing.push(all.into_iter().next().unwrap_or_else(|| PathBuf::from("kubeconfig")));
    }
    existing
}

fn candidates(options: &GlobalOptions) -> Vec<PathBuf> {
    if let Some(path) = &options.kubeconfig {
        return vec![path.clone()];
    }
    if is_listed(options) {
        let list = std::env::var_os("KUBECONFIG").unwrap_or_default();
        return std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let data_dir = std::env::var_os("GANTRY_DATA_DIR").map_or_else(|| DEFAULT_DATA_DIR.into(), PathBuf::from);
    home.map(|home| home.join(".kube/config"))
        .into_iter()
        .chain([data_dir.join("admin.kubeconfig")])
        .collect()
}

fn is_listed(options: &GlobalOptions) -> bool {
    options.kubeconfig.is_none() && std::env::var_os("KUBECONFIG").is_some_and(|list| !list.is_empty())
}

fn read_file(path: &Path) -> anyhow::Result<Kubeconfig> {
    let mut config = Kubeconfig::read_from(path)
        .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
    // To kubectl an empty name is none.
    config.current_context = config.current_context.filter(|name| !name.is_empty());
    Ok(config)
}
