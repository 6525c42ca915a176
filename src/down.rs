//! `gantry down` and `gantry uninstall`: nothing of this instance stays on the machine, and then no file either.
//!
//! Every step is done though an earlier one failed; what failed is told at the end.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cli::{DownOptions, UninstallOptions};
use crate::settings::Settings;
use crate::{node, service, up};

/// The server gets so long to drain before it is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(20);

pub fn down(options: &DownOptions) -> anyhow::Result<()> {
    let settings = Settings::resolve(&options.common)?;
    stop(&settings)?;
    println!(
        "gantry is down. The data stays in {}; `gantry up` brings everything back.",
        settings.data_dir.display()
    );
    Ok(())
}

pub fn uninstall(options: &UninstallOptions) -> anyhow::Result<()> {
    let settings = Settings::resolve(&options.common)?;
    if !options.yes {
        print!(
            "This removes the cluster's data in {} for good. Type yes to go on: ",
            settings.data_dir.display()
        );
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if answer.trim() != "yes" {
            bail!("nothing was removed");
        }
    }
    stop(&settings)?;
    for directory in [settings.data_dir.clone(), settings.run_dir(), node::pod_log_dir(&settings)] {
        remove(&directory)?;
    }
    println!("gantry is gone from this machine; the binary itself is yours to delete.");
    Ok(())
}

fn stop(settings: &Settings) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("stopping a cluster needs root; start it with sudo");
    }
    let mut problems: Vec<String> = Vec::new();
    let mut note = |what: &str, outcome: anyhow::Result<()>| {
        if let Err(error) = outcome {
            problems.push(format!("{what}: {error:#}"));
        }
    };
    note("the service", service::remove_unit(settings));
    note("the process", stop_process(settings));
    note("the pods", node::destroy_pods(settings));
    note("the pod network", network::cleanup(&settings.instance).map_err(Into::into));
    note("the service rules", kube_proxy::cleanup(&settings.instance).map_err(Into::into));
    note("files of this run", remove(&settings.run_dir()));
    if problems.is_empty() {
        return Ok(());
    }
    bail!(
        "something stayed behind:\n  - {}\nrun the command again, or remove it by hand",
        problems.join("\n  - ")
    )
}

fn stop_process(settings: &Settings) -> anyhow::Result<()> {
    let Some(process) = up::running_process(settings) else { return Ok(()) };
    let process = Pid::from_raw(process);
    kill(process, Signal::SIGTERM).with_context(|| format!("cannot signal process {process}"))?;
    let deadline = Instant::now() + STOP_TIME_MAX;
    while is_running(process) {
        if Instant::now() > deadline {
            kill(process, Signal::SIGKILL).with_context(|| format!("cannot kill process {process}"))?;
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A zombie, which only its parent can bury, has stopped too.
fn is_running(process: Pid) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { return false };
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn remove(directory: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
