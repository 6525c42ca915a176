//! Python's `kubernetes` client doing its everyday work, where it can be installed from PyPI; elsewhere the test says
//! that it did not run.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use testbed::Backend;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::Cluster;

/// How long the installation may take, and how long the work.
const INSTALLATION_MAX: Duration = Duration::from_secs(300);
const WORK_MAX: Duration = Duration::from_secs(300);
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/everyday.py");

/// Runs a program to its end; an error with what it said when it fails or takes too long.
async fn succeed(command: &mut Command) -> Result<(), String> {
    let running = command.kill_on_drop(true).output();
    let output = tokio::time::timeout(INSTALLATION_MAX, running).await;
    let output = output.map_err(|_| "it takes too long".to_string())?.map_err(|error| error.to_string())?;
    let said = [output.stdout, output.stderr].concat();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) }
}

/// The interpreter of a virtual environment with the client, made once and kept beside the build.
async fn python() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-client");
    let python = folder.join("bin/python");
    if succeed(Command::new(&python).args(["-c", "import kubernetes"])).await.is_ok() {
        return Ok(python);
    }
    succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).await?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "kubernetes>=31"];
    succeed(Command::new(&python).args(install)).await?;
    Ok(python)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_should_do_its_everyday_work_over_the_embedded_store() {
    everyday(Backend::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_should_do_its_everyday_work_over_etcd() {
    everyday(Backend::OwnEtcd).await;
}

async fn everyday(backend: Backend) {
    static PYTHON: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
    match PYTHON.get_or_init(python).await {
        Ok(python) => {
            tokio::time::timeout(WORK_MAX, work(python, backend)).await.expect("the work is done in time");
        }
        Err(why) => eprintln!("not run: the Python client cannot be installed here: {why}"),
    }
}

async fn work(python: &Path, backend: Backend) {
    let mut cluster = Cluster::start(backend).await;
    let kubeconfig = cluster.test.directory().join("kubeconfig");
    std::fs::write(&kubeconfig, cluster.kubeconfig()).unwrap();
    let request = pki::certificate_request(&pki::Leaf::client("ann", Some("staff")), jiff::Timestamp::now());
    let mut child = Command::new(python)
        .arg(SCRIPT)
        .env("KUBECONFIG", &kubeconfig)
        .env("CERTIFICATE_REQUEST", request.unwrap().certificate_pem)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut tell = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut steps = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line == "python: restart the server" {
            cluster = cluster.restarted().await;
            tell.write_all(b"restarted\n").await.unwrap();
        }
        steps.push(line);
    }
    let mut complaint = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaint).await.unwrap();
    assert!(child.wait().await.unwrap().success(), "{steps:#?}\n{complaint}");
    assert_eq!(steps.last().map(String::as_str), Some("python: done"), "{complaint}");
}
