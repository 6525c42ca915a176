//! Real etcd members on loopback. Needs `etcd` on the path (Debian: `etcd-server`).

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use store::etcd::{EtcdOptions, EtcdStore};
use tempfile::TempDir;

/// Nothing here should take longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Below what the kernel gives to outgoing connections, which could take a port before etcd does.
const PORTS: std::ops::Range<u16> = 12_000..30_000;

/// One etcd of some members, which end when it is dropped.
pub struct Etcd {
    members: Vec<Member>,
    /// The directory with `server.pem`, `server-key.pem` and `ca.pem` for those that talk over TLS.
    tls: Option<PathBuf>,
    more: Vec<String>,
    dir: TempDir,
}

struct Member {
    client_port: u16,
    peer_port: u16,
    process: Option<Child>,
}

impl Etcd {
    /// Starts one with so many members.
    pub fn start(members: usize) -> Self {
        Self::start_with(members, None, &[])
    }

    /// The same, over TLS if there is a directory with `ca.pem`, `server.pem` and `server-key.pem`, with more flags.
    pub fn start_with(members: usize, tls: Option<&Path>, more: &[&str]) -> Self {
        let member = |_| Member { client_port: free_port(), peer_port: free_port(), process: None };
        let members: Vec<_> = (0..members).map(member).collect();
        let (tls, more) = (tls.map(Path::to_owned), more.iter().map(|&flag| flag.to_owned()).collect());
        let mut etcd = Self { members, tls, more, dir: TempDir::new().unwrap() };
        for number in 0..etcd.members.len() {
            etcd.run(number);
        }
        etcd
    }

    /// Starts a member that does not run.
    pub fn run(&mut self, number: usize) {
        let client = self.url(number);
        let peer = |member: &Member| format!("http://127.0.0.1:{}", member.peer_port);
        let cluster: Vec<_> =
            self.members.iter().enumerate().map(|(n, member)| format!("m{n}={}", peer(member))).collect();
        let own_peer = peer(&self.members[number]);
        let path = |what: &str| self.dir.path().join(format!("{what}{number}"));
        let mut command = Command::new("etcd");
        command
            .args(["--name", &format!("m{number}"), "--initial-cluster", &cluster.join(",")])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &own_peer, "--initial-advertise-peer-urls", &own_peer])
            .args(["--logger", "zap", "--data-dir"])
            .arg(path("data"))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(path("log")).unwrap());
        command.args(&self.more);
        if let Some(dir) = &self.tls {
            let file = |name: &str| format!("{}/{name}.pem", dir.display());
            command.args(["--cert-file", &file("server"), "--key-file", &file("server-key")]);
            command.args(["--client-cert-auth", "--trusted-ca-file", &file("ca")]);
        }
        let process = command.spawn().expect("etcd should be installed (Debian: etcd-server)");
        self.members[number].process = Some(process);
    }

    /// Ends a member as a power failure would.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut process) = self.members[number].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Has a member stand still, with its connections open.
    pub fn stop(&self, number: usize) {
        self.signal(number, nix::sys::signal::Signal::SIGSTOP);
    }

    /// Has a member that stands still go on.
    pub fn go_on(&self, number: usize) {
        self.signal(number, nix::sys::signal::Signal::SIGCONT);
    }

    fn signal(&self, number: usize, signal: nix::sys::signal::Signal) {
        let process = self.members[number].process.as_ref().expect("the member should run");
        let pid = nix::unistd::Pid::from_raw(process.id().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits until all members follow one leader.
    pub async fn settle(&self) {
        let leader = self.leader().await;
        let deadline = Instant::now() + PATIENCE;
        for number in 0..self.members.len() {
            while number != leader && self.leads(number).await.is_none() {
                assert!(Instant::now() < deadline, "member {number} should come back");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Where a member answers.
    pub fn url(&self, number: usize) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.members[number].client_port)
    }

    /// For all members.
    pub fn options(&self) -> EtcdOptions {
        EtcdOptions::new((0..self.members.len()).map(|number| self.url(number)).collect())
    }

    /// A store over all members.
    pub async fn connect(&self) -> EtcdStore {
        Self::connect_with(self.options()).await
    }

    /// Connects as soon as there is somebody to connect to.
    pub async fn connect_with(options: EtcdOptions) -> EtcdStore {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match EtcdStore::connect(options.clone()).await {
                Ok(store) => return store,
                Err(error) if Instant::now() > deadline => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// The member that leads.
    pub async fn leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for number in 0..self.members.len() {
                if self.leads(number).await == Some(true) {
                    return number;
                }
            }
            assert!(Instant::now() < deadline, "somebody should lead");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn leads(&self, number: usize) -> Option<bool> {
        let asked = async {
            let client = etcd_client::Client::connect([self.url(number)], None).await.ok()?;
            let status = client.maintenance_client().status().await.ok()?;
            Some(status.leader() == status.header()?.member_id())
        };
        tokio::time::timeout(Duration::from_secs(2), asked).await.ok()?
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for number in 0..self.members.len() {
            self.kill(number);
        }
    }
}

/// A port that nobody uses. Different for every call and, as far as possible, every process.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = u16::try_from(std::process::id() % 1777).unwrap() * 10;
    loop {
        let offset = spread.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        let port = PORTS.start + offset;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
