//! Python's `kubernetes` client doing its everyday work, where it can be installed from PyPI; elsewhere the test says
//! that it did not run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::network::{issue, run};

/// How long the installation may take, and how long the work.
const INSTALLATION_MAX: Duration = Duration::from_secs(300);
const WORK_MAX: Duration = Duration::from_secs(240);
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/clients/everyday.py");

/// Runs a program to its end and answers what it said; an error when it fails or takes too long.
async fn succeed(command: &mut Command, at_most: Duration) -> Result<String, String> {
    let running = command.kill_on_drop(true).output();
    let output = tokio::time::timeout(at_most, running).await.map_err(|_| "it takes too long".to_string())?;
    let output = output.map_err(|error| error.to_string())?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// The interpreter of a virtual environment with the client, made once and kept beside the build.
async fn python() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-client");
    let python = folder.join("bin/python");
    let import = ["-c", "import kubernetes"];
    if succeed(Command::new(&python).args(import), INSTALLATION_MAX).await.is_ok() {
        return Ok(python);
    }
    succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder), INSTALLATION_MAX).await?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "kubernetes>=31"];
    succeed(Command::new(&python).args(install), INSTALLATION_MAX).await?;
    Ok(python)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_should_do_its_everyday_work() {
    let python = match python().await {
        Ok(python) => python,
        Err(why) => {
            eprintln!("not run: the Python client cannot be installed here: {why}");
            return;
        }
    };
    let running = run().await;
    let pair = issue(&running, "python", "system:masters");
    let server = format!("https://{}", running.address);
    let ca = String::from_utf8(running.test.config.root_ca_pem.clone()).unwrap();
    let user = pki::User::Certificate(&pair);
    let text = pki::Kubeconfig { server: &server, authority_pem: &ca, user_name: "python", user }.to_text();
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, text).unwrap();
    let said = succeed(Command::new(python).arg(SCRIPT).env("KUBECONFIG", &kubeconfig), WORK_MAX).await;
    running.shutdown.cancel();
    match said {
        Ok(said) => assert!(said.contains("python: done"), "{said}"),
        Err(said) => panic!("{said}"),
    }
}
