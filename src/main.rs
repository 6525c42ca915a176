//! Gantry: a Kubernetes-compatible orchestrator in one binary.
//!
//! This crate reads the role from argv, builds the parts, wires them and drains them. Nothing else lives here.

mod agent;
mod cli;
mod control_plane;
mod down;
mod embedded_runtime;
mod encryption_key;
mod identities;
mod join;
mod node;
mod preflight;
mod renewal;
mod roles;
mod security;
mod server;
mod service;
mod settings;
mod store_care;
mod store_place;
mod telemetry;
mod token;
mod up;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};
use roles::Ended;

/// docs/decisions/0010-allocator.md has the figures of it and of others.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Small, because what the system does is wait: bounded stacks and allocator arenas instead of one set per core.
const WORKER_THREADS: usize = 2;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // These two run before anything else is set up: the shim must stay single-threaded and tiny, and a CNI plugin
    // speaks through standard output alone.
    if arguments.get(1).is_some_and(|first| first == "shim") {
        let words: Vec<String> =
            arguments.iter().skip(2).map(|word| word.to_string_lossy().into_owned()).collect();
        runtime::shim::main(&words);
    }
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("gantry: another TLS provider was installed first");
        return ExitCode::FAILURE;
    }
    match called_as(&arguments) {
        "gantry-cni" | network::LOOPBACK => return network::cni_main(),
        "ctl" | "kubectl" => return ctl::main(arguments),
        _ => {}
    }
    if arguments.get(1).is_some_and(|first| first == "ctl") {
        return ctl::main(arguments.into_iter().skip(1).collect());
    }
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn called_as(arguments: &[OsString]) -> &str {
    arguments.first().and_then(|name| Path::new(name).file_name()?.to_str()).unwrap_or("gantry")
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Server(options) => {
            on_workers(&options.common, |settings| server::run(settings, options.no_agent))
        }
        Command::Up(options) => up::run(options),
        Command::Agent(options) => {
            on_workers(&options.common, |settings| agent::run(settings, options.server, options.token))
        }
        Command::Down(options) => down::down(&options),
        Command::Uninstall(options) => down::uninstall(&options),
        Command::Token(options) => token::run(&options),
        Command::Store(options) => store_care::run(options.action),
        Command::EncryptionKey(options) => encryption_key::run(&options),
        Command::Role(role) => on_workers(role.common(), |settings| roles::run(role.clone(), settings)),
        Command::Ctl => unreachable_ctl(),
        Command::Version => {
            println!(
                "gantry {} (Kubernetes API {})",
                env!("CARGO_PKG_VERSION"),
                settings::KUBERNETES_VERSION
            );
            Ok(())
        }
    }
}

/// `gantry ctl` is handed over before anything is parsed; only `gantry -x ctl` comes here.
fn unreachable_ctl() -> anyhow::Result<()> {
    anyhow::bail!("write `gantry ctl` with the flags behind it")
}

/// Settles the settings, starts logging and a runtime, and runs a role on it.
fn on_workers<F>(
    options: &cli::CommonOptions,
    role: impl FnOnce(settings::Settings) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<Ended>>,
{
    let settings = settings::Settings::resolve(options)?;
    telemetry::start(&settings.log_level)?;
    let workers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .max_blocking_threads(16)
        .thread_name("gantry")
        .enable_all()
        .build()?;
    let ended = workers.block_on(role(settings));
    workers.shutdown_timeout(std::time::Duration::from_secs(5));
    match ended? {
        Ended::Stopped => Ok(()),
        Ended::Renewing => renewal::start_over().map(|never| match never {}),
    }
}
