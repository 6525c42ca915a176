//! The words that `gantry` understands.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

/// A Kubernetes-compatible orchestrator in one binary.
#[derive(Parser)]
#[command(name = "gantry", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run the control plane, and a node agent unless told otherwise; stays in the foreground
    Server(ServerOptions),
    /// Start `gantry server` as a service, wait until the node is Ready, and say how to go on
    Up(UpOptions),
    /// Run the agent of a node that joins a server
    Agent(AgentOptions),
    /// Stop the cluster and its pods on this machine; keeps the data
    Down(DownOptions),
    /// As `down`, and remove every file as well
    Uninstall(UninstallOptions),
    /// Create, list or delete the tokens that let nodes join
    Token(TokenOptions),
    /// Care for the data: copies, checks, and the move to another store
    Store(StoreOptions),
    /// Care for the key that secrets are encrypted with at rest
    EncryptionKey(EncryptionKeyOptions),
    #[command(flatten)]
    Role(Role),
    /// Use the cluster: `gantry ctl --help` (also: call the binary `ctl` or `kubectl`)
    Ctl,
    /// Print the version
    Version,
}

/// One role alone, against an API server.
#[derive(Subcommand, Clone)]
pub enum Role {
    /// Run the API server alone
    Apiserver(ServerOptions),
    /// Run the scheduler alone
    Scheduler(RoleOptions),
    /// Run the controllers alone
    ControllerManager(RoleOptions),
    /// Run the node agent alone, over any CRI runtime
    Kubelet(RoleOptions),
    /// Run the service proxy alone
    KubeProxy(RoleOptions),
}

impl Role {
    pub fn common(&self) -> &CommonOptions {
        match self {
            Self::Apiserver(options) => &options.common,
            Self::Scheduler(options)
            | Self::ControllerManager(options)
            | Self::Kubelet(options)
            | Self::KubeProxy(options) => &options.common,
        }
    }
}

#[derive(Args, Clone)]
pub struct RoleOptions {
    /// How to reach the API server
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Clone)]
pub struct ServerOptions {
    /// Run no node agent on this machine
    #[arg(long)]
    pub no_agent: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Clone)]
pub struct UpOptions {
    /// How long to wait for the node, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub wait_seconds: u64,
    #[command(flatten)]
    pub server: ServerOptions,
}

#[derive(Args, Clone)]
pub struct AgentOptions {
    /// The server to join: https://HOST:6443
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// A token from `gantry token create`; needed for the first start only
    #[arg(long, env = "GANTRY_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Clone)]
pub struct DownOptions {
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Clone)]
pub struct UninstallOptions {
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub common: CommonOptions,
}

#[derive(Args, Clone)]
pub struct TokenOptions {
    #[command(subcommand)]
    pub action: TokenAction,
}

#[derive(Subcommand, Clone)]
pub enum TokenAction {
    /// Make a token and print it
    Create {
        /// How many hours it is good for
        #[arg(long, default_value_t = 24, value_name = "HOURS")]
        hours: u32,
        #[command(flatten)]
        common: Box<CommonOptions>,
    },
    /// List the tokens by their ids; what is secret about them is not shown
    List {
        #[command(flatten)]
        common: Box<CommonOptions>,
    },
    /// Take tokens back: no node joins with them any more
    Delete {
        /// Their ids, as `list` shows them
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        common: Box<CommonOptions>,
    },
}

#[derive(Args, Clone)]
pub struct StoreOptions {
    #[command(subcommand)]
    pub action: StoreAction,
}

#[derive(Subcommand, Clone)]
pub enum StoreAction {
    /// Copies of everything, each in one file
    Snapshot {
        #[command(subcommand)]
        action: SnapshotAction,
    },
    /// Check every byte of an embedded store that is not in use
    Verify {
        #[command(flatten)]
        common: Box<CommonOptions>,
    },
    /// Move everything to another, empty store. The servers have to be stopped
    Migrate {
        /// Where it is: a data directory, or etcd[s]://HOST:PORT,HOST:PORT [default: the configured store]
        #[arg(long, value_name = "PLACE")]
        from: Option<String>,
        /// Where it shall be: a data directory, or etcd[s]://HOST:PORT,HOST:PORT
        #[arg(long, value_name = "PLACE")]
        to: String,
        #[command(flatten)]
        common: Box<CommonOptions>,
    },
}

#[derive(Subcommand, Clone)]
pub enum SnapshotAction {
    /// Write a copy to a new file; the server may run
    Save {
        /// The file
        file: PathBuf,
        /// What to copy: a data directory, or etcd[s]://HOST:PORT,HOST:PORT [default: the configured store]
        #[arg(long, value_name = "PLACE")]
        from: Option<String>,
        #[command(flatten)]
        common: Box<CommonOptions>,
    },
    /// Check a copy and say what is in it
    Status {
        /// The file
        file: PathBuf,
    },
    /// Make a new store of a copy
    Restore {
        /// The file
        file: PathBuf,
        /// Where: a data directory, or etcd[s]://HOST:PORT,HOST:PORT [default: the configured store]
        #[arg(long, value_name = "PLACE")]
        to: Option<String>,
        /// How far to raise the revision above the copy's: more than was written since it was made
        #[arg(long, value_name = "N", default_value_t = 1_000_000_000)]
        bump_revision: u64,
        #[command(flatten)]
        common: Box<CommonOptions>,
    },
}

#[derive(Args, Clone)]
pub struct EncryptionKeyOptions {
    #[command(subcommand)]
    pub action: EncryptionKeyAction,
}

#[derive(Subcommand, Clone)]
pub enum EncryptionKeyAction {
    /// Make a new key; a running server encrypts all secrets with it within seconds
    Rotate {
        #[command(flatten)]
        common: Box<CommonOptions>,
    },
}

/// Where the objects are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKind {
    /// In files of this server
    Embedded,
    /// In an etcd cluster
    Etcd,
}

/// Flags that every role knows. Each is also a key of the file that `--config` names; a flag beats the file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CommonOptions {
    /// Read these flags from a YAML file
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Where everything is kept [default: /var/lib/gantry]
    #[arg(long, value_name = "DIR", env = "GANTRY_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// The address the API server listens on [default: 0.0.0.0]
    #[arg(long, value_name = "IP")]
    pub bind_address: Option<IpAddr>,
    /// The port the API server listens on [default: 6443]
    #[arg(long, value_name = "PORT")]
    pub secure_port: Option<u16>,
    /// Where the objects are kept [default: embedded]
    #[arg(long)]
    pub store: Option<StoreKind>,
    /// The etcd cluster's endpoints
    #[arg(long, value_delimiter = ',', value_name = "URL")]
    pub etcd_endpoints: Option<Vec<String>>,
    /// What is put before every key in etcd [default: /gantry]
    #[arg(long, value_name = "PREFIX")]
    pub etcd_prefix: Option<String>,
    /// Who signs the etcd members' certificates [default: whom this machine trusts]
    #[arg(long, value_name = "FILE")]
    pub etcd_cafile: Option<PathBuf>,
    /// Our certificate for etcd
    #[arg(long, value_name = "FILE")]
    pub etcd_certfile: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE")]
    pub etcd_keyfile: Option<PathBuf>,
    /// Our user in an etcd that asks for one
    #[arg(long, value_name = "NAME")]
    pub etcd_username: Option<String>,
    /// The file with its password
    #[arg(long, value_name = "FILE")]
    pub etcd_password_file: Option<PathBuf>,
    /// A CRI runtime other than the embedded one: unix:///run/containerd/containerd.sock
    #[arg(long, value_name = "URL")]
    pub runtime_endpoint: Option<String>,
    /// With another runtime: where it finds network configurations [default: /etc/cni/net.d]
    #[arg(long, value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,
    /// With another runtime: where it finds network plugins [default: /opt/cni/bin]
    #[arg(long, value_name = "DIR")]
    pub cni_bin_dir: Option<PathBuf>,
    /// The node's name [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// The node's address [default: that of the default route]
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// The pods' range, or one of each family with a comma between them, IPv4 first [default: 10.244.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub pod_cidr: Option<String>,
    /// The services' range, or one of each family with a comma between them, IPv4 first [default: 10.96.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Option<String>,
    /// Where the agent API listens [default: 0.0.0.0:10250]
    #[arg(long, value_name = "IP:PORT")]
    pub agent_address: Option<SocketAddr>,
    /// Registries reached over plain HTTP, as host:port
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    pub insecure_registries: Option<Vec<String>>,
    /// What has to stay free on the node before pods are evicted [default: memory.available<100Mi,nodefs.available<5%,
    /// nodefs.inodesFree<5%,pid.available<5%]
    #[arg(long, value_name = "SIGNAL<AMOUNT,...")]
    pub eviction_hard: Option<String>,
    /// How long the control plane waits for a silent node, in seconds [default: 40]
    #[arg(long, value_name = "SECONDS")]
    pub node_monitor_grace_seconds: Option<u64>,
    /// Upstream's AdmissionConfiguration: defaults and exemptions of pod security
    #[arg(long, value_name = "FILE")]
    pub admission_control_config_file: Option<PathBuf>,
    /// Upstream's audit Policy: how much is logged of which request; needs --audit-log-path
    #[arg(long, value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// The file that audit events are appended to, one JSON object per line
    #[arg(long, value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,
    /// Users of this OpenID Connect issuer are let in; needs --oidc-client-id
    #[arg(long, value_name = "URL")]
    pub oidc_issuer_url: Option<String>,
    /// For whom the issuer's tokens have to be
    #[arg(long, value_name = "ID")]
    pub oidc_client_id: Option<String>,
    /// The claim that is the user's name [default: sub]
    #[arg(long, value_name = "CLAIM")]
    pub oidc_username_claim: Option<String>,
    /// What is put before it; `-` for nothing [default: the issuer's URL and #, nothing for email]
    #[arg(long, value_name = "TEXT")]
    pub oidc_username_prefix: Option<String>,
    /// The claim that lists the user's groups
    #[arg(long, value_name = "CLAIM")]
    pub oidc_groups_claim: Option<String>,
    /// What is put before each group
    #[arg(long, value_name = "TEXT")]
    pub oidc_groups_prefix: Option<String>,
    /// Claims that tokens must have, as key=value
    #[arg(long, value_delimiter = ',', value_name = "KEY=VALUE")]
    pub oidc_required_claim: Option<Vec<String>>,
    /// Who vouches for the issuer's server, PEM [default: whom the machine trusts]
    #[arg(long, value_name = "FILE")]
    pub oidc_ca_file: Option<PathBuf>,
    /// How tokens may be signed [default: RS256]
    #[arg(long, value_delimiter = ',', value_name = "ALGORITHM")]
    pub oidc_signing_algs: Option<Vec<String>>,
    /// error, warn, info, debug or trace, also per part: `info,kubelet=debug` [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}
