//! The command line: what kubectl's users type, with errors that name file, line and field.
//!
//! Requests and answers are plain JSON trees; what the server serves can be shown, whatever the kind.
// Reading a JSON tree by index answers null for what is not there; it is slices and maps that could panic.
#![allow(clippy::indexing_slicing)]

mod api;
mod cli;
mod connect;
mod describe;
mod manifest;
mod output;
mod resources;
mod session;
mod tree;
mod upload;
mod verbs;
mod writing;
mod yaml;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use session::Session;

/// An exit code that a verb wants, such as that of a command run in a container.
#[derive(Debug, thiserror::Error)]
#[error("command terminated with exit code {0}")]
struct ExitWith(u8);

/// The end of a verb that has told everything: only the exit code is left.
#[derive(Debug, thiserror::Error)]
#[error("exit code {0}")]
struct AlreadyTold(u8);

/// Runs a command line; the first argument is the program's name.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(with_subjects(arguments)) {
        Ok(cli) => cli,
        Err(error) => {
            let _printed = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(cli));
    // A blocked read of standard input must not hold the process back.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// `create rolebinding --user` names a subject there, and the user of the kubeconfig everywhere else.
fn with_subjects(arguments: Vec<OsString>) -> Vec<OsString> {
    let binds = |word: &OsString| word == "rolebinding" || word == "clusterrolebinding";
    if !arguments.iter().any(|word| word == "create") || !arguments.iter().any(binds) {
        return arguments;
    }
    let renamed = |word: OsString| match word.to_str().and_then(|text| text.strip_prefix("--user")) {
        Some(rest) if rest.is_empty() || rest.starts_with('=') => format!("--subject-user{rest}").into(),
        _ => word,
    };
    arguments.into_iter().map(renamed).collect()
}

fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(ExitWith(code)) = error.downcast_ref::<ExitWith>() {
        eprintln!("{error}");
        return ExitCode::from(*code);
    }
    if let Some(AlreadyTold(code)) = error.downcast_ref::<AlreadyTold>() {
        return ExitCode::from(*code);
    }
    let text = format!("{error:#}");
    if text.starts_with("error: ") || text.starts_with("Error from server") {
        eprintln!("{text}");
    } else {
        eprintln!("error: {text}");
    }
    ExitCode::FAILURE
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Version(options) => return verbs::version::run(&cli.global, options).await,
        Command::Config(command) => return verbs::config::run(&cli.global, command),
        Command::Completion(options) => {
            verbs::completion::run(options);
            return Ok(());
        }
        _ => {}
    }
    let session = Session::open(&cli.global, cli.command.needs_kinds()).await?;
    match cli.command {
        Command::Create(options) => verbs::create::run(&session, &options).await,
        Command::Describe(options) => verbs::describe::run(&session, &options).await,
        Command::PortForward(options) => verbs::port_forward::run(&session, &options).await,
        Command::Cp(options) => verbs::cp::run(&session, &options).await,
        Command::Apply(options) => verbs::apply::run(&session, &options).await,
        Command::Get(options) => verbs::get::run(&session, &options).await,
        Command::Delete(options) => verbs::delete::run(&session, &options).await,
        Command::Wait(options) => verbs::wait::run(&session, &options).await,
        Command::Expose(options) => verbs::expose::run(&session, &options).await,
        Command::Cordon(nodes) => verbs::drain::cordon(&session, &nodes, true).await,
        Command::Uncordon(nodes) => verbs::drain::cordon(&session, &nodes, false).await,
        Command::Drain(options) => verbs::drain::drain(&session, &options).await,
        Command::Scale(options) => verbs::scale::run(&session, &options).await,
        Command::Rollout(command) => verbs::rollout::run(&session, &command).await,
        Command::Set(command) => verbs::set::run(&session, &command).await,
        Command::Label(options) => verbs::label::run(&session, &options, "labels", "labeled").await,
        Command::Annotate(options) => verbs::label::run(&session, &options, "annotations", "annotated").await,
        Command::Logs(options) => verbs::logs::run(&session, &options).await,
        Command::Exec(options) => verbs::exec::run(&session, &options).await,
        Command::Image(command) => verbs::image::run(&session, &command).await,
        Command::Patch(options) => verbs::patch::run(&session, &options).await,
        Command::Replace(options) => verbs::replace::run(&session, &options).await,
        Command::Edit(options) => verbs::edit::run(&session, &options).await,
        Command::Diff(options) => verbs::diff::run(&session, &options).await,
        Command::Taint(options) => verbs::taint::run(&session, &options).await,
        Command::Autoscale(options) => verbs::autoscale::run(&session, &options).await,
        Command::Attach(options) => verbs::attach::run(&session, &options).await,
        Command::Run(options) => verbs::run::run(&session, &options).await,
        Command::Top(command) => verbs::top::run(&session, &command).await,
        Command::Events(options) => verbs::events::run(&session, &options).await,
        Command::Explain(options) => verbs::explain::run(&session, &options).await,
        Command::ApiResources(options) => verbs::api_resources::run(&session, &options),
        Command::ApiVersions => {
            verbs::api_resources::versions(&session);
            Ok(())
        }
        Command::Auth(command) => verbs::auth::run(&session, &command).await,
        Command::Certificate(command) => verbs::certificate::run(&session, &command).await,
        Command::ClusterInfo => verbs::cluster_info::run(&session).await,
        Command::Version(_) | Command::Config(_) | Command::Completion(_) => Ok(()),
    }
}
