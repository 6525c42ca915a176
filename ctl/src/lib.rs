//! The command line: what kubectl's users type, with errors that name file, line and field.
//!
//! Requests and answers are plain JSON trees; what the server serves can be shown, whatever the kind.
// Reading a JSON tree by index answers null for what is not there; it is slices and maps that could panic.
#![allow(clippy::indexing_slicing)]

mod api;
mod cli;
mod connect;
mod manifest;
mod output;
mod resources;
mod session;
mod verbs;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use session::Session;

/// An exit code that a verb wants, such as that of a command run in a container.
#[derive(Debug, thiserror::Error)]
#[error("command terminated with exit code {0}")]
struct ExitWith(u8);

/// Runs a command line; the first argument is the program's name.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
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

fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(ExitWith(code)) = error.downcast_ref::<ExitWith>() {
        eprintln!("{error}");
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
    if let Command::Version(options) = &cli.command {
        return verbs::version::run(&cli.global, options).await;
    }
    let session = Session::open(&cli.global).await?;
    match cli.command {
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
        Command::Version(_) => Ok(()),
    }
}
