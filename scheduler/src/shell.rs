//! The loop around the decisions: one task that owns the cluster's state and the queue.
//!
//! Everything heard is taken in before the next decision. Decisions are made one after another; what they ask for is
//! done by tasks of their own, a bounded number at a time, whose results come back to the loop.

use std::sync::Arc;
use std::time::Instant;

use client::{Change, Changes, Informers, Scope};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::actions::{Actions, Bound};
use crate::decide::{Decision, Nomination, decide, might_fit};
use crate::events::{ClusterEvents, Plugin};
use crate::model::{Cluster, PodInfo};
use crate::queue::Queue;

/// How many requests to the API server may be under way at once.
const ACTIONS_MAX: usize = 64;
/// After so many decisions in a row others on the same thread get their turn.
const DECISIONS_PER_TURN: usize = 32;

/// How a binding ended, for the loop.
struct Outcome {
    uid: String,
    bound: Bound,
}

struct Shell {
    scheduler_name: String,
    cluster: Cluster,
    queue: Queue,
    actions: Actions,
    room: Arc<Semaphore>,
    tasks: JoinSet<()>,
    outcomes: mpsc::UnboundedSender<Outcome>,
    start: usize,
    rng: SmallRng,
}

struct Sources {
    pods: Changes<Pod>,
    nodes: Changes<Node>,
    namespaces: Changes<Namespace>,
    budgets: Changes<PodDisruptionBudget>,
}

/// Schedules until `shutdown` fires, then waits for what is under way.
pub(crate) async fn run(
    config: &Config,
    informers: &Informers,
    actions: Actions,
    shutdown: CancellationToken,
) {
    let pods = informers.get::<Pod>(Scope::all().fields("status.phase!=Succeeded,status.phase!=Failed"));
    let nodes = informers.get::<Node>(Scope::all());
    let namespaces = informers.get::<Namespace>(Scope::all());
    let budgets = informers.get::<PodDisruptionBudget>(Scope::all());
    // Deciding on half a picture would overfill nodes.
    if !(pods.synced().await && nodes.synced().await && namespaces.synced().await && budgets.synced().await) {
        return;
    }
    let mut sources = Sources {
        pods: pods.subscribe(),
        nodes: nodes.subscribe(),
        namespaces: namespaces.subscribe(),
        budgets: budgets.subscribe(),
    };
    // Bounded by the bindings under way.
    let (outcomes, mut results) = mpsc::unbounded_channel();
    let mut shell = Shell {
        scheduler_name: config.scheduler_name.clone(),
        cluster: Cluster::default(),
        queue: Queue::default(),
        actions,
        room: Arc::new(Semaphore::new(ACTIONS_MAX)),
        tasks: JoinSet::new(),
        outcomes,
        start: 0,
        rng: SmallRng::from_os_rng(),
    };
    tracing::info!(scheduler = %config.scheduler_name, "scheduling");
    while !shutdown.is_cancelled() {
        shell.take_in(&mut sources, &mut results);
        let more = shell.decide_some(&mut sources, &mut results).await;
        if more {
            tokio::task::yield_now().await;
            continue;
        }
        let deadline = shell.queue.next_deadline();
        tokio::select! {
            Some(change) = sources.nodes.next() => shell.node_changed(&change),
            Some(change) = sources.pods.next() => shell.pod_changed(&change),
            Some(change) = sources.namespaces.next() => shell.namespace_changed(&change),
            Some(change) = sources.budgets.next() => shell.budget_changed(&change),
            Some(outcome) = results.recv() => shell.binding_ended(outcome),
            () = sleep_until(deadline) => {}
            () = shutdown.cancelled() => {}
        }
    }
    while shell.tasks.join_next().await.is_some() {}
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

impl Shell {
    /// Takes in everything that was heard so far: first where pods can go, then which there are.
    fn take_in(&mut self, sources: &mut Sources, results: &mut mpsc::UnboundedReceiver<Outcome>) {
        while let Some(change) = sources.namespaces.try_next() {
            self.namespace_changed(&change);
        }
        while let Some(change) = sources.budgets.try_next() {
            self.budget_changed(&change);
        }
        while let Some(change) = sources.nodes.try_next() {
            self.node_changed(&change);
        }
        while let Some(change) = sources.pods.try_next() {
            self.pod_changed(&change);
        }
        while let Ok(outcome) = results.try_recv() {
            self.binding_ended(outcome);
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// Decides about some pods. Returns whether there are more.
    async fn decide_some(
        &mut self,
        sources: &mut Sources,
        results: &mut mpsc::UnboundedReceiver<Outcome>,
    ) -> bool {
        for _ in 0..DECISIONS_PER_TURN {
            let Some(pod) = self.queue.pop(Instant::now()) else { return false };
            self.decide_about(pod).await;
            self.take_in(sources, results);
        }
        self.queue.has_active(Instant::now())
    }

    async fn decide_about(&mut self, pod: Arc<PodInfo>) {
        let decision = decide(&self.cluster, &pod, &mut self.start, &mut self.rng);
        // Waiting here for room is what bounds the work: nothing else could be started meanwhile either.
        let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { return };
        let actions = self.actions.clone();
        match decision {
            Decision::Assign(node) => {
                // It stays in the queue, popped, until the informer shows it on the node: what is heard of it until then
                // may be older than the binding.
                self.cluster.place(Arc::clone(&pod), &node);
                self.wake_after_placement();
                let outcomes = self.outcomes.clone();
                self.tasks.spawn(async move {
                    let bound = actions.bind(&pod, &node).await;
                    // The loop ends first only at shutdown.
                    drop(outcomes.send(Outcome { uid: pod.uid.clone(), bound }));
                    drop(permit);
                });
            }
            Decision::Unschedulable(verdict) => {
                match &verdict.nomination {
                    Nomination::New(preemption) => {
                        self.cluster.nominate(Arc::clone(&pod), &preemption.node);
                    }
                    Nomination::Kept => {}
                    Nomination::None => self.cluster.unnominate(&pod.uid),
                }
                self.queue.put_back_unschedulable(&pod.uid, verdict.rejected_by.clone(), Instant::now());
                self.tasks.spawn(async move {
                    actions.report(&pod, &verdict).await;
                    drop(permit);
                });
            }
        }
    }

    fn binding_ended(&mut self, outcome: Outcome) {
        // Gone from the queue, it is on its node or deleted by what the informer says, which counts more.
        if outcome.bound == Bound::Failed && self.queue.get(&outcome.uid).is_some() {
            self.unplace(&outcome.uid);
            self.queue.put_back_failed(&outcome.uid, Instant::now());
        }
    }

    fn pod_changed(&mut self, change: &Change<Pod>) {
        let pod = change.object();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let is_over = matches!(change, Change::Deleted(_)) || matches!(phase, Some("Succeeded" | "Failed"));
        let node = spec.and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
        if is_over {
            self.queue.remove(uid);
            self.cluster.unnominate(uid);
            self.unplace(uid);
        } else if let Some(node) = node {
            self.pod_is_on_node(pod, node);
        } else if self.is_ours(pod) && pod.metadata.deletion_timestamp.is_none() {
            let info = Arc::new(PodInfo::new(Arc::clone(pod)));
            if let Some(node) = info.nominated_node().map(ToOwned::to_owned)
                && self.cluster.placement(&info.uid).is_none()
            {
                self.cluster.nominate(Arc::clone(&info), &node);
            }
            self.queue.set(info, Instant::now());
        } else {
            self.queue.remove(uid);
            self.cluster.unnominate(uid);
        }
    }

    fn pod_is_on_node(&mut self, pod: &Arc<Pod>, node: &str) {
        let info = Arc::new(PodInfo::new(Arc::clone(pod)));
        let uid = info.uid.clone();
        self.queue.remove(&uid);
        let before = self.cluster.placement(&uid).cloned();
        let old = before
            .as_deref()
            .and_then(|name| self.cluster.node(name)?.pods.iter().find(|other| other.uid == uid).cloned());
        self.cluster.place(Arc::clone(&info), node);
        let mut events = ClusterEvents::NONE;
        match &old {
            None => events |= ClusterEvents::POD_PLACED,
            Some(old) => {
                if old.labels() != info.labels() {
                    events |= ClusterEvents::POD_LABELS;
                }
                if old.requests != info.requests {
                    events |= ClusterEvents::POD_GONE;
                }
            }
        }
        self.wake(events, Some(node));
    }

    fn unplace(&mut self, uid: &str) {
        if let Some(node) = self.cluster.remove_pod(uid) {
            self.wake(ClusterEvents::POD_GONE, Some(&node));
        }
    }

    fn node_changed(&mut self, change: &Change<Node>) {
        let node = change.object();
        let name = node.metadata.name.clone().unwrap_or_default();
        if let Change::Deleted(_) = change {
            return self.cluster.remove_node(&name);
        }
        let events = match change.old() {
            None => ClusterEvents::NODE_ADDED,
            Some(old) => node_events(old, node),
        };
        self.cluster.set_node(Arc::clone(node));
        self.wake(events, Some(&name));
    }

    fn namespace_changed(&mut self, change: &Change<Namespace>) {
        let namespace = change.object();
        let name = namespace.metadata.name.clone().unwrap_or_default();
        match change {
            Change::Deleted(_) => drop(self.cluster.namespaces.remove(&name)),
            _ => {
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                if self.cluster.namespaces.insert(name, labels.clone()).as_ref() != Some(&labels) {
                    self.wake(ClusterEvents::NAMESPACE, None);
                }
            }
        }
    }

    fn budget_changed(&mut self, change: &Change<PodDisruptionBudget>) {
        let budget = change.object();
        let budgets = &mut self.cluster.disruption_budgets;
        budgets.retain(|other| other.metadata.uid != budget.metadata.uid);
        if !matches!(change, Change::Deleted(_)) {
            budgets.push(Arc::clone(budget));
        }
    }

    /// A decision may have given another pod the company that it waits for.
    fn wake_after_placement(&mut self) {
        self.wake(ClusterEvents::POD_PLACED, None);
    }

    /// Gives pods another try that an event on a node (or anywhere) may have helped.
    fn wake(&mut self, events: ClusterEvents, node: Option<&str>) {
        let cluster = &self.cluster;
        self.queue.wake(events, Instant::now(), |pod, rejected_by| {
            // Rules about other pods reach beyond the node; everything else must hold on the node itself.
            let far_reaching =
                |plugin: &Plugin| matches!(plugin, Plugin::PodTopologySpread | Plugin::InterPodAffinity);
            rejected_by.iter().any(far_reaching) || node.is_none_or(|node| might_fit(cluster, pod, node))
        });
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let name = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
        name.unwrap_or("default-scheduler") == self.scheduler_name
    }
}

fn node_events(old: &Node, new: &Node) -> ClusterEvents {
    let mut events = ClusterEvents::NONE;
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    if allocatable(old) != allocatable(new) {
        events |= ClusterEvents::NODE_ALLOCATABLE;
    }
    if old.metadata.labels != new.metadata.labels {
        events |= ClusterEvents::NODE_LABELS;
    }
    let kept_away = |node: &Node| node.spec.as_ref().map(|spec| (spec.taints.clone(), spec.unschedulable));
    if kept_away(old) != kept_away(new) {
        events |= ClusterEvents::NODE_TAINTS;
    }
    events
}
