//! The loop: something changed, wait a moment, compile everything, install the difference.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Change, Informer, Informers, Scope};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use netlink::nft::{self, Batch, Family, Table};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::compile::{Settings, changed_udp, compile};
use crate::gather::{foreign_addresses, gather};
use crate::health::{self, Health};
use crate::health_ports::{self, HealthPorts};
use crate::model::Location;
use crate::{Config, Error, stale};

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// After a failure.
const RETRY: Duration = Duration::from_secs(2);
/// How often to look whether the table is still there.
const AUDIT: Duration = Duration::from_secs(30);

/// Runs the proxy until `shutdown`. The rules stay then: connections go on without it. [`crate::cleanup`] takes them away.
pub async fn run(config: Config, client: kube::Client, shutdown: CancellationToken) -> Result<(), Error> {
    let informers = Informers::new(client, shutdown.clone());
    run_with(config, &informers, shutdown).await
}

/// The same, sharing informers with other parts of the process.
pub async fn run_with(
    config: Config,
    informers: &Informers,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let health = Health::new();
    if let Some(address) = config.healthz_address {
        tokio::spawn(health::serve(address, health.clone(), shutdown.clone()));
    }
    allow_local_node_ports();
    let sources = Sources::new(informers, &config.node_name);
    let changed = sources.notify(&health);
    if !sources.synced().await {
        return Ok(());
    }
    let health_ports = watch::Sender::new(HealthPorts::new());
    tokio::spawn(health_ports::serve(health_ports.subscribe(), shutdown.clone()));
    let mut syncer = Syncer::new(&config, sources, health_ports);
    loop {
        let (returned, result) = tokio::task::spawn_blocking(move || {
            let result = syncer.sync();
            (syncer, result)
        })
        .await
        .map_err(|e| Error::Task(e.to_string()))?;
        syncer = returned;
        let pause = match result {
            Ok(()) => {
                health.synced();
                AUDIT
            }
            Err(error) => {
                tracing::warn!(%error, "cannot install the service rules; trying again with all of them");
                RETRY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = changed.notified() => tokio::time::sleep(config.coalesce).await,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What is watched.
struct Sources {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    node: Informer<Node>,
    node_name: String,
}

impl Sources {
    fn new(informers: &Informers, node_name: &str) -> Self {
        let own = Scope::all().fields(format!("metadata.name={node_name}"));
        Self {
            services: informers.get(Scope::all()),
            slices: informers.get(Scope::all()),
            node: informers.get(own),
            node_name: node_name.to_owned(),
        }
    }

    /// A bell that rings for every change that may concern the rules.
    fn notify(&self, health: &Health) -> Arc<Notify> {
        let changed = Arc::new(Notify::new());
        let ring = || {
            let (bell, health) = (changed.clone(), health.clone());
            move || {
                health.changed();
                bell.notify_one();
            }
        };
        let (for_services, for_slices, for_node) = (ring(), ring(), ring());
        self.services.on_change(move |_| for_services());
        self.slices.on_change(move |_| for_slices());
        self.node.on_change(move |change| match change {
            // Heartbeats change the node all the time.
            Change::Modified { old, new } if zone(old) == zone(new) => {}
            _ => for_node(),
        });
        changed
    }

    async fn synced(&self) -> bool {
        // The node is not waited for: its zone is only for hints, and it may not have been registered yet.
        self.services.synced().await && self.slices.synced().await
    }

    fn location(&self) -> Location {
        let zone = self.node.get("", &self.node_name).and_then(|node| zone(&node).map(str::to_owned));
        Location { node: self.node_name.clone(), zone }
    }
}

fn zone(node: &Node) -> Option<&str> {
    node.metadata.labels.as_ref()?.get(ZONE_LABEL).map(String::as_str)
}

struct Syncer {
    settings: Settings,
    sources: Sources,
    /// What the kernel has, as far as known; `None`: nothing, or in doubt.
    installed: Option<Table>,
    health_ports: watch::Sender<HealthPorts>,
}

impl Syncer {
    fn new(config: &Config, sources: Sources, health_ports: watch::Sender<HealthPorts>) -> Self {
        let settings = Settings {
            table: Config::table_name(&config.instance),
            cluster_cidr: config.cluster_cidr,
            service_cidr: config.service_cidr,
            node_port_addresses: config.node_port_addresses.clone(),
        };
        Self { settings, sources, installed: None, health_ports }
    }

    fn sync(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        let location = self.sources.location();
        let objects = self.sources.services.list();
        let services = gather(&objects, &self.sources.slices.list(), &location.node);
        let ports = health_ports::wanted(&objects, &services);
        self.health_ports.send_if_modified(|current| {
            let differs = *current != ports;
            *current = ports;
            differs
        });
        let desired = compile(&services, &foreign_addresses(&objects), &location, &self.settings);
        if self.installed.is_some() && !nft::table_exists(Family::Ipv4, &self.settings.table)? {
            tracing::warn!("the service table is gone; somebody flushed the rules. Installing it again");
            self.installed = None;
        }
        let batch = Batch::between(self.installed.as_ref(), &desired);
        if batch.is_empty() {
            return Ok(());
        }
        let (steps, is_full) = (batch.len(), self.installed.is_none());
        let stale = changed_udp(self.installed.as_ref(), &desired);
        // Until it has succeeded nothing is known for sure: a failure leads to a full installation.
        self.installed = None;
        nft::apply(batch)?;
        self.installed = Some(desired);
        let forgotten = stale::forget(&stale)?;
        let took = start.elapsed();
        tracing::debug!(ports = services.len(), steps, is_full, forgotten, ?took, "service rules installed");
        Ok(())
    }
}

/// Without this the kernel drops packets between 127.0.0.1 and a pod.
fn allow_local_node_ports() {
    let file = "/proc/sys/net/ipv4/conf/all/route_localnet";
    if fs::read_to_string(file).is_ok_and(|value| value.trim() == "1") {
        return;
    }
    if let Err(error) = fs::write(file, "1") {
        tracing::warn!(%error, "cannot set {file}: node ports do not answer on 127.0.0.1");
    }
}
