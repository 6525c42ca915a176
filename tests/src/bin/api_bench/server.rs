//! The servers under load: ours over either store, or another one.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tempfile::TempDir;
use tests::gantry;

/// A server with all its processes; those that were started here end with it.
pub struct Server {
    /// As the table calls it.
    pub name: String,
    kubeconfig: String,
    process_ids: Vec<u32>,
    children: Vec<Child>,
    _data: Option<TempDir>,
}

impl Server {
    /// Ours, over its own store.
    pub fn embedded(_etcd: &Path) -> Self {
        Self::ours("embedded", Vec::new(), &[])
    }

    /// Ours, over a single etcd.
    pub fn over_etcd(etcd: &Path) -> Self {
        let (client, peer) = (free_port(), free_port());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let child = Command::new("etcd")
            .args(["--data-dir", etcd.to_str().unwrap(), "--log-level=error"])
            .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &format!("default={}", url(peer))])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts: Debian's etcd-server is installed");
        let flags = ["--store=etcd".to_string(), format!("--etcd-endpoints={}", url(client))];
        Self::ours("over etcd", vec![child], &flags)
    }

    /// The one that the environment names.
    pub fn reference() -> Option<Self> {
        let kubeconfig = std::env::var("REFERENCE_KUBECONFIG").ok()?;
        let pids = std::env::var("REFERENCE_PIDS").unwrap_or_default();
        let process_ids = pids.split(',').filter_map(|pid| pid.trim().parse().ok()).collect();
        Some(Self { name: "reference".into(), kubeconfig, process_ids, children: Vec::new(), _data: None })
    }

    fn ours(name: &str, mut children: Vec<Child>, flags: &[String]) -> Self {
        let data = tempfile::Builder::new().prefix("gantry-bench").tempdir().unwrap();
        let child = Command::new(gantry())
            .args(["apiserver", "--bind-address=127.0.0.1", "--log-level=warn"])
            .arg(format!("--data-dir={}", data.path().display()))
            .arg(format!("--secure-port={}", free_port()))
            .args(flags)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        children.push(child);
        Self {
            name: name.to_string(),
            kubeconfig: data.path().join("admin.kubeconfig").display().to_string(),
            process_ids: children.iter().map(Child::id).collect(),
            children,
            _data: Some(data),
        }
    }

    /// Waits until it does.
    pub async fn answers(&self) {
        for _ in 0..600 {
            if Path::new(&self.kubeconfig).exists() && self.client().await.apiserver_version().await.is_ok() {
                // Whatever it does after its start is not the load's.
                tokio::time::sleep(Duration::from_secs(3)).await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{} does not answer", self.name);
    }

    /// A client with a connection of its own.
    pub async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    /// Processor time of its processes so far.
    pub fn processor_time(&self) -> Duration {
        let ticks = |pid: &u32| -> u64 {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        // The kernel counts in hundredths of a second.
        Duration::from_millis(self.process_ids.iter().map(ticks).sum::<u64>() * 10)
    }

    /// What its processes keep in memory.
    pub fn resident_bytes(&self) -> usize {
        let resident = |pid: &u32| -> usize {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        self.process_ids.iter().map(resident).sum::<usize>() * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The store after its server.
        for child in self.children.iter_mut().rev() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
