//! Wakes pods when something happened to their containers.
//!
//! With a runtime that streams events the agent sleeps until one comes. Without, it compares lists once a second, and
//! only while it has pods. Either way a pod that is woken looks for itself: an event lost or doubled does no harm, and a
//! slow comparison behind the stream finds what a broken stream did not tell.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Cri, CriError, labels};

/// Between two comparisons without a stream, as upstream.
const RELIST: Duration = Duration::from_secs(1);
/// Between two comparisons behind a stream.
const RELIST_BEHIND_STREAM: Duration = Duration::from_secs(120);
/// Before a broken stream is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// Watches the runtime and tells whose pod to wake.
pub struct RuntimeEvents {
    cri: Cri,
    pods: Arc<AtomicUsize>,
    pods_changed: Arc<Notify>,
    wake: Box<dyn Fn(&str) + Send + Sync>,
}

/// What the last comparison saw: state by id, with the pod.
type Seen = HashMap<String, (String, i32)>;

impl RuntimeEvents {
    /// `wake` is called with the UID of a pod; `pods` counts the pods that the agent has, and `pods_changed` tells that
    /// it changed.
    pub fn new(
        cri: Cri,
        pods: Arc<AtomicUsize>,
        pods_changed: Arc<Notify>,
        wake: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        Self { cri, pods, pods_changed, wake: Box::new(wake) }
    }

    /// Runs until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut seen = Seen::new();
        let mut streams = true;
        while !shutdown.is_cancelled() {
            if streams {
                match self.cri.events().await {
                    Ok(stream) => self.follow(stream, &mut seen, &shutdown).await,
                    Err(error) if error.is_unimplemented() => {
                        tracing::info!("the runtime streams no events: comparing lists every second");
                        streams = false;
                        continue;
                    }
                    Err(error) => tracing::warn!(%error, "no events from the runtime"),
                }
                self.compare_or_warn(&mut seen).await;
                pause(REOPEN, &shutdown).await;
            } else {
                self.wait_for_pods(&shutdown).await;
                self.compare_or_warn(&mut seen).await;
                pause(RELIST, &shutdown).await;
            }
        }
    }

    async fn follow(
        &self,
        mut stream: tonic::Streaming<k8s_cri::v1::ContainerEventResponse>,
        seen: &mut Seen,
        shutdown: &CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RELIST_BEHIND_STREAM) => {
                    if self.pods.load(Ordering::Relaxed) > 0 {
                        self.compare_or_warn(seen).await;
                    }
                }
                event = stream.message() => match event {
                    Ok(Some(event)) => {
                        let metadata = event.pod_sandbox_status.and_then(|status| status.metadata);
                        if let Some(metadata) = metadata {
                            (self.wake)(&metadata.uid);
                        } else {
                            self.compare_or_warn(seen).await;
                        }
                    }
                    Ok(None) => return,
                    Err(error) => {
                        // The state of containers is compared anew before the stream is opened again.
                        tracing::debug!(%error, "the stream of events ended");
                        return;
                    }
                }
            }
        }
    }

    async fn wait_for_pods(&self, shutdown: &CancellationToken) {
        loop {
            let changed = self.pods_changed.notified();
            if self.pods.load(Ordering::Relaxed) > 0 {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn compare_or_warn(&self, seen: &mut Seen) {
        if let Err(error) = self.compare(seen).await {
            tracing::warn!(%error, "the runtime's lists cannot be read");
        }
    }

    async fn compare(&self, seen: &mut Seen) -> Result<(), CriError> {
        let (sandboxes, containers) =
            tokio::try_join!(self.cri.list_sandboxes(None), self.cri.list_containers(None))?;
        let mut now = Seen::with_capacity(sandboxes.len() + containers.len());
        let pod = |labels: &HashMap<String, String>| labels.get(labels::POD_UID).cloned();
        for sandbox in sandboxes {
            if let Some(uid) = pod(&sandbox.labels) {
                now.insert(sandbox.id, (uid, sandbox.state));
            }
        }
        for container in containers {
            if let Some(uid) = pod(&container.labels) {
                now.insert(container.id, (uid, container.state));
            }
        }
        for (id, (uid, state)) in &now {
            if seen.get(id).is_none_or(|(_, before)| before != state) {
                (self.wake)(uid);
            }
        }
        for (id, (uid, _)) in seen.iter() {
            if !now.contains_key(id) {
                (self.wake)(uid);
            }
        }
        *seen = now;
        Ok(())
    }
}

async fn pause(duration: Duration, shutdown: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(duration) => {}
        () = shutdown.cancelled() => {}
    }
}
