//! Where pods go.
//!
//! Guarantees: a pod is bound to a node where, by everything the scheduler had heard and decided so far, it fits; pods
//! are tried in order of priority, then of arrival; a pod that fits nowhere is tried again when something happened that
//! may change that, never by polling; users see why in the pod's `PodScheduled` condition and in events.
//!
//! Structure: [`decide()`] is pure and works on a [`model::Cluster`]; [`queue::Queue`] says which pod is next;
//! [`scheduling::Scheduling`] holds both and takes changes in, pure too; the shell feeds it from informers and carries
//! decisions out. One file per plugin under `plugins/`.
//!
//! Deliberately absent: volumes (claims bind by themselves), dynamic resources, gangs, extenders, more than one profile.

mod actions;
mod decide;
pub mod events;
pub mod model;
mod plugins;
mod preempt;
pub mod queue;
pub mod scheduling;
mod shell;

pub use decide::{Decision, Nomination, Unschedulable, decide};
pub use preempt::Preemption;

use client::leader::{LeaderConfig, run_as_leader};
use client::{EventRecorder, Informers};
use kube::Client;
use tokio_util::sync::CancellationToken;

/// Which pods are scheduled, and by how many candidates.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pods that name this scheduler are scheduled.
    pub scheduler_name: String,
    /// With several schedulers of the same name, the lease that says which one acts.
    pub leader_election: Option<LeaderConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self { scheduler_name: "default-scheduler".into(), leader_election: None }
    }
}

/// Why the scheduler stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another scheduler took over: this process has to start over to be a candidate again.
    #[error("leadership was lost")]
    LeadershipLost,
}

/// Schedules pods until `shutdown` fires. Returns when bindings under way are done.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    match config.leader_election.clone() {
        None => {
            schedule(config, client, shutdown).await;
            Ok(())
        }
        Some(election) => {
            let lead = |term| schedule(config, client.clone(), term);
            let lost = run_as_leader(client.clone(), election, shutdown, lead).await;
            if lost { Err(Error::LeadershipLost) } else { Ok(()) }
        }
    }
}

async fn schedule(config: Config, client: Client, shutdown: CancellationToken) {
    let informers = Informers::new(client.clone(), shutdown.clone());
    let recorder = EventRecorder::new(client.clone(), &config.scheduler_name, None, shutdown.clone());
    let actions = actions::Actions::new(client, recorder, config.scheduler_name.clone());
    shell::run(&config, &informers, actions, shutdown).await;
}
