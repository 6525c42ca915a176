//! The parts of the system as tasks: started by name, run together, drained together.

use std::time::Duration;

use anyhow::Context;
use pki::CertificateAndKey;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::cli::Role;
use crate::control_plane::{self, ControlPlane};
use crate::settings::Settings;
use crate::{identities, join, node, preflight, renewal};

/// Parts that have not drained after so long are left to their fate.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// Why a role ended, when nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// To start over with new certificates.
    Renewing,
}

/// The running parts of this process.
pub struct Parts {
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    shutdown: CancellationToken,
}

impl Parts {
    pub fn new() -> Self {
        Self { tasks: JoinSet::new(), shutdown: CancellationToken::new() }
    }

    /// Fires when the parts are to drain.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Starts a part.
    pub fn start<E>(&mut self, name: &'static str, part: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<anyhow::Error> + 'static,
    {
        self.tasks.spawn(async move { (name, part.await.map_err(Into::into)) });
    }

    pub fn scheduler(&mut self, client: kube::Client) {
        let part = scheduler::run(scheduler::Config::default(), client, self.shutdown());
        self.start("scheduler", part);
    }

    pub fn controller_manager(
        &mut self,
        settings: &Settings,
        authority: CertificateAndKey,
        client: kube::Client,
    ) {
        let config = control_plane::controller_config(settings, Some(authority));
        let part = controller_manager::run(config, client, self.shutdown());
        self.start("controller-manager", part);
    }

    /// Runs until `stop` is ready or a part ends by itself, then drains all.
    pub async fn run_until(
        mut self,
        stop: impl Future<Output = anyhow::Result<Ended>>,
    ) -> anyhow::Result<Ended> {
        let outcome = tokio::select! {
            stopped = stop => stopped,
            Some(ended) = self.tasks.join_next() => match ended {
                Ok((name, Ok(()))) => Err(anyhow::anyhow!("the {name} ended by itself")),
                Ok((name, Err(problem))) => Err(problem.context(format!("the {name} failed"))),
                Err(panic) => Err(panic).context("a part panicked"),
            },
        };
        self.shutdown.cancel();
        let drained = tokio::time::timeout(DRAIN_TIME_MAX, async {
            while let Some(ended) = self.tasks.join_next().await {
                match ended {
                    Ok((name, Ok(()))) => info!(part = name, "drained"),
                    Ok((name, Err(problem))) => error!(part = name, "failed while draining: {problem:#}"),
                    Err(panic) => error!(%panic, "a part panicked while draining"),
                }
            }
        });
        if drained.await.is_err() {
            warn!("some parts did not drain in time");
        }
        outcome
    }
}

/// Ready when the process is asked to stop, or a certificate in the directory is due.
pub async fn stop_or_renew(certificates: std::path::PathBuf) -> anyhow::Result<Ended> {
    tokio::select! {
        stopped = stop_signal() => stopped,
        () = renewal::due(certificates) => Ok(Ended::Renewing),
    }
}

/// Ready when the process is asked to stop.
pub async fn stop_signal() -> anyhow::Result<Ended> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // The terminal that started a foreground server may go away.
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => warn!("ignoring SIGHUP"),
        }
    }
    info!("stopping");
    Ok(Ended::Stopped)
}

/// Runs one role alone.
pub async fn run(role: Role, settings: Settings) -> anyhow::Result<Ended> {
    preflight::raise_file_limit();
    let mut parts = Parts::new();
    match role {
        Role::Apiserver(_) => {
            let claim = preflight::claim_data_dir(&settings)?;
            let control_plane = ControlPlane::build(&settings).await?;
            let shutdown = parts.shutdown();
            parts.start("apiserver", control_plane.serve(shutdown));
            let outcome = parts.run_until(stop_or_renew(settings.pki_dir())).await;
            drop(claim);
            return outcome;
        }
        Role::Scheduler(options) => {
            parts.scheduler(identities::client_of_kubeconfig(&options.kubeconfig, "kube-scheduler").await?);
        }
        Role::ControllerManager(options) => {
            let client =
                identities::client_of_kubeconfig(&options.kubeconfig, "kube-controller-manager").await?;
            let pki = pki::NodePki::new(settings.pki_dir());
            let (certificate, key) = pki.paths("ca");
            let read = |path: &std::path::Path| {
                std::fs::read_to_string(path)
                    .with_context(|| format!("the controllers sign with {}", path.display()))
            };
            let authority = CertificateAndKey { certificate_pem: read(&certificate)?, key_pem: read(&key)? };
            parts.controller_manager(&settings, authority, client);
        }
        Role::Kubelet(options) => {
            preflight::check_node()?;
            let claim = preflight::claim_data_dir(&settings)?;
            let access = join::access_of_kubeconfig(&settings, &options.kubeconfig).await?;
            node::start_kubelet(&settings, &access, &mut parts).await?;
            let outcome = parts.run_until(stop_or_renew(settings.pki_dir())).await;
            drop(claim);
            return outcome;
        }
        Role::KubeProxy(options) => {
            let client = identities::client_of_kubeconfig(&options.kubeconfig, "kube-proxy").await?;
            let informers = client::Informers::new(client, parts.shutdown());
            node::start_proxy(&settings, informers, &mut parts)?;
        }
    }
    parts.run_until(stop_signal()).await
}
