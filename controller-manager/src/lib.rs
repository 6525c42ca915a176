//! What makes the actual state the desired one: one folder or file per controller.
//!
//! Every controller is a pure `decide` from a snapshot of caches and the time to actions, under a thin shell that reads
//! shared informers and applies the actions. Writes carry the version or UID they were decided on, so a stale cache leads
//! to a conflict and a retry, never to a wrong write.
//!
//! Not yet: persistent volume binding and attaching.

mod autoscaler;
mod certificates;
mod cluster_role_aggregation;
mod common;
mod cron_job;
mod daemon_set;
mod deployment;
mod disruption;
mod endpoints;
mod garbage_collector;
mod job;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod pod_gc;
mod replicaset;
mod resource_quota;
mod root_ca;
mod service_account;
mod service_cidr;
mod stateful_set;
#[cfg(test)]
mod testing;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use client::Informers;
use client::leader::{LeaderConfig, run_as_leader};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use common::Context;

/// Everything the controllers need to know about the cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// Ranges from which every node gets its pods' addresses: one, or one of each family with a comma between them; `None`
    /// leaves nodes without.
    pub cluster_cidr: Option<String>,
    /// Prefix length of one node's IPv4 range; of IPv6 it has 64.
    pub node_cidr_mask_size: u8,
    /// Ranges of service addresses, one or several with commas; node ranges stay clear of them.
    pub service_cidr: Option<String>,
    /// Authority that signs certificate requests: certificate and key; `None` signs nothing.
    pub signing_authority: Option<SigningAuthority>,
    /// Certificate bundle published as `kube-root-ca.crt` in every namespace.
    pub root_ca_pem: Option<String>,
    /// How long a signed certificate is valid.
    pub certificate_duration: Duration,
    /// Stand for election before acting; needed as soon as several processes run.
    pub leader_elect: bool,
    /// A node without a sign of life for this long becomes Unknown.
    pub node_monitor_grace: Duration,
    /// How often nodes' signs of life are checked.
    pub node_monitor_period: Duration,
    /// Finished pods beyond this number are deleted, oldest first; zero keeps all.
    pub terminated_pods_max: usize,
}

/// The authority that signs certificate requests.
#[derive(Clone)]
pub struct SigningAuthority {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM.
    pub key_pem: String,
}

impl std::fmt::Debug for SigningAuthority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SigningAuthority")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster_cidr: Some("10.244.0.0/16".into()),
            node_cidr_mask_size: 24,
            service_cidr: Some("10.96.0.0/16".into()),
            signing_authority: None,
            root_ca_pem: None,
            certificate_duration: Duration::from_secs(365 * 24 * 3600),
            leader_elect: false,
            node_monitor_grace: Duration::from_secs(50),
            node_monitor_period: Duration::from_secs(5),
            terminated_pods_max: 12_500,
        }
    }
}

/// Why the controllers could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Part of the configuration cannot be used; it has to be corrected.
    #[error("controller manager: {0}")]
    Config(String),
    /// Another process took the lease; this one must end or start anew.
    #[error("controller manager: lost leadership")]
    LostLeadership,
}

/// Runs all controllers until `shutdown` fires and what they are doing is done.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let config = Arc::new(config);
    if !config.leader_elect {
        run_controllers(config, client, shutdown).await;
        return Ok(());
    }
    let identity = format!("{}_{:016x}", host_name(), rand::random::<u64>());
    let election = LeaderConfig::new("kube-controller-manager", identity);
    let lost =
        run_as_leader(client.clone(), election, shutdown, |term| run_controllers(config, client, term)).await;
    if lost { Err(Error::LostLeadership) } else { Ok(()) }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".into(), |name| name.trim().into())
}

async fn run_controllers(config: Arc<Config>, client: Client, shutdown: CancellationToken) {
    let informers = Informers::new(client.clone(), shutdown.clone());
    let context = Context { client, informers, config, shutdown };
    let mut controllers = Controllers { context, running: JoinSet::new() };
    controllers.start(|context| replicaset::run::<ReplicaSet>(context, "replicaset-controller"));
    controllers.start(|context| replicaset::run::<ReplicationController>(context, "replication-controller"));
    controllers.start(deployment::run);
    controllers.start(daemon_set::run);
    controllers.start(stateful_set::run);
    controllers.start(disruption::run);
    controllers.start(autoscaler::run);
    controllers.start(job::run);
    controllers.start(cron_job::run);
    controllers.start(endpoints::run);
    controllers.start(service_account::run);
    controllers.start(root_ca::run);
    controllers.start(namespace::run);
    controllers.start(node_ipam::run);
    controllers.start(service_cidr::run);
    controllers.start(certificates::run);
    controllers.start(cluster_role_aggregation::run);
    controllers.start(node_lifecycle::run);
    controllers.start(pod_gc::run);
    controllers.start(resource_quota::run);
    controllers.start(garbage_collector::run);
    info!(controllers = controllers.running.len(), "controllers started");
    while controllers.running.join_next().await.is_some() {}
}

struct Controllers {
    context: Context,
    running: JoinSet<()>,
}

impl Controllers {
    fn start<F, Fut>(&mut self, run: F)
    where
        F: FnOnce(Context) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.running.spawn(run(self.context.clone()));
    }
}
