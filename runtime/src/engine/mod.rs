//! The runtime itself: sandboxes and containers, from being made to being gone.
//!
//! One record per sandbox and container is on disk before anything of it exists, so that whatever a crash leaves behind
//! is known at the next start ([`recovery`]).

mod container;
mod exec;
mod image_volume;
mod recovery;
mod sandbox;
mod start;
mod stop;
mod watch;

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use k8s_cri::v1::{ContainerEventResponse, ContainerEventType};
use parking_lot::RwLock;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

pub(crate) use exec::{ExecProcess, ExecStreams, OutputLimit, sender};

use crate::{
    Config,
    cgroup::Cgroups,
    error::Error,
    image::ImageStore,
    network::PodNetwork,
    record::{ContainerEntry, Sandbox},
    shim_factory::ShimFactory,
    time,
};

/// Events that a slow listener may be behind before it misses some.
const EVENTS_KEPT: usize = 1024;

pub(crate) struct Engine {
    pub(crate) config: Config,
    shims: ShimFactory,
    pub(crate) images: ImageStore,
    pub(crate) network: Arc<dyn PodNetwork>,
    pub(crate) cgroups: Cgroups,
    sandboxes: RwLock<HashMap<String, Arc<Sandbox>>>,
    containers: RwLock<HashMap<String, Arc<ContainerEntry>>>,
    events: broadcast::Sender<ContainerEventResponse>,
    /// Ends the watching of shims.
    shutdown: CancellationToken,
}

impl Engine {
    /// The sandbox with this identifier, or the beginning of one.
    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Error> {
        find(&self.sandboxes.read(), id).ok_or_else(|| Error::NotFound("sandbox", id.to_owned()))
    }

    pub(crate) fn container(&self, id: &str) -> Result<Arc<ContainerEntry>, Error> {
        find(&self.containers.read(), id).ok_or_else(|| Error::NotFound("container", id.to_owned()))
    }

    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.sandboxes.read().values().cloned().collect()
    }

    pub(crate) fn containers(&self) -> Vec<Arc<ContainerEntry>> {
        self.containers.read().values().cloned().collect()
    }

    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<ContainerEntry>> {
        let containers = self.containers.read();
        containers.values().filter(|container| container.sandbox_id == sandbox).cloned().collect()
    }

    /// The layers that containers stand on.
    pub(crate) fn layers_in_use(&self) -> BTreeSet<String> {
        let containers = self.containers.read();
        containers.values().flat_map(|container| container.record.read().chains.clone()).collect()
    }

    /// Ends the tasks that watch shims. The shims stay.
    pub(crate) fn end_watching(&self) {
        self.shutdown.cancel();
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<ContainerEventResponse> {
        self.events.subscribe()
    }

    /// Tells listeners that something happened to a container (or, by its own identifier, to a sandbox).
    fn announce(&self, id: &str, sandbox: &Sandbox, event: ContainerEventType) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let containers = self.containers_of(&sandbox.id);
        let announced = self.events.send(ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: event.into(),
            created_at: time::now(),
            pod_sandbox_status: Some(sandbox.status()),
            containers_statuses: containers.iter().map(|container| container.status()).collect(),
        });
        tracing::trace!(id, ?event, listeners = announced.unwrap_or_default(), "container event");
    }

    fn sandbox_directory(&self, id: &str) -> PathBuf {
        self.config.state.join("sandboxes").join(id)
    }

    fn container_directory(&self, id: &str) -> PathBuf {
        self.config.state.join("containers").join(id)
    }

    /// What a container writes.
    fn writable_directory(&self, id: &str) -> PathBuf {
        self.config.root.join("containers").join(id)
    }
}

fn find<T>(map: &HashMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if let Some(found) = map.get(id) {
        return Some(Arc::clone(found));
    }
    // People type the beginning of an identifier; it must mean one thing only.
    let mut found = map.iter().filter(|(key, _)| id.len() >= 4 && key.starts_with(id));
    match (found.next(), found.next()) {
        (Some((_, found)), None) => Some(Arc::clone(found)),
        _ => None,
    }
}

/// A new identifier, short enough for the sockets in the directories that it names.
fn new_id() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

/// Runs something that blocks.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Error::io(what)),
        Err(error) => Err(Error::Internal(format!("{what}: {error}"))),
    }
}
