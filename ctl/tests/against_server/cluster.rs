//! An API server in this process, on a port of its own, and the programs that talk to it.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testbed::{Backend, Controllers, Hollow, Listening, TestServer};
use tokio::runtime::Runtime;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A server, and a folder in which programs run that know of it.
pub struct Cluster {
    pub test: TestServer,
    listening: Option<Listening>,
    folder: tempfile::TempDir,
    /// What makes pods run, where something does.
    life: Option<(Controllers, DropGuard)>,
    runtime: Option<Runtime>,
}

/// A command line that is given to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tool {
    Ctl,
    Kubectl(PathBuf),
}

/// What a program said.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl Tool {
    /// The kubectl of this machine, if it is new enough to be compared with.
    pub fn kubectl() -> Option<Self> {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::split_paths(&folders)
            .map(|folder| folder.join("kubectl"))
            .find(|path| path.exists())?;
        let output = Command::new(&path).args(["version", "--client"]).output().ok()?;
        let version = String::from_utf8_lossy(&output.stdout).into_owned();
        let minor = version.split("v1.").nth(1)?.split('.').next()?.parse::<u32>().ok()?;
        (minor >= 30).then_some(Self::Kubectl(path))
    }

    fn program(&self) -> &Path {
        match self {
            Self::Ctl => Path::new(env!("CARGO_BIN_EXE_ctl")),
            Self::Kubectl(path) => path,
        }
    }
}

impl Cluster {
    /// A server without controllers and nodes: what is written stays as it is.
    pub fn start() -> Self {
        let cluster = Self::over(Backend::Embedded);
        cluster.block_on(cluster.test.make_default_account());
        cluster
    }

    /// A server whose pods run: with controllers, and with nodes that are played.
    pub fn alive(backend: Backend) -> Self {
        let mut cluster = Self::over(backend);
        let stop = CancellationToken::new();
        let hollow = Hollow::new(cluster.test.client.clone(), 2);
        let running = stop.clone();
        let controllers = cluster.block_on(async {
            tokio::spawn(hollow.run(running));
            Controllers::start(&cluster.test, Controllers::config(&cluster.test))
        });
        cluster.life = Some((controllers, stop.drop_guard()));
        cluster
    }

    fn over(backend: Backend) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let test = runtime.block_on(TestServer::start_over(backend));
        let listening = runtime.block_on(test.listen());
        let folder = tempfile::Builder::new().prefix("ctl-test").tempdir().unwrap();
        let text = test.kubeconfig(&listening, "kubernetes-admin", pki::User::Certificate(&test.pki.admin));
        std::fs::write(folder.path().join("kubeconfig"), text).unwrap();
        Self { test, listening: Some(listening), folder, life: None, runtime: Some(runtime) }
    }

    /// Runs something of the server's to its end.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(work)
    }

    /// Has the server stop and one over the same data come up in its place.
    pub fn restart(&mut self) {
        let listening = self.listening.take().unwrap();
        let next = self.block_on(self.test.restarted(listening));
        (self.test, self.listening) = (next.0, Some(next.1));
    }

    /// The kubeconfig of somebody.
    pub fn kubeconfig_of(&self, user_name: &str, user: pki::User<'_>) -> String {
        self.test.kubeconfig(self.listening.as_ref().unwrap(), user_name, user)
    }

    /// Runs ctl, which must succeed, and returns what it said.
    pub fn ctl(&self, words: &str) -> String {
        self.ctl_with(words, "")
    }

    /// The same, with standard input.
    pub fn ctl_with(&self, words: &str, input: &str) -> String {
        let said = self.run(&Tool::Ctl, words, input);
        assert!(said.ok, "ctl {words}: {said:?}");
        said.out
    }

    /// Runs ctl, which must fail, and returns its complaint.
    pub fn ctl_fails(&self, words: &str, input: &str) -> String {
        let said = self.run(&Tool::Ctl, words, input);
        assert!(!said.ok, "ctl {words}: {said:?}");
        said.err
    }

    /// Runs a program with words that are separated by spaces; `'…'` keeps them together.
    pub fn run(&self, tool: &Tool, words: &str, input: &str) -> Said {
        self.run_in(self.command(tool, words), input)
    }

    /// The same in another environment.
    pub fn run_with(&self, tool: &Tool, words: &str, environment: &[(&str, &OsStr)]) -> Said {
        let mut command = self.command(tool, words);
        command.envs(environment.iter().copied());
        self.run_in(command, "")
    }

    fn run_in(&self, mut command: Command, input: &str) -> Said {
        let mut child = command.spawn().unwrap();
        // What begins with a brace kubectl would take for JSON.
        let input = format!("{}{input}", if input.starts_with('{') { "---\n" } else { "" });
        // Who does not read standard input may be gone before it is written.
        let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
        Said::of(child)
    }

    /// Starts a program and leaves it to run.
    pub fn begin(&self, tool: &Tool, words: &str) -> Child {
        self.command(tool, words).spawn().unwrap()
    }

    fn command(&self, tool: &Tool, words: &str) -> Command {
        let mut command = Command::new(tool.program());
        command
            .args(split(words))
            .env_clear()
            .env("KUBECONFIG", self.path("kubeconfig"))
            .env("HOME", self.folder.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("KUBE_EDITOR", self.path("editor"))
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The path of a file beside the kubeconfig, where the programs run.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Such a file with a text in it.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }
}

impl Said {
    /// What a program says until its end.
    pub fn of(child: Child) -> Self {
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { ok: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.life = None;
        self.listening = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// Waits until something is there, a minute at most.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in a minute: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn split(words: &str) -> Vec<String> {
    let parts = words.split('\'').enumerate();
    parts
        .flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(Into::into).collect(),
            _ => vec![part.to_string()],
        })
        .collect()
}
