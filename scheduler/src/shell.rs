//! The loop around the decisions: one task that feeds the scheduler's mind and carries out what it decides.
//!
//! Everything heard is taken in before the next decision. Decisions are made one after another; what they ask for is
//! done by tasks of their own, a bounded number at a time, whose failures come back to the loop.

use std::sync::Arc;
use std::time::Instant;

use client::{Changes, Informers, Scope};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::actions::{Actions, Bound};
use crate::decide::Decision;
use crate::model::PodInfo;
use crate::scheduling::Scheduling;

/// How many requests to the API server may be under way at once.
const ACTIONS_MAX: usize = 64;
/// After so many decisions in a row others on the same thread get their turn.
const DECISIONS_PER_TURN: usize = 32;

struct Sources {
    pods: Changes<Pod>,
    nodes: Changes<Node>,
    namespaces: Changes<Namespace>,
    budgets: Changes<PodDisruptionBudget>,
    /// The UIDs of pods that could not be bound. Bounded by the actions under way.
    unbound: mpsc::UnboundedReceiver<String>,
}

/// What is being done.
struct Doing {
    actions: Actions,
    room: Arc<Semaphore>,
    tasks: JoinSet<()>,
    unbound: mpsc::UnboundedSender<String>,
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
    let (unbound_sender, unbound) = mpsc::unbounded_channel();
    let mut sources = Sources {
        pods: pods.subscribe(),
        nodes: nodes.subscribe(),
        namespaces: namespaces.subscribe(),
        budgets: budgets.subscribe(),
        unbound,
    };
    let room = Arc::new(Semaphore::new(ACTIONS_MAX));
    let mut doing = Doing { actions, room, tasks: JoinSet::new(), unbound: unbound_sender };
    let mut scheduling = Scheduling::new(config.scheduler_name.clone(), SmallRng::from_os_rng());
    tracing::info!(scheduler = %config.scheduler_name, "scheduling");
    while !shutdown.is_cancelled() {
        for _ in 0..DECISIONS_PER_TURN {
            sources.take_in(&mut scheduling);
            let Some((pod, decision)) = scheduling.next(Instant::now()) else { break };
            doing.start(pod, decision).await;
        }
        if scheduling.is_due(Instant::now()) {
            tokio::task::yield_now().await;
            continue;
        }
        let deadline = scheduling.next_deadline();
        tokio::select! {
            () = sources.hear(&mut scheduling) => {}
            () = sleep_until(deadline) => {}
            () = shutdown.cancelled() => {}
        }
    }
    while doing.tasks.join_next().await.is_some() {}
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

impl Sources {
    /// Takes in everything that was heard so far: first where pods can go, then which there are.
    fn take_in(&mut self, scheduling: &mut Scheduling) {
        let now = Instant::now();
        while let Some(change) = self.namespaces.try_next() {
            scheduling.namespace_changed(&change, now);
        }
        while let Some(change) = self.budgets.try_next() {
            scheduling.budget_changed(&change);
        }
        while let Some(change) = self.nodes.try_next() {
            scheduling.node_changed(&change, now);
        }
        while let Some(change) = self.pods.try_next() {
            scheduling.pod_changed(&change, now);
        }
        while let Ok(uid) = self.unbound.try_recv() {
            scheduling.binding_failed(&uid, now);
        }
    }

    /// Waits for something to happen and takes it in.
    async fn hear(&mut self, scheduling: &mut Scheduling) {
        tokio::select! {
            Some(change) = self.nodes.next() => scheduling.node_changed(&change, Instant::now()),
            Some(change) = self.pods.next() => scheduling.pod_changed(&change, Instant::now()),
            Some(change) = self.namespaces.next() => scheduling.namespace_changed(&change, Instant::now()),
            Some(change) = self.budgets.next() => scheduling.budget_changed(&change),
            Some(uid) = self.unbound.recv() => scheduling.binding_failed(&uid, Instant::now()),
            else => {}
        }
    }
}

impl Doing {
    /// Starts to carry a decision out, when there is room for it.
    async fn start(&mut self, pod: Arc<PodInfo>, decision: Decision) {
        while self.tasks.try_join_next().is_some() {}
        // Waiting here is what bounds the work: nothing else could be started meanwhile either.
        let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { return };
        let actions = self.actions.clone();
        let unbound = self.unbound.clone();
        self.tasks.spawn(async move {
            match decision {
                Decision::Assign(node) => {
                    if actions.bind(&pod, &node).await == Bound::Failed {
                        // The loop ends before its tasks only at shutdown.
                        drop(unbound.send(pod.uid.clone()));
                    }
                }
                Decision::Unschedulable(verdict) => actions.report(&pod, &verdict).await,
            }
            drop(permit);
        });
    }
}
