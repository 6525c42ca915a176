//! Running programs and waiting for the world to change.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a program said.
#[derive(Clone, Debug)]
pub struct Output {
    /// Whether it ended with 0.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Both streams, for messages.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// The output of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.success, "the command failed: {}", self.all());
        self.stdout
    }

    /// What a command that must have failed said.
    #[track_caller]
    pub fn refused(self) -> String {
        assert!(!self.success, "the command should have failed, but said: {}", self.all());
        self.all()
    }
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    Output {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Which command line a user types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Ours.
    Ctl,
    /// An unmodified kubectl from the PATH.
    Kubectl,
    /// Debian's kubectl: 1.20, about the oldest that people still use.
    OldKubectl,
}

impl Tool {
    /// All that this machine has. Only the oldest kubectl may be missing, on systems that do not package it.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Ctl, Self::Kubectl];
        if old_kubectl().exists() {
            all.push(Self::OldKubectl);
        } else {
            eprintln!("not tried: Debian's kubectl 1.20 ({} is missing)", old_kubectl().display());
        }
        all
    }

    /// The command with its first arguments.
    pub fn command(self) -> (PathBuf, &'static [&'static str]) {
        match self {
            Self::Ctl => (gantry(), &["ctl"]),
            Self::Kubectl => (PathBuf::from("kubectl"), &[]),
            Self::OldKubectl => (old_kubectl(), &[]),
        }
    }
}

/// The binary under test: `$GANTRY`, else the one that cargo built beside this program, or beside this test.
pub fn gantry() -> PathBuf {
    if let Some(path) = std::env::var_os("GANTRY") {
        return path.into();
    }
    let this = std::env::current_exe().unwrap();
    let built =
        this.ancestors().skip(1).take(2).map(|directory| directory.join("gantry")).find(|path| path.exists());
    built.unwrap_or_else(|| panic!("no gantry beside {}: run `cargo build` first", this.display()))
}

/// Where `scripts/prerequisites.sh test` puts Debian's kubectl.
fn old_kubectl() -> PathBuf {
    cache().join("kubectl-1.20/usr/bin/kubectl")
}

/// What `make` fetches and builds for the tests.
fn cache() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.cache")
}

/// The archive of an image that `images/build.sh` made.
pub fn image_archive(name: &str) -> PathBuf {
    let path = cache().join("images").join(format!("{}.tar", name.replace([':', '/'], "-")));
    assert!(path.exists(), "{} is missing: run images/build.sh first", path.display());
    path
}

/// Asks again until there is an answer, at most for `seconds`. The last refusal is in the panic.
#[track_caller]
pub fn eventually<T>(seconds: u64, what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) if Instant::now() > deadline => {
                panic!("{what}: not within {seconds} s; last seen: {why}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
