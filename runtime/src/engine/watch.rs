//! Watching shims: hearing of exits, and cleaning up after a shim that has died.

use std::{sync::Arc, time::Duration};

use k8s_cri::v1::ContainerEventType;

use super::{Engine, blocking, sandbox};
use crate::{
    error::Error,
    record::{ContainerEntry, Phase, Sandbox},
    shim::protocol::{ContainerState, Exit, Reply, Request},
    shim_client::Connection,
    time,
};

/// How long a shim may take to answer the first question.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

impl Engine {
    /// Learns what a shim knows, and then follows it in a task of its own. Fails when there is no shim.
    pub(super) async fn watch_shim(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        let connection = self.greet(sandbox).await?;
        let (engine, sandbox) = (Arc::clone(self), Arc::clone(sandbox));
        tokio::spawn(async move {
            let shutdown = engine.shutdown.clone();
            tokio::select! {
                () = engine.follow(&sandbox, connection) => {}
                () = shutdown.cancelled() => {}
            }
        });
        Ok(())
    }

    /// Subscribes to a shim and takes over what it says.
    async fn greet(&self, sandbox: &Arc<Sandbox>) -> Result<Connection, Error> {
        let connection = Connection::open(&sandbox.directory)?;
        let greeting = tokio::time::timeout(GREETING_TIMEOUT, connection.ask(&Request::Subscribe, &[])).await;
        let greeting = greeting.map_err(|_| Error::Internal("the shim does not answer".into()))?;
        if let (Reply::Containers { pause_pid, containers }, _) = greeting? {
            self.greeted(sandbox, pause_pid, containers);
        }
        Ok(connection)
    }

    async fn follow(self: &Arc<Self>, sandbox: &Arc<Sandbox>, mut connection: Connection) {
        loop {
            while let Ok((reply, _)) = connection.receive().await {
                if let Reply::Exited { container, exit } = reply
                    && let Ok(entry) = self.container(&container)
                {
                    self.exited(sandbox, &entry, exit);
                }
            }
            // A connection can end without its shim, which drops listeners that fall far behind.
            match self.greet(sandbox).await {
                Ok(another) => connection = another,
                Err(error) => {
                    tracing::debug!(sandbox = sandbox.id, %error, "the shim has ended");
                    break;
                }
            }
        }
        self.shim_ended(sandbox).await;
    }

    /// Brings what we know in line with what the shim knows.
    fn greeted(&self, sandbox: &Arc<Sandbox>, pause_pid: Option<i32>, containers: Vec<ContainerState>) {
        *sandbox.pause_pid.write() = pause_pid;
        for state in containers {
            let Ok(entry) = self.container(&state.id) else { continue };
            let running = Phase::Running { pid: state.pid, started_at: state.started_at };
            entry.phase.send_if_modified(|phase| {
                let changes = *phase == Phase::Created;
                if changes {
                    *phase = running;
                }
                changes
            });
            if let Some(exit) = state.exit {
                self.exited(sandbox, &entry, exit);
            }
        }
    }

    fn exited(&self, sandbox: &Arc<Sandbox>, entry: &Arc<ContainerEntry>, exit: Exit) {
        let changed = entry.phase.send_if_modified(|phase| {
            let started_at = match phase {
                Phase::Created => 0,
                Phase::Running { started_at, .. } => *started_at,
                Phase::Exited { .. } => return false,
            };
            *phase = Phase::Exited { started_at, exit: exit.clone(), message: String::new() };
            true
        });
        if changed {
            tracing::debug!(container = entry.id, code = exit.code, "container exited");
            self.announce(&entry.id, sandbox, ContainerEventType::ContainerStoppedEvent);
        }
    }

    /// A shim is gone: told to end, or killed. Its containers end with it.
    pub(super) async fn shim_ended(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        if sandbox.record.read().stopped {
            return;
        }
        // Whoever is stopping the sandbox has ended the shim on purpose.
        let _changing = sandbox.changing.lock().await;
        if sandbox.record.read().stopped {
            return;
        }
        tracing::warn!(sandbox = sandbox.id, "the pod's shim has died; what it ran is being ended");
        for entry in self.containers_of(&sandbox.id) {
            if let Err(error) = self.end_without_shim(sandbox, &entry).await {
                tracing::warn!(container = entry.id, %error, "after the death of its shim");
            }
        }
        sandbox.record.write().stopped = true;
        if let Err(error) = sandbox::save(sandbox) {
            tracing::warn!(sandbox = sandbox.id, %error, "recording that the sandbox has ended");
        }
        self.announce(&sandbox.id, sandbox, ContainerEventType::ContainerStoppedEvent);
    }
    /// Kills what is left of a container whose shim is gone, and says so.
    pub(super) async fn end_without_shim(
        &self,
        sandbox: &Arc<Sandbox>,
        entry: &Arc<ContainerEntry>,
    ) -> Result<(), Error> {
        let (cgroups, cgroup) = (self.cgroups.clone(), entry.record.read().cgroup.clone());
        blocking("killing what is left", move || cgroups.kill_all(&cgroup).map_err(std::io::Error::other))
            .await?;
        if matches!(entry.phase(), Phase::Running { .. }) {
            self.exited(sandbox, entry, Exit { code: 137, at: time::now(), oom_killed: false });
        }
        Ok(())
    }
}
