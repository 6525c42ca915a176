//! Gives every pod of the node its worker, and stops what the API does not know.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use client::{Change, Informer, Scope};
use k8s_cri::v1::{Container, PodSandbox};
use k8s_openapi::api::core::v1::{Container as PodContainer, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::mailbox::Mailbox;
use super::spec::PodExt;
use super::worker::Worker;
use crate::agent_state::Agent;
use crate::cri::{CriError, labels};
use crate::volume;

/// Hands the API's news to the workers.
pub struct PodManager {
    agent: Arc<Agent>,
    pods: Informer<Pod>,
    workers: JoinSet<String>,
    /// Pods whose work is done while the watch still shows them: late news of theirs start nothing.
    done: HashSet<String>,
}

impl PodManager {
    /// For the pods bound to this node.
    pub fn new(agent: Arc<Agent>) -> Self {
        let scope = Scope::all().fields(format!("spec.nodeName={}", agent.config.node_name));
        let pods = agent.informers.get::<Pod>(scope);
        Self { agent, pods, workers: JoinSet::new(), done: HashSet::new() }
    }

    /// Runs until shutdown. Workers are dropped where they stand: containers run on, and the next agent finds them.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut changes = self.pods.subscribe();
        let mut looked_for_orphans = false;
        loop {
            let synced = self.pods.clone();
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = synced.synced(), if !looked_for_orphans => {
                    while let Some(change) = changes.try_next() {
                        self.apply(change);
                    }
                    *self.agent.granting.lock() = true;
                    self.agent.wake_waiting();
                    self.stop_orphans().await;
                    looked_for_orphans = true;
                }
                change = changes.next() => match change {
                    Some(change) => self.apply(change),
                    None => break,
                },
                Some(ended) = self.workers.join_next() => self.worker_ended(ended),
            }
        }
        self.workers.shutdown().await;
    }

    fn apply(&mut self, change: Change<Pod>) {
        match change {
            Change::Added(pod) | Change::Modified { new: pod, .. } => self.put(pod),
            Change::Deleted(pod) => {
                self.done.remove(pod.uid());
                if let Some(mailbox) = self.agent.pods.lock().get(pod.uid()) {
                    mailbox.gone();
                }
            }
        }
    }

    fn put(&mut self, pod: Arc<Pod>) {
        let known = self.agent.pods.lock().get(pod.uid()).cloned();
        match known {
            Some(mailbox) => mailbox.put(pod),
            None if self.done.contains(pod.uid()) => {}
            None => {
                self.spawn(pod);
            }
        }
    }

    fn spawn(&mut self, pod: Arc<Pod>) -> Arc<Mailbox> {
        let uid = pod.uid().to_string();
        let mailbox = Arc::new(Mailbox::new(pod.clone()));
        self.agent.pods.lock().insert(uid.clone(), mailbox.clone());
        self.count();
        let worker = Worker::new(self.agent.clone(), pod, mailbox.clone());
        self.workers.spawn(async move {
            worker.run().await;
            uid
        });
        mailbox
    }

    fn worker_ended(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => {
                self.agent.pods.lock().remove(&uid);
                if self.pods.list().iter().any(|pod| pod.uid() == uid) {
                    self.done.insert(uid);
                }
            }
            Err(error) => {
                tracing::error!(%error, "a pod's worker broke; its pod is taken up again");
                self.restart_lost();
            }
        }
        self.count();
        self.agent.wake_waiting();
    }

    /// Starts a worker for every pod whose worker broke.
    fn restart_lost(&mut self) {
        let alive: HashSet<String> = self
            .agent
            .pods
            .lock()
            .iter()
            .filter(|(_, mailbox)| Arc::strong_count(mailbox) > 1)
            .map(|(uid, _)| uid.clone())
            .collect();
        self.agent.pods.lock().retain(|uid, _| alive.contains(uid));
        for pod in self.pods.list() {
            if !alive.contains(pod.uid()) && !self.done.contains(pod.uid()) {
                self.spawn(pod);
            }
        }
    }

    fn count(&self) {
        self.agent.pod_count.store(self.agent.pods.lock().len(), Ordering::Relaxed);
        self.agent.pods_changed.notify_waiters();
    }

    /// Pods that run and that the API does not know are ended; directories and cgroups without a pod are removed.
    async fn stop_orphans(&mut self) {
        match adopt_orphans(&self.agent).await {
            Ok(orphans) => {
                for pod in orphans {
                    tracing::info!(pod = pod.title(), "a pod runs that the API does not know: ending it");
                    self.spawn(Arc::new(pod)).gone();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the runtime does not tell what runs; orphans stay until the next start")
            }
        }
        let known: HashSet<String> = self.agent.pods.lock().keys().cloned().collect();
        let root = self.agent.config.root_dir.clone();
        for entry in std::fs::read_dir(root.join("pods")).into_iter().flatten().flatten() {
            let uid = entry.file_name().to_string_lossy().into_owned();
            if known.contains(&uid) {
                continue;
            }
            match volume::clean_up(&root, &uid) {
                Ok(()) => tracing::info!(uid, "removed the directory of a pod that is gone"),
                Err(error) => tracing::warn!(uid, error, "the directory of a pod that is gone stays"),
            }
        }
        let removed = self.agent.cgroups.remove_leftovers(&|uid| known.contains(uid));
        if removed > 0 {
            tracing::info!(removed, "removed cgroups of pods that are gone");
        }
    }
}

/// The pods that the runtime has and the agent does not, as far as their labels tell.
pub async fn adopt_orphans(agent: &Agent) -> Result<Vec<Pod>, CriError> {
    let (sandboxes, containers) =
        tokio::try_join!(agent.cri.list_sandboxes(None), agent.cri.list_containers(None))?;
    let known: HashSet<String> = agent.pods.lock().keys().cloned().collect();
    let mut orphans: HashMap<String, Pod> = HashMap::new();
    for PodSandbox { labels, .. } in &sandboxes {
        add(&mut orphans, &known, labels, None);
    }
    for Container { labels, annotations, .. } in &containers {
        let hook = annotations.get(labels::PRE_STOP).and_then(|hook| serde_json::from_str(hook).ok());
        let name = labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default();
        let lifecycle = hook
            .map(|hook| k8s_openapi::api::core::v1::Lifecycle { pre_stop: Some(hook), ..Default::default() });
        add(&mut orphans, &known, labels, Some(PodContainer { name, lifecycle, ..PodContainer::default() }));
    }
    Ok(orphans.into_values().collect())
}

fn add(
    orphans: &mut HashMap<String, Pod>,
    known: &HashSet<String>,
    labels: &HashMap<String, String>,
    container: Option<PodContainer>,
) {
    let label = |key: &str| labels.get(key).cloned();
    let Some(uid) = label(labels::POD_UID).filter(|uid| !known.contains(uid)) else { return };
    let pod = orphans.entry(uid.clone()).or_insert_with(|| Pod {
        metadata: ObjectMeta {
            name: label(labels::POD_NAME),
            namespace: label(labels::POD_NAMESPACE),
            uid: Some(uid),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec::default()),
        status: None,
    });
    if let Some(spec) = &mut pod.spec {
        spec.containers.extend(container);
    }
}
