//! `exec`: a command in a container, with its input, output, terminal and exit code.

use anyhow::{Context, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::ExitWith;
use crate::session::Session;
use crate::verbs::logs::find_pod;

/// The flags of `exec`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A pod, or a workload as deploy/web
    pub pod: String,
    /// The command, after `--`
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
    /// The container
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Give the command a terminal
    #[arg(short = 't', long)]
    pub tty: bool,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let pod = find_pod(session, &options.pod).await?;
    let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let tty = options.tty && options.stdin && std::io::IsTerminal::is_terminal(&std::io::stdin());
    if options.tty && !tty {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let mut parameters = AttachParams::default().stdin(options.stdin).stdout(true).stderr(!tty).tty(tty);
    if let Some(container) = &options.container {
        parameters = parameters.container(container.as_str());
    }
    let command: Vec<&str> = options.command.iter().map(String::as_str).collect();
    let process = start(session, &session.namespace, name, &command, &parameters).await?;
    pump(process, tty).await
}

/// Starts a command in a container.
pub async fn start(
    session: &Session,
    namespace: &str,
    pod: &str,
    command: &[&str],
    parameters: &AttachParams,
) -> anyhow::Result<AttachedProcess> {
    let pods: Api<Pod> = Api::namespaced(session.api.client(), namespace);
    pods.exec(pod, command.iter().copied(), parameters).await.map_err(refusal)
}

/// What a refused connection to a container means.
pub fn refusal(error: kube::Error) -> anyhow::Error {
    match &error {
        // The answer was plain text rather than a Status: it comes from behind the API server.
        kube::Error::Api(status) if status.reason == "Failed to parse error data" => {
            anyhow::anyhow!("error: unable to upgrade connection: {}", status.message.trim())
        }
        kube::Error::Api(status) => {
            anyhow::anyhow!("Error from server ({}): {}", status.reason, status.message)
        }
        _ => anyhow::Error::new(error).context("error: the command could not be started"),
    }
}

/// Copies the streams of a process until it ends, and ends as it did.
pub async fn pump(mut process: AttachedProcess, tty: bool) -> anyhow::Result<()> {
    let raw = if tty { Some(RawTerminal::enter()?) } else { None };
    if tty {
        follow_size(&mut process)?;
    }
    let input = process.stdin().map(|mut remote| {
        tokio::spawn(async move {
            let mut local = tokio::io::stdin();
            if tokio::io::copy(&mut local, &mut remote).await.is_ok() {
                // The end of our input is the end of theirs.
                let _closed = remote.shutdown().await;
            }
        })
    });
    let stdout = process.stdout().map(|remote| tokio::spawn(copy(remote, tokio::io::stdout())));
    let stderr = process.stderr().map(|remote| tokio::spawn(copy(remote, tokio::io::stderr())));
    let status = process.take_status();
    for output in [stdout, stderr].into_iter().flatten() {
        output.await.context("a stream broke off")??;
    }
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    if let Some(input) = input {
        input.abort();
    }
    drop(raw);
    outcome(status)
}

/// How a command ended: nothing, its exit code, or why it did not run.
pub fn outcome(status: Option<Status>) -> anyhow::Result<()> {
    let Some(status) = status else { bail!("error: the connection was lost before the command ended") };
    if status.status.as_deref() == Some("Success") {
        return Ok(());
    }
    let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
    let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    match code.and_then(|cause| cause.message.as_deref()?.parse::<u8>().ok()) {
        Some(code) => Err(ExitWith(code).into()),
        None => bail!("error: {}", status.message.unwrap_or_default()),
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(buffer.get(..length).unwrap_or_default()).await?;
        to.flush().await?;
    }
}

/// Tells the remote terminal our size, now and whenever it changes.
fn follow_size(process: &mut AttachedProcess) -> anyhow::Result<()> {
    let Some(mut sizes) = process.terminal_size() else { return Ok(()) };
    let mut changes = signal(SignalKind::window_change())?;
    tokio::spawn(async move {
        loop {
            if let Some(size) = terminal_size()
                && futures::SinkExt::send(&mut sizes, size).await.is_err()
            {
                return;
            }
            if changes.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(())
}

fn terminal_size() -> Option<TerminalSize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(TerminalSize { width: size.ws_col, height: size.ws_row })
}

/// A terminal that passes every key on; dropping it restores the old ways.
struct RawTerminal(rustix::termios::Termios);

impl RawTerminal {
    fn enter() -> anyhow::Result<Self> {
        let before =
            rustix::termios::tcgetattr(std::io::stdin()).context("standard input is not a terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _restored =
            rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, &self.0);
    }
}
