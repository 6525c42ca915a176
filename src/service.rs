//! Keeping a role running after the command that started it has returned: a systemd unit where systemd runs, a
//! detached process elsewhere.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

use crate::settings::Settings;

/// Set for a detached process, which then leaves the terminal's session.
pub const DETACHED: &str = "GANTRY_DETACHED";

/// Something that was started and can be watched while it comes up.
pub enum Started {
    /// systemd looks after it, under this unit name.
    Unit(String),
    /// A process of ours.
    Process(Child),
}

impl Started {
    /// Why it ended, if it did.
    pub fn failure(&mut self, settings: &Settings) -> anyhow::Result<Option<String>> {
        match self {
            Self::Unit(unit) => {
                let state = Command::new("systemctl").args(["is-failed", unit]).output()?;
                Ok(state.status.success().then(|| format!("see `journalctl -u {unit}`")))
            }
            Self::Process(child) => match child.try_wait()? {
                Some(_) => Ok(Some(last_words(&log_file(settings)))),
                None => Ok(None),
            },
        }
    }
}

/// Starts `gantry <arguments>` so that it outlives this process.
pub fn start(settings: &Settings, arguments: &[String]) -> anyhow::Result<Started> {
    let program = std::env::current_exe().context("cannot tell where the gantry binary is")?;
    if systemd_runs() {
        start_unit(settings, &program, arguments)
    } else {
        start_detached(settings, &program, arguments)
    }
}

/// Where a detached process writes its log.
pub fn log_file(settings: &Settings) -> PathBuf {
    settings.data_dir.join("gantry.log")
}

/// Stops and forgets the unit, if there is one.
pub fn remove_unit(settings: &Settings) -> anyhow::Result<()> {
    let path = unit_path(settings);
    if !path.exists() {
        return Ok(());
    }
    let unit = unit_name(settings);
    systemctl(&["disable", "--now", &unit])?;
    std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    systemctl(&["daemon-reload"])
}

fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").exists()
}

fn unit_name(settings: &Settings) -> String {
    format!("{}.service", settings.instance)
}

fn unit_path(settings: &Settings) -> PathBuf {
    Path::new("/etc/systemd/system").join(unit_name(settings))
}

fn start_unit(settings: &Settings, program: &Path, arguments: &[String]) -> anyhow::Result<Started> {
    let quoted: Vec<String> =
        arguments.iter().map(|argument| format!("\"{}\"", argument.replace('%', "%%"))).collect();
    // KillMode=process: stopping the service leaves the pods' shims, and so the containers, running.
    let unit = format!(
        "[Unit]\nDescription=Gantry\nWants=network-online.target\nAfter=network-online.target\n\n\
         [Service]\nExecStart={} {}\nKillMode=process\nDelegate=yes\nRestart=always\nRestartSec=1\n\
         LimitNOFILE=1048576\nLimitNPROC=infinity\nTasksMax=infinity\n\n[Install]\nWantedBy=multi-user.target\n",
        program.display(),
        quoted.join(" "),
    );
    let path = unit_path(settings);
    std::fs::write(&path, unit).with_context(|| format!("cannot write {}", path.display()))?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", &unit_name(settings)])?;
    systemctl(&["restart", &unit_name(settings)])?;
    Ok(Started::Unit(unit_name(settings)))
}

fn start_detached(settings: &Settings, program: &Path, arguments: &[String]) -> anyhow::Result<Started> {
    std::fs::create_dir_all(&settings.data_dir)
        .with_context(|| format!("cannot create --data-dir {}", settings.data_dir.display()))?;
    let path = log_file(settings);
    let log = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot write the log {}", path.display()))?;
    let child = Command::new(program)
        .args(arguments)
        .env(DETACHED, "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    Ok(Started::Process(child))
}

fn systemctl(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("systemctl").args(arguments).output().context("cannot run systemctl")?;
    if !output.status.success() {
        bail!("systemctl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The last line of a log says why its writer ended.
fn last_words(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    format!("{last}\n(the whole log: {})", path.display())
}
