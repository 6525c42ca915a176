//! What the machine says about a process, and a real etcd to compare with.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::Client;
use tempfile::TempDir;

/// How much processor time a process has used so far.
pub fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // The kernel counts in hundredths of a second.
    Duration::from_millis(ticks * 10)
}

/// How much was written to the disk that a directory is on, by whomever, journal included. What the kernel says of a
/// process is no use: it counts whole folios where one block was changed.
pub fn written_to_disk_of(dir: &Path) -> u64 {
    let device = std::fs::metadata(dir).unwrap().dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).unwrap_or_default();
    stat.split_whitespace().nth(6).map_or(0, |sectors| sectors.parse::<u64>().unwrap() * 512)
}

/// What a process holds in memory, and the most that it held, in MB.
pub fn memory_mb(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    (field(&status, "VmRSS:") / 1000, field(&status, "VmHWM:") / 1000)
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// How large the files of a directory are together.
pub fn directory_bytes(dir: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(dir) else { return 0 };
    files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum()
}

/// A single etcd on the same disk.
pub struct Etcd {
    pub dir: TempDir,
    process: Option<Child>,
    address: String,
}

impl Etcd {
    /// Starts one over a directory of its own below `parent`.
    pub async fn start(parent: &Path) -> Self {
        let dir = TempDir::with_prefix_in("etcd-", parent).unwrap();
        let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut etcd = Self { dir, process: None, address: format!("http://127.0.0.1:{}", port()) };
        etcd.run().await;
        etcd
    }

    /// Starts it again over the same directory, and waits until it serves.
    pub async fn run(&mut self) {
        let peer = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let peer = format!("http://127.0.0.1:{peer}");
        let process = Command::new("etcd")
            .args([
                "--name",
                "bench",
                "--logger",
                "zap",
                "--log-level",
                "error",
                "--quota-backend-bytes",
                "8589934592",
            ])
            .args(["--listen-client-urls", &self.address, "--advertise-client-urls", &self.address])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("bench={peer}"), "--data-dir"])
            .arg(self.dir.path().join("data"))
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd should be installed (Debian: etcd-server)");
        self.process = Some(process);
        for _ in 0..6000 {
            if let Ok(mut client) = Client::connect([&self.address], None).await
                && client.get("x", None).await.is_ok()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("etcd does not serve");
    }

    pub async fn client(&self) -> Client {
        Client::connect([&self.address], None).await.unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop();
    }
}
