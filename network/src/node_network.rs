//! The network of a node: what connects sandboxes, and what follows the other nodes.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use client::{Informer, Informers, Scope};
use k8s_openapi::api::core::v1::Node;
use netlink::Cidr;
use netlink::nft::{self, Batch};
use netlink::route::{AddressScope, RouteSocket};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::attach;
use crate::config::{Config, Mode, VXLAN_OVERHEAD};
use crate::lease::{Lease, Leases};
use crate::names::Names;
use crate::peers::{self, Peer, Plan};
use crate::request::{Addresses, AttachRequest};
use crate::state::NodeState;
use crate::{Error, forward, loopback, rules, sysctl};

/// Changes of nodes that come within this time are dealt with together.
const COALESCE: Duration = Duration::from_millis(50);
/// After a failure, and now and then to repair what others broke.
const RETRY: Duration = Duration::from_secs(5);
const REPAIR: Duration = Duration::from_secs(60);
/// An attachment takes milliseconds; one that takes longer than this has been given up.
const ATTACHING_MAX: Duration = Duration::from_secs(60);

/// The network of this node. Cheap to clone; the tasks behind it end with the shutdown token.
#[derive(Clone)]
pub struct NodeNetwork {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    names: Names,
    leases: Leases,
    state: watch::Sender<Option<NodeState>>,
    /// Held while the host's table is replaced or extended, so that the two cannot cross.
    table: Mutex<()>,
}

impl NodeNetwork {
    /// Prepares the host (kernel parameters, rules for the leases that exist) and follows the nodes. It does not wait for the API:
    /// a node that had pod addresses before has them at once.
    pub async fn start(
        config: Config,
        client: kube::Client,
        shutdown: CancellationToken,
    ) -> Result<Self, Error> {
        let informers = Informers::new(client, shutdown.clone());
        Self::start_with(config, &informers, shutdown).await
    }

    /// The same, sharing informers with other parts of the process.
    pub async fn start_with(
        config: Config,
        informers: &Informers,
        shutdown: CancellationToken,
    ) -> Result<Self, Error> {
        let network = Self::prepare(config).await?;
        let nodes = informers.get::<Node>(Scope::all());
        tokio::spawn(follow_nodes(network.shared.clone(), nodes, shutdown));
        Ok(network)
    }

    /// The network of a node whose pod addresses are fixed in the settings, and that has no other nodes.
    pub async fn prepare(config: Config) -> Result<Self, Error> {
        let shared = blocking(move || Shared::open(config)).await?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Connects a sandbox. Asking again repairs what is missing and gives the same addresses.
    pub async fn attach(&self, request: AttachRequest) -> Result<Addresses, Error> {
        let shared = self.shared.clone();
        blocking(move || {
            let state = shared.state.borrow().clone().ok_or(Error::NotReady)?;
            let _guard = (!request.port_mappings.is_empty()).then(|| shared.table.lock());
            attach::attach(&shared.names, &shared.leases, &state, &request)
        })
        .await
    }

    /// Disconnects a sandbox and frees its address. One that is not connected is success.
    pub async fn detach(&self, id: &str) -> Result<(), Error> {
        let (shared, id) = (self.shared.clone(), id.to_owned());
        blocking(move || {
            let has_ports = shared.leases.of(&id)?.is_some_and(|lease| !lease.port_mappings.is_empty());
            let _guard = has_ports.then(|| shared.table.lock());
            attach::detach(&shared.names, &shared.leases, &id)
        })
        .await
    }

    /// Whether the node has pod addresses, so that sandboxes can be connected.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.shared.state.borrow().is_some()
    }

    /// Waits until [`Self::ready`].
    pub async fn wait_ready(&self) {
        let mut state = self.shared.state.subscribe();
        // The sender lives in `self`, so the only outcome is success.
        let _state = state.wait_for(Option::is_some).await;
    }

    /// What the node knows of its own network.
    #[must_use]
    pub fn state(&self) -> Option<NodeState> {
        self.shared.state.borrow().clone()
    }

    /// The addresses of a connected sandbox.
    pub async fn addresses(&self, id: &str) -> Result<Option<Vec<IpAddr>>, Error> {
        let (shared, id) = (self.shared.clone(), id.to_owned());
        blocking(move || Ok(shared.leases.of(&id)?.map(|lease| vec![IpAddr::V4(lease.address)]))).await
    }

    /// All leases of the node.
    pub async fn leases(&self) -> Result<Vec<Lease>, Error> {
        let shared = self.shared.clone();
        blocking(move || shared.leases.all()).await
    }
}

impl Shared {
    fn open(config: Config) -> Result<Self, Error> {
        let names = Names::new(&config.instance);
        let directory = config.directory();
        let leases = Leases::open(&directory.join("leases"))?;
        let kept = NodeState::load(&directory)?;
        let state = match (config.pod_cidr, kept) {
            (Some(pod_cidr), _) => Some(node_state(&config, pod_cidr)?),
            // The address may have changed since, the pods' range not.
            (None, Some(kept)) => Some(node_state(&config, kept.pod_cidr)?),
            (None, None) => None,
        };
        if let Some(state) = &state {
            state.save(&directory)?;
        }
        let shared =
            Self { config, names, leases, state: watch::Sender::new(state), table: Mutex::default() };
        sysctl::prepare_host();
        shared.ensure_host_address()?;
        shared.release_deviceless()?;
        shared.install_table()?;
        forward::allow(&shared.names, shared.config.cluster_cidr)?;
        shared.apply_peers(&[])?;
        Ok(shared)
    }

    /// Replaces the whole table by what the leases say.
    fn install_table(&self) -> Result<(), Error> {
        let _guard = self.table.lock();
        let pods = self.state.borrow().as_ref().map(|s| s.pod_cidr);
        let leases = self.leases.all()?;
        let table =
            rules::table(&self.names, self.config.cluster_cidr, pods, self.config.masquerade, &leases);
        Ok(nft::apply(Batch::between(None, &table))?)
    }

    /// A lease without its device is that of a sandbox which is gone, for instance since the machine was started anew.
    fn release_deviceless(&self) -> Result<(), Error> {
        let links: HashSet<String> =
            RouteSocket::open()?.links()?.into_iter().map(|link| link.name).collect();
        // A younger one may be about to get its device, by this process or the CNI plugin.
        let as_of = SystemTime::now() - ATTACHING_MAX;
        let gone = self.leases.void(as_of, |lease| links.contains(&self.names.pod_device(&lease.id)))?;
        self.release_all(&gone)
    }

    fn release_all(&self, leases: &[Lease]) -> Result<(), Error> {
        for lease in leases {
            tracing::info!(pod = lease.pod, address = %lease.address, "releasing the address of a sandbox that is gone");
            attach::detach(&self.names, &self.leases, &lease.id)?;
        }
        Ok(())
    }

    /// Takes over the range that the cluster assigned to this node.
    fn assign(&self, pod_cidr: Cidr) -> Result<(), Error> {
        let state = node_state(&self.config, pod_cidr)?;
        if self.state.borrow().as_ref() == Some(&state) {
            return Ok(());
        }
        state.save(&self.config.directory())?;
        tracing::info!(%pod_cidr, mtu = state.mtu, "pod addresses assigned to this node");
        self.state.send_replace(Some(state));
        self.ensure_host_address()?;
        self.install_table()
    }

    /// See [`NodeState::host_address`].
    fn ensure_host_address(&self) -> Result<(), Error> {
        match self.state.borrow().as_ref() {
            Some(state) if state.node_ip.is_loopback() => {
                Ok(loopback::ensure_address(&self.names, state.host_address(), AddressScope::Universe)?)
            }
            _ => Ok(()),
        }
    }

    fn apply_peers(&self, peers: &[Peer]) -> Result<(), Error> {
        let Some(pods) = self.state.borrow().as_ref().map(|s| s.pod_cidr) else { return Ok(()) };
        let mut socket = RouteSocket::open()?;
        let socket = std::cell::RefCell::new(&mut socket);
        let plan: Plan = peers::decide(self.config.mode, peers, |address| {
            socket.borrow_mut().route_to(IpAddr::V4(address)).unwrap_or_default()
        });
        peers::apply(&self.config, &self.names, pods, &plan, peers::service_route(&self.config)?)
    }

    /// Brings the host in line with the nodes that the cluster has.
    fn sync(&self, nodes: &[Arc<Node>]) -> Result<(), Error> {
        let own = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(&self.config.node_name));
        if let (None, Some(cidr)) = (self.config.pod_cidr, own.and_then(|node| pod_cidr(node))) {
            self.assign(cidr)?;
        }
        let others =
            nodes.iter().filter(|node| node.metadata.name.as_deref() != Some(&self.config.node_name));
        let mut peers: Vec<Peer> = others.filter_map(|node| peer(node)).collect();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        self.apply_peers(&peers)?;
        self.release_deviceless()?;
        if !nft::table_exists(nft::Family::Ipv4, &self.names.table())? {
            tracing::warn!(
                "the pod network's table is gone; somebody flushed the rules. Installing it again"
            );
            self.install_table()?;
        }
        forward::allow(&self.names, self.config.cluster_cidr)
    }
}

async fn follow_nodes(shared: Arc<Shared>, nodes: Informer<Node>, shutdown: CancellationToken) {
    let mut changes = nodes.subscribe();
    if !nodes.synced().await {
        return;
    }
    loop {
        while changes.try_next().is_some() {}
        let (task, list) = (shared.clone(), nodes.list());
        let wait = match blocking(move || task.sync(&list)).await {
            Ok(()) => REPAIR,
            Err(error) => {
                tracing::warn!(%error, "cannot set up routes to the other nodes; trying again");
                RETRY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            change = relevant(&mut changes) => {
                if !change {
                    return;
                }
                tokio::time::sleep(COALESCE).await;
            }
        }
    }
}

/// Waits for a change that concerns routes. Heartbeats change nodes all the time. False: there will be none.
async fn relevant(changes: &mut client::Changes<Node>) -> bool {
    while let Some(change) = changes.next().await {
        let client::Change::Modified { old, new } = &change else { return true };
        if (pod_cidr(old), internal_ip(old)) != (pod_cidr(new), internal_ip(new)) {
            return true;
        }
    }
    false
}

fn peer(node: &Node) -> Option<Peer> {
    let name = node.metadata.name.clone()?;
    Some(Peer { name, node_ip: internal_ip(node)?, pod_cidr: pod_cidr(node)? })
}

fn pod_cidr(node: &Node) -> Option<Cidr> {
    let spec = node.spec.as_ref()?;
    let all = spec.pod_cidrs.iter().flatten().chain(spec.pod_cidr.iter());
    all.filter_map(|text| text.parse().ok()).next()
}

fn internal_ip(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.iter().flatten();
    addresses.filter(|a| a.type_ == "InternalIP").filter_map(|a| a.address.parse().ok()).next()
}

fn node_state(config: &Config, pod_cidr: Cidr) -> Result<NodeState, Error> {
    let mtu = match config.mtu {
        Some(mtu) => mtu,
        None => {
            let whole = peers::underlay_mtu(&mut RouteSocket::open()?, config.node_ip)?;
            if config.mode == Mode::Routes { whole } else { whole.saturating_sub(VXLAN_OVERHEAD) }
        }
    };
    Ok(NodeState { instance: config.instance.clone(), node_ip: config.node_ip, pod_cidr, mtu })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Task(e.to_string()))?
}
