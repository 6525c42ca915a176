//! `attach`: the streams of a container that runs.

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use serde_json::Value;

use crate::session::Session;
use crate::verbs::exec;
use crate::verbs::logs::find_pod;

/// The flags of `attach`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A pod, or a workload as deploy/web
    pub pod: String,
    /// The container
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// The container's input is a terminal
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Only what the container writes
    #[arg(short, long)]
    pub quiet: bool,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let pod = find_pod(session, &options.pod).await?;
    let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    streams(session, name, options).await
}

/// Joins the streams of a pod that is known to run.
pub async fn streams(session: &Session, pod: &str, options: &Options) -> anyhow::Result<()> {
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    let tty = options.tty && options.stdin && terminal;
    if options.tty && options.stdin && !terminal {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let mut parameters = AttachParams::default().stdin(options.stdin).stdout(true).stderr(!tty).tty(tty);
    if let Some(container) = &options.container {
        parameters = parameters.container(container.as_str());
    }
    if tty && !options.quiet {
        eprintln!("If you don't see a command prompt, try pressing enter.");
    }
    let pods: Api<Pod> = Api::namespaced(session.api.client(), &session.namespace);
    let process = pods.attach(pod, &parameters).await.map_err(exec::refusal)?;
    exec::pump(process, tty).await
}
