//! Starting containers.

use k8s_cri::v1::ContainerEventType;
use serde::{Deserialize, Serialize};

use super::Engine;
use crate::{
    error::Error,
    files,
    record::{ContainerEntry, Phase},
    shim::protocol::{ContainerStart, Exit, Reply, Request},
    shim_client::{self, ShimError},
    time,
};

/// Says that a start was tried, before it is: a container is never started twice, whatever crashes in between.
pub(super) const STARTED_FILE: &str = "started.json";

/// What is remembered of a start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) at: i64,
    /// Why it failed.
    pub(super) error: Option<String>,
}

impl Engine {
    pub(crate) async fn start_container(&self, id: &str) -> Result<(), Error> {
        let entry = self.container(id)?;
        let _changing = entry.changing.lock().await;
        if entry.phase() != Phase::Created {
            return Err(Error::State(format!("container {id:?} has been started already")));
        }
        let sandbox = self.sandbox(&entry.sandbox_id)?;
        remember(&entry, &Started { at: time::now(), error: None })?;
        let request = Request::Start(Box::new(start_request(&entry)));
        let started = match shim_client::ask(&sandbox.directory, &request).await {
            Ok(Reply::Started { pid, at }) => Phase::Running { pid, started_at: at },
            Ok(other) => return Err(Error::Internal(format!("unexpected answer of the shim: {other:?}"))),
            Err(ShimError::Failed(reason)) => {
                let message = format!("failed to start container: {reason}");
                let now = time::now();
                remember(&entry, &Started { at: now, error: Some(message.clone()) })?;
                // As a shell would say that it cannot run something.
                let exit = Exit { code: 128, at: now, oom_killed: false };
                entry.phase.send_replace(Phase::Exited { started_at: 0, exit, message: message.clone() });
                return Err(Error::Internal(message));
            }
            Err(error) => return Err(error.into()),
        };
        // The exit may have been told already: an exited container stays exited.
        entry.phase.send_if_modified(|phase| {
            let changes = *phase == Phase::Created;
            match phase {
                Phase::Created => *phase = started.clone(),
                Phase::Exited { started_at, .. } if *started_at == 0 => {
                    if let Phase::Running { started_at: at, .. } = started {
                        *started_at = at;
                    }
                }
                Phase::Running { .. } | Phase::Exited { .. } => {}
            }
            changes
        });
        self.announce(&entry.id, &sandbox, ContainerEventType::ContainerStartedEvent);
        Ok(())
    }
}

fn remember(entry: &ContainerEntry, started: &Started) -> Result<(), Error> {
    let json = serde_json::to_vec(started).map_err(|error| Error::Internal(error.to_string()))?;
    files::replace(&entry.directory.join(STARTED_FILE), &json).map_err(Error::io("recording the start"))
}

fn start_request(entry: &ContainerEntry) -> ContainerStart {
    let record = entry.record.read();
    let resources = record.config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    ContainerStart {
        id: record.id.clone(),
        bundle: entry.directory.clone(),
        cgroup: record.cgroup.clone(),
        log_path: record.log_path.clone(),
        tty: record.config.tty,
        stdin: record.config.stdin,
        stdin_once: record.config.stdin_once,
        oom_score_adj: resources.map(|resources| resources.oom_score_adj).filter(|score| *score != 0),
    }
}
