//! A containerd of its own, an API server in this process, and the agent between them. All of it lies in one temporary
//! directory; pods are on the host's network, so that no network plugin is needed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use pki::{Leaf, Usage};
use serde_json::{Value, json};
use testbed::TestServer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const NODE: &str = "n1";
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that a test needs; what it started ends with it.
pub struct Harness {
    pub client: Client,
    pub directory: tempfile::TempDir,
    containerd: Child,
    node_client: Client,
    test: TestServer,
    agent: Option<(CancellationToken, JoinHandle<Result<(), kubelet::Error>>)>,
}

impl Harness {
    /// None, with a word why, on machines that cannot run it.
    pub async fn start() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/usr/bin/containerd").exists() {
            eprintln!("skipped: this test needs root and Debian's containerd and runc");
            return None;
        }
        tracing_subscriber::fmt().with_test_writer().with_env_filter("warn,kubelet=debug").init();
        let directory = tempfile::Builder::new().prefix("kubelet-test").tempdir().unwrap();
        let containerd = start_containerd(directory.path());
        let test = TestServer::start().await;
        test.make_default_account().await;
        let client = test.client.clone();
        let node_client = test.user(&format!("system:node:{NODE}"), &["system:nodes"]).client;
        let mut harness = Self { client, directory, containerd, node_client, test, agent: None };
        harness.start_agent();
        harness.eventually("the node to be ready", async |h| h.node_has("Ready").await).await;
        Some(harness)
    }

    pub fn socket(&self) -> String {
        self.directory.path().join("containerd.sock").display().to_string()
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("kubelet")
    }

    /// Where this test's control groups are.
    pub fn cgroup(&self) -> String {
        format!("gantry-test-{}", std::process::id())
    }

    pub fn start_agent(&mut self) {
        self.start_agent_with(|_| {});
    }

    /// With other settings.
    pub fn start_agent_with(&mut self, change: impl FnOnce(&mut kubelet::Config)) {
        let node_ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut leaf = Leaf::client(NODE, None);
        leaf.usage = Usage::Server;
        leaf.addresses = vec![node_ip];
        let pair = self.test.pki.authority.issue(&leaf, jiff::Timestamp::now()).unwrap();
        let certificate = kubelet::ServingCertificate::new(&pair.certificate_pem, &pair.key_pem).unwrap();
        let ca = self.test.pki.authority.certificate_pem();
        let mut config =
            kubelet::Config::new(NODE, node_ip, self.socket(), self.root(), Arc::new(certificate), ca);
        config.pod_log_dir = self.directory.path().join("logs");
        config.serving.address = SocketAddr::new(node_ip, 0);
        config.cgroup_root = format!("/{}", self.cgroup());
        let scratch = self.directory.path().join("scratch");
        config.image_loader = Some(Arc::new(kubelet::ContainerdLoader::new(self.socket(), scratch)));
        // How full the disk of the machine that runs the tests is does not matter.
        config.eviction.thresholds = kubelet::Thresholds::default();
        change(&mut config);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(kubelet::run(config, self.node_client.clone(), shutdown.clone()));
        self.agent = Some((shutdown, task));
    }

    pub async fn stop_agent(&mut self) {
        if let Some((shutdown, task)) = self.agent.take() {
            shutdown.cancel();
            task.await.unwrap().unwrap();
        }
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Makes a pod on the node and the host's network.
    pub async fn create(&self, name: &str, mut spec: Value) -> Pod {
        let fields = spec.as_object_mut().unwrap();
        fields.insert("nodeName".into(), json!(NODE));
        fields.insert("hostNetwork".into(), json!(true));
        fields.insert("automountServiceAccountToken".into(), json!(false));
        fields.entry("terminationGracePeriodSeconds").or_insert(json!(2));
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap()
    }

    /// Deletes a pod and waits until its object is gone.
    pub async fn delete(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
        self.eventually("the pod to be gone", async |h| h.pods().get_opt(name).await.unwrap().is_none())
            .await;
    }

    /// Waits until a pod's status satisfies a condition.
    pub async fn wait_for(&self, name: &str, what: &str, is_met: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let pod = self.pods().get(name).await.unwrap();
            let status = serde_json::to_value(pod.status.unwrap_or_default()).unwrap();
            if is_met(&status) {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "waited in vain for {name} {what}: {status:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn eventually(&self, what: &str, is_met: impl AsyncFn(&Self) -> bool) {
        let began = Instant::now();
        while !is_met(self).await {
            assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether a condition of the node is true.
    pub async fn node_has(&self, condition: &str) -> bool {
        let node =
            Api::<k8s_openapi::api::core::v1::Node>::all(self.client.clone()).get_opt(NODE).await.unwrap();
        let conditions =
            node.and_then(|node| node.status).and_then(|status| status.conditions).unwrap_or_default();
        conditions.iter().any(|c| c.type_ == condition && c.status == "True")
    }

    /// Loads an image the way a user does: through the API server's proxy to the agent.
    pub async fn load_image(&self, archive: Vec<u8>) -> Value {
        let request =
            http::Request::post(format!("/api/v1/nodes/{NODE}/proxy/gantry/images")).body(archive).unwrap();
        self.client.request(request).await.unwrap()
    }

    /// The containers that containerd has.
    pub fn containers(&self) -> Vec<String> {
        let output = Command::new("ctr")
            .args(["-a", &self.socket(), "-n", "k8s.io", "containers", "ls", "-q"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_string).collect()
    }

    /// What pods left behind: mounts below the agent's directory, and pods' control groups.
    pub fn leftovers(&self) -> Vec<String> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = self.root().display().to_string();
        let mounts = table.lines().filter(|line| line.contains(&root)).map(str::to_string);
        let groups = ["cpu", "memory", "pids", "unified", ""].iter().flat_map(|hierarchy| {
            let kubepods = Path::new("/sys/fs/cgroup").join(hierarchy).join(self.cgroup()).join("kubepods");
            ["", "burstable", "besteffort"].map(|class| kubepods.join(class))
        });
        let groups = groups.flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
        let groups =
            groups.map(|entry| entry.path().display().to_string()).filter(|path| path.contains("/pod"));
        mounts.chain(groups).collect()
    }

    /// Ends what runs, whatever the test left.
    pub async fn finish(mut self) {
        self.stop_agent().await;
        self.clean();
    }

    fn clean(&mut self) {
        let tasks =
            Command::new("ctr").args(["-a", &self.socket(), "-n", "k8s.io", "tasks", "ls", "-q"]).output();
        for task in String::from_utf8_lossy(&tasks.unwrap().stdout).lines() {
            let kill = ["-a", &self.socket(), "-n", "k8s.io", "tasks", "rm", "-f", task].map(str::to_string);
            drop(Command::new("ctr").args(kill).stdout(Stdio::null()).stderr(Stdio::null()).status());
        }
        drop(self.containerd.kill());
        drop(self.containerd.wait());
        drop(kubelet::destroy(&self.root(), &self.cgroup()));
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let below = self.directory.path().display().to_string();
        for point in
            table.lines().rev().filter_map(|line| line.split(' ').nth(4)).filter(|p| p.starts_with(&below))
        {
            nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH).ok();
        }
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.clean();
        }
    }
}

fn start_containerd(directory: &Path) -> Child {
    let d = directory.display();
    let config = format!(
        r#"version = 2
root = "{d}/root"
state = "{d}/state"
[grpc]
  address = "{d}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{d}/cni/bin"
    conf_dir = "{d}/cni/net.d"
"#
    );
    std::fs::create_dir_all(directory.join("cni/net.d")).unwrap();
    // Nothing runs it: pods are on the host's network. It lets containerd call its network ready.
    let network = r#"{"cniVersion": "0.4.0", "name": "none", "type": "none"}"#;
    std::fs::write(directory.join("cni/net.d/10-none.conf"), network).unwrap();
    std::fs::write(directory.join("containerd.toml"), config).unwrap();
    let log = std::fs::File::create(directory.join("containerd.log")).unwrap();
    let child = Command::new("/usr/bin/containerd")
        .arg("-c")
        .arg(directory.join("containerd.toml"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !directory.join("containerd.sock").exists() {
        assert!(began.elapsed() < PATIENCE, "containerd does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    child
}
