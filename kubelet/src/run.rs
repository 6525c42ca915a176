//! Puts the agent together, runs it, and takes it down.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::backoff::Backoff;
use client::{EventType, Informers};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::agent_state::Agent;
use crate::cgroup::Cgroups;
use crate::config::{CgroupDriver, Config};
use crate::cri::{Cri, RuntimeEvents};
use crate::node::{StatusLoop, keep_lease, register};
use crate::pod::PodManager;
use crate::{Error, agent, eviction, node};

/// How long the runtime may take to answer first.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(60);

/// Runs the agent until `shutdown` fires. Containers run on.
pub async fn run(config: Config, client: kube::Client, shutdown: CancellationToken) -> Result<(), Error> {
    let informers = Informers::new(client, shutdown.clone());
    run_with(config, &informers, shutdown).await
}

/// The same, sharing informers with other parts of the process. They must read as the node, and outlive the agent.
pub async fn run_with(
    config: Config,
    informers: &Informers,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    make_dir(&config.root_dir, 0o750)?;
    make_dir(&config.pod_log_dir, 0o755)?;
    let listener = agent::Listener::bind(&config).await?;
    let cri = Cri::new(&config.runtime_endpoint, config.image_endpoint.as_deref());
    let Some(version) = wait_for_runtime(&cri, &shutdown).await? else { return Ok(()) };
    tracing::info!(name = version.runtime_name, version = version.runtime_version, "the runtime answers");
    let driver = cgroup_driver(&config, &cri).await;
    let cgroups = Cgroups::new(&config.cgroup_root, driver);
    let runtime = (version.runtime_name, version.runtime_version);
    let agent = Arc::new(Agent::new(config, informers.clone(), cri, runtime, cgroups, &shutdown));
    agent.set_api_port(listener.port());

    agent::begin_measuring(&agent);

    let mut tasks = JoinSet::new();
    tasks.spawn(listener.serve(agent.clone(), shutdown.clone()));
    register(&agent, &shutdown).await?;
    node::tell(&agent, EventType::Normal, "Starting", "Starting kubelet.");
    tasks.spawn(keep_lease(agent.clone(), shutdown.clone()));
    tasks.spawn(StatusLoop::new(agent.clone()).run(shutdown.clone()));
    tasks.spawn(agent::rotate_logs(agent.clone(), shutdown.clone()));
    tasks.spawn(eviction::keep_room(agent.clone(), shutdown.clone()));
    tasks.spawn(PodManager::new(agent.clone()).run(shutdown.clone()));
    tasks.spawn(runtime_events(&agent).run(shutdown.clone()));
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && !shutdown.is_cancelled()
        {
            // A part that breaks takes the agent with it: whoever started it starts it again, and pods run on.
            tracing::error!(%error, "a part of the agent broke");
            shutdown.cancel();
        }
    }
    Ok(())
}

fn runtime_events(agent: &Arc<Agent>) -> RuntimeEvents {
    let waking = agent.clone();
    let wake = move |uid: &str| {
        if let Some(mailbox) = waking.pods.lock().get(uid) {
            mailbox.wake();
        }
    };
    RuntimeEvents::new(agent.cri.clone(), agent.pod_count.clone(), agent.pods_changed.clone(), wake)
}

fn make_dir(path: &Path, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| Error::Directory { path: path.to_path_buf(), source })
}

async fn wait_for_runtime(
    cri: &Cri,
    shutdown: &CancellationToken,
) -> Result<Option<k8s_cri::v1::VersionResponse>, Error> {
    let began = std::time::Instant::now();
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    loop {
        match cri.version().await {
            Ok(version) => return Ok(Some(version)),
            Err(error) if began.elapsed() > RUNTIME_PATIENCE => return Err(error.into()),
            Err(error) => tracing::debug!(%error, "the runtime does not answer yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_delay()) => {}
            () = shutdown.cancelled() => return Ok(None),
        }
    }
}

/// As configured, else as the runtime says, else by path.
async fn cgroup_driver(config: &Config, cri: &Cri) -> CgroupDriver {
    if let Some(driver) = config.cgroup_driver {
        return driver;
    }
    match cri.runtime_config().await {
        Ok(reply) => match reply.linux.map(|linux| linux.cgroup_driver()) {
            Some(k8s_cri::v1::CgroupDriver::Systemd) => CgroupDriver::Systemd,
            _ => CgroupDriver::Cgroupfs,
        },
        Err(error) => {
            tracing::debug!(%error, "the runtime does not tell its cgroup driver: taking cgroupfs");
            CgroupDriver::Cgroupfs
        }
    }
}
