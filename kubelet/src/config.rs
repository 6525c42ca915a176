//! What the agent is told at its start. Everything here is checked by whoever fills it in; nothing is read from the
//! environment later.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

use crate::agent::ServingCertificate;
use crate::image::ImageLoader;
use crate::thresholds::{Threshold, Thresholds};

/// The agent's settings.
#[derive(Clone)]
pub struct Config {
    /// The name that the node has in the API.
    pub node_name: String,
    /// The address that others reach the node at.
    pub node_ip: IpAddr,
    /// Labels that the node carries from its registration on, beside those every node has.
    pub labels: BTreeMap<String, String>,
    /// Taints that the node is registered with. An existing node keeps the taints it has.
    pub taints: Vec<Taint>,
    /// The runtime's CRI socket, with or without `unix://`.
    pub runtime_endpoint: String,
    /// The CRI socket of the image service, when it is another one.
    pub image_endpoint: Option<String>,
    /// Where volumes and pod directories are: `<data-dir>/kubelet`.
    pub root_dir: PathBuf,
    /// Where container logs are, in upstream's layout; usually `/var/log/pods`.
    pub pod_log_dir: PathBuf,
    /// The resolvers of pods with DNS policy ClusterFirst. Empty: pods get the node's.
    pub cluster_dns: Vec<IpAddr>,
    /// The domain of the cluster, without a final dot.
    pub cluster_domain: String,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// The cgroup under which `kubepods` is, as an absolute path in each hierarchy; it carries the instance's name.
    pub cgroup_root: String,
    /// How cgroups are named. None: as the runtime says, else by path.
    pub cgroup_driver: Option<CgroupDriver>,
    /// CPU and memory kept for the system, taken off what pods may ask for.
    pub reserved: Reserved,
    /// When images are removed to make room.
    pub image_gc: ImageGc,
    /// When pods are evicted.
    pub eviction: Eviction,
    /// The agent's own API.
    pub serving: Serving,
    /// Takes image archives; None: the runtime takes none.
    pub image_loader: Option<Arc<dyn ImageLoader>>,
    /// How often the node's lease is renewed.
    pub lease_interval: Duration,
    /// How long the lease is good for.
    pub lease_duration: Duration,
    /// How often the node's status is looked at; it is written when it changed.
    pub status_interval: Duration,
    /// After how long the node's status is written although it did not change.
    pub status_report_interval: Duration,
    /// How long service proxies may take to act on an EndpointSlice: a terminating pod that served is signalled only
    /// so long after the slices ceased to name it.
    pub propagation_delay: Duration,
    /// How long a terminating pod waits at most for the EndpointSlices to cease to name it.
    pub endpoints_wait_max: Duration,
    /// The size at which a container's log is rotated.
    pub container_log_max_bytes: u64,
    /// How many log files a container may have.
    pub container_log_max_files: u32,
    /// The version that the node reports, as the API server does.
    pub version: String,
}

/// How cgroups are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// By path.
    Cgroupfs,
    /// By systemd slice.
    Systemd,
}

/// What pods may not ask for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reserved {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

/// Disk thresholds for images.
#[derive(Clone, Copy, Debug)]
pub struct ImageGc {
    /// Above so many percent of the disk used, images are removed.
    pub high_percent: u8,
    /// Down to so many percent.
    pub low_percent: u8,
    /// An image is kept for so long after it was last used.
    pub minimum_age: Duration,
    /// How often the disk is looked at.
    pub interval: Duration,
}

/// When the node evicts pods.
#[derive(Clone, Copy, Debug)]
pub struct Eviction {
    /// What has to stay free.
    pub thresholds: Thresholds,
    /// How long a pressure condition stays after the pressure went.
    pub transition: Duration,
    /// How often the node looks.
    pub interval: Duration,
}

/// The agent API's listener.
#[derive(Clone)]
pub struct Serving {
    /// Where it listens; port 0 takes a free one, which the node then reports.
    pub address: SocketAddr,
    /// What it shows.
    pub certificate: Arc<ServingCertificate>,
    /// The authority whose client certificates are believed, PEM.
    pub client_ca_pem: String,
}

impl Config {
    /// Upstream's defaults around what has none.
    pub fn new(
        node_name: impl Into<String>,
        node_ip: IpAddr,
        runtime_endpoint: impl Into<String>,
        root_dir: impl Into<PathBuf>,
        certificate: Arc<ServingCertificate>,
        client_ca_pem: impl Into<String>,
    ) -> Self {
        Self {
            node_name: node_name.into(),
            node_ip,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            runtime_endpoint: runtime_endpoint.into(),
            image_endpoint: None,
            root_dir: root_dir.into(),
            pod_log_dir: PathBuf::from("/var/log/pods"),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_string(),
            max_pods: 110,
            cgroup_root: "/gantry".to_string(),
            cgroup_driver: None,
            reserved: Reserved::default(),
            image_gc: ImageGc::default(),
            eviction: Eviction::default(),
            serving: Serving {
                address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 10250)),
                certificate,
                client_ca_pem: client_ca_pem.into(),
            },
            image_loader: None,
            lease_interval: Duration::from_secs(10),
            lease_duration: Duration::from_secs(40),
            status_interval: Duration::from_secs(10),
            status_report_interval: Duration::from_secs(300),
            propagation_delay: Duration::from_millis(500),
            endpoints_wait_max: Duration::from_secs(5),
            container_log_max_bytes: 10 << 20,
            container_log_max_files: 5,
            version: "v1.36.0".to_string(),
        }
    }
}

impl Default for ImageGc {
    fn default() -> Self {
        Self {
            high_percent: 85,
            low_percent: 80,
            minimum_age: Duration::from_secs(120),
            interval: Duration::from_secs(300),
        }
    }
}

impl Default for Eviction {
    fn default() -> Self {
        Self {
            // Half of upstream's for the disk: a tenth of a large disk is a lot to leave empty.
            thresholds: Thresholds {
                memory: Threshold::Amount(100 << 20),
                disk: Threshold::Percent(5.0),
                inodes: Threshold::Percent(5.0),
                pids: Threshold::Percent(5.0),
            },
            transition: Duration::from_secs(300),
            interval: Duration::from_secs(10),
        }
    }
}
