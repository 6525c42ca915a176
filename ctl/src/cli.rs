//! The words that `ctl` understands: kubectl's, with the same flags.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::session::escape;
use crate::verbs;

/// The command line of a Gantry cluster. Understands what kubectl's users type.
#[derive(Parser)]
#[command(name = "ctl", version, propagate_version = false, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalOptions,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every verb takes.
#[derive(Args, Clone, Debug, Default)]
pub struct GlobalOptions {
    /// The namespace
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// The kubeconfig file
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The cluster of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// The user of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,
    /// The API server's URL
    #[arg(short, long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// A bearer token
    #[arg(long, global = true, value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Do not verify the server's certificate
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,
    /// How long the server may take to answer; 0 is as long as it takes
    #[arg(long, global = true, value_name = "TIME")]
    pub request_timeout: Option<Span>,
    /// Accepted for compatibility
    #[arg(short, long, global = true, hide = true, value_name = "LEVEL")]
    pub v: Option<u8>,
    /// Act as another user
    #[arg(long = "as", global = true, value_name = "NAME")]
    pub impersonate: Option<String>,
    /// Act as a member of a group; may be given several times
    #[arg(long = "as-group", global = true, value_name = "NAME")]
    pub impersonate_groups: Vec<String>,
}

/// Answers flags of kubectl that have no part here with what to do instead.
fn without_kustomize(_: &str) -> Result<String, String> {
    Err("kustomize is not part of this program; run `kustomize build DIR | ctl apply -f -`".into())
}

fn without_prune(_: &str) -> Result<String, String> {
    Err("pruning is not supported; delete by label with `ctl delete -l`".into())
}

#[derive(Subcommand)]
pub enum Command {
    /// Make the cluster's objects what files say
    Apply(ApplyOptions),
    /// Make objects from files or flags
    Create(verbs::create::Options),
    /// Show objects
    Get(verbs::get::Options),
    /// Show objects as pages with what happened to them
    Describe(verbs::describe::Options),
    /// Delete objects
    Delete(verbs::delete::Options),
    /// Wait until objects are as wanted
    Wait(verbs::wait::Options),
    /// Put a service in front of a workload's pods
    Expose(verbs::expose::Options),
    /// Let a node take no new pods
    Cordon(verbs::drain::Nodes),
    /// Let a node take new pods again
    Uncordon(verbs::drain::Nodes),
    /// Empty a node
    Drain(verbs::drain::Options),
    /// Change parts of objects by a patch
    Patch(verbs::patch::Options),
    /// Replace whole objects
    Replace(verbs::replace::Options),
    /// Change objects in an editor
    Edit(verbs::edit::Options),
    /// Show what apply would change
    Diff(verbs::diff::Options),
    /// Set and remove what keeps pods away from nodes
    Taint(verbs::taint::Options),
    /// Change the number of replicas
    Scale(verbs::scale::Options),
    /// Let the load decide on the number of replicas
    Autoscale(verbs::autoscale::Options),
    /// Follow, list, undo, restart, pause and resume rollouts
    #[command(subcommand)]
    Rollout(verbs::rollout::Command),
    /// Change parts of objects
    #[command(subcommand)]
    Set(verbs::set::Command),
    /// Set and remove labels
    Label(verbs::label::Options),
    /// Set and remove annotations
    Annotate(verbs::label::Options),
    /// Show what a pod's containers wrote
    Logs(verbs::logs::Options),
    /// Run a command in a container
    Exec(verbs::exec::Options),
    /// Join the streams of a container
    Attach(verbs::attach::Options),
    /// Start a pod with one container
    Run(Box<verbs::run::Options>),
    /// Copy files to and from containers
    Cp(verbs::cp::Options),
    /// Lead ports of this machine into a pod
    PortForward(verbs::port_forward::Options),
    /// Load, list and remove images on the nodes
    #[command(subcommand)]
    Image(verbs::image::Command),
    /// Show what nodes and pods use
    #[command(subcommand)]
    Top(verbs::top::Command),
    /// Show what happened
    Events(verbs::events::Options),
    /// Show what the fields of a kind mean
    Explain(verbs::explain::Options),
    /// Show the kinds that the server serves
    ApiResources(verbs::api_resources::Options),
    /// Show the groups and versions that the server serves
    ApiVersions,
    /// Show who one is and what one may do
    #[command(subcommand)]
    Auth(verbs::auth::Command),
    /// Approve and deny requests for certificates
    #[command(subcommand)]
    Certificate(verbs::certificate::Command),
    /// Show where the cluster's own services are
    ClusterInfo,
    /// Show and change the kubeconfig
    #[command(subcommand)]
    Config(verbs::config::Command),
    /// Print what a shell needs to finish words
    Completion(verbs::completion::Options),
    /// Show the versions of client and server
    Version(verbs::version::Options),
}

impl Command {
    /// Whether the words can only be understood with the server's kinds; asking for them costs two requests.
    pub fn needs_kinds(&self) -> bool {
        let of_a_workload =
            |word: &str| word.split_once('/').is_some_and(|(kind, _)| !["pod", "pods", "po"].contains(&kind));
        match self {
            Self::Create(options) => options.needs_kinds(),
            Self::Get(options) => options.needs_kinds(),
            Self::Logs(options) => options.what.first().is_some_and(|word| of_a_workload(word)),
            Self::Exec(options) => of_a_workload(&options.pod),
            Self::PortForward(options) => of_a_workload(&options.target),
            Self::Attach(options) => of_a_workload(&options.pod),
            Self::Auth(command) => command.needs_kinds(),
            Self::Events(options) => options.about.is_some(),
            Self::Certificate(_)
            | Self::ClusterInfo
            | Self::Completion(_)
            | Self::Config(_)
            | Self::Cp(_)
            | Self::Image(_)
            | Self::Run(_)
            | Self::Top(_)
            | Self::Version(_) => false,
            _ => true,
        }
    }
}

/// Which objects.
#[derive(Args, Clone, Debug, Default)]
pub struct Selection {
    /// Files and directories with manifests; `-` is standard input
    #[arg(short, long, value_delimiter = ',', value_name = "FILE")]
    pub filename: Vec<String>,
    /// Not supported
    #[arg(short = 'k', long, hide = true, value_parser = without_kustomize)]
    pub kustomize: Option<String>,
    /// Directories with everything below them
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Labels: a=b,c!=d,e in (f,g),h,!i
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Fields: status.phase=Running,spec.nodeName!=n1
    #[arg(long, value_name = "SELECTOR")]
    pub field_selector: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

impl Selection {
    /// The selectors as a query string.
    pub fn query(&self) -> String {
        let labels = self.selector.as_ref().map(|text| format!("labelSelector={}", escape(text)));
        let fields = self.field_selector.as_ref().map(|text| format!("fieldSelector={}", escape(text)));
        labels.into_iter().chain(fields).collect::<Vec<_>>().join("&")
    }
}

/// Whether a write is only tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// It is done.
    #[default]
    None,
    /// Nothing is sent.
    Client,
    /// The server checks it and stores nothing.
    Server,
}

impl DryRun {
    /// Whether nothing is sent.
    pub fn is_client(self) -> bool {
        self == Self::Client
    }

    /// Whether the server only checks.
    pub fn is_server(self) -> bool {
        self == Self::Server
    }
}

/// What becomes of unknown fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Validate {
    /// The server refuses them.
    #[default]
    #[value(alias = "true")]
    Strict,
    /// The server warns of them.
    Warn,
    /// They are dropped.
    #[value(alias = "false")]
    Ignore,
}

impl Validate {
    /// The value of the query parameter.
    pub fn query(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Warn => "Warn",
            Self::Ignore => "Ignore",
        }
    }
}

/// A length of time as `30s`, `5m`, `1h30m`, or plain seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a length of time such as 30s, 5m or 1h30m");
        if let Ok(seconds) = text.parse::<u64>() {
            return Ok(Self(Duration::from_secs(seconds)));
        }
        let mut total = Duration::ZERO;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
            let (number, tail) = rest.split_at(digits);
            let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let number: f64 = number.parse().map_err(|_| wrong())?;
            let seconds = match unit {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(wrong()),
            };
            total += Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
            rest = tail;
        }
        Ok(Self(total))
    }
}

/// The flags of `apply`.
#[derive(Args, Clone, Debug)]
pub struct ApplyOptions {
    /// Files and directories with manifests; `-` is standard input
    #[arg(short, long, value_delimiter = ',', required_unless_present = "kustomize", value_name = "FILE")]
    pub filename: Vec<String>,
    /// Not supported
    #[arg(short = 'k', long, hide = true, value_parser = without_kustomize)]
    pub kustomize: Option<String>,
    /// Not supported
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", value_parser = without_prune)]
    pub prune: Option<String>,
    /// Directories with everything below them
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Tell conflicts with fields that others set, rather than winning
    #[arg(long)]
    pub server_side: bool,
    /// With --server-side: win conflicts
    #[arg(long)]
    pub force_conflicts: bool,
    /// Under which name the fields are owned
    #[arg(long, default_value = crate::verbs::apply::MANAGER, value_name = "NAME")]
    pub field_manager: String,
    /// Only try
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    pub dry_run: DryRun,
    /// What becomes of unknown fields
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "strict", require_equals = true)]
    pub validate: Validate,
    /// Show the result: json, yaml, name
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<String>,
    /// Follow the rollouts until they are done
    #[arg(long)]
    pub wait: bool,
    /// How long --wait waits
    #[arg(long, default_value = "5m", value_name = "TIME")]
    pub timeout: Span,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_words_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_read_as_users_write_them() {
        assert_eq!("1h30m".parse::<Span>().unwrap().0, Duration::from_secs(5400));
        assert_eq!("45".parse::<Span>().unwrap().0, Duration::from_secs(45));
        assert_eq!("250ms".parse::<Span>().unwrap().0, Duration::from_millis(250));
        assert!("soon".parse::<Span>().is_err());
    }
}
