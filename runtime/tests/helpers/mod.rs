//! A runtime of its own for each test: own directories, own names on the host, everything removed at the end.

#![allow(dead_code)] // Each test uses a part of it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use k8s_cri::v1::{
    image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient, *,
};
use runtime::{Config, Runtime, network::LoopbackOnly};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

pub const BUSYBOX: &str = "docker.io/library/busybox:test";

/// One runtime with its directories.
pub struct Node {
    pub directory: TempDir,
    pub config: Config,
    pub runtime: Option<Runtime>,
    shutdown: CancellationToken,
    pub cri: RuntimeServiceClient<Channel>,
    pub images: ImageServiceClient<Channel>,
}

/// Real containers need root and a busybox without libraries.
pub fn can_run() -> bool {
    let can = nix::unistd::geteuid().is_root() && PathBuf::from("/bin/busybox").exists();
    if !can {
        eprintln!("skipped: needs root and /bin/busybox (busybox-static)");
    }
    can
}

impl Node {
    pub async fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("gr").tempdir().unwrap();
        let instance = format!("gt{}", hex::encode(rand::random::<[u8; 4]>()));
        let mut config = Config::new(directory.path(), &instance).unwrap();
        config.state = directory.path().join("s");
        config.socket = directory.path().join("cri.sock");
        config.shim_executable = env!("CARGO_BIN_EXE_runtime-test-shim").into();
        let shutdown = CancellationToken::new();
        let runtime = Runtime::start(config.clone(), Arc::new(LoopbackOnly), shutdown.clone()).await.unwrap();
        let (cri, images) = connect(&config).await;
        Self { directory, config, runtime: Some(runtime), shutdown, cri, images }
    }

    /// With the busybox image loaded.
    pub async fn with_busybox() -> Self {
        let node = Self::start().await;
        let names =
            node.runtime.as_ref().unwrap().load(std::io::Cursor::new(busybox_archive(&[]))).await.unwrap();
        assert_eq!(names, [BUSYBOX]);
        node
    }

    /// Ends the runtime as a crash would (nothing is told to end) and starts another over the same directories.
    pub async fn restart(&mut self) {
        self.shutdown.cancel();
        self.runtime.take().unwrap().ended().await;
        self.shutdown = CancellationToken::new();
        let runtime =
            Runtime::start(self.config.clone(), Arc::new(LoopbackOnly), self.shutdown.clone()).await;
        self.runtime = Some(runtime.unwrap());
        (self.cri, self.images) = connect(&self.config).await;
    }

    pub async fn sandbox(&mut self, name: &str) -> String {
        self.sandbox_with(sandbox_config(name, self.directory.path())).await
    }

    pub async fn sandbox_with(&mut self, config: PodSandboxConfig) -> String {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        self.cri.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id
    }

    pub async fn create(&mut self, sandbox: &str, config: ContainerConfig) -> Result<String, tonic::Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: None,
        };
        Ok(self.cri.create_container(request).await?.into_inner().container_id)
    }

    pub async fn start_container(&mut self, id: &str) -> Result<(), tonic::Status> {
        self.cri.start_container(StartContainerRequest { container_id: id.to_owned() }).await.map(drop)
    }

    /// Makes and starts a container that runs a shell script.
    pub async fn run(&mut self, sandbox: &str, script: &str) -> String {
        self.run_with(sandbox, shell(script)).await
    }

    pub async fn run_with(&mut self, sandbox: &str, config: ContainerConfig) -> String {
        let id = self.create(sandbox, config).await.unwrap();
        self.start_container(&id).await.unwrap();
        id
    }

    pub async fn status(&mut self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        self.cri.container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    /// Waits until a container has exited.
    pub async fn exited(&mut self, id: &str) -> ContainerStatus {
        for _ in 0..400 {
            let status = self.status(id).await;
            if status.state() == ContainerState::ContainerExited {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("container {id} does not exit");
    }

    pub async fn exec(&mut self, id: &str, args: &[&str]) -> ExecSyncResponse {
        let cmd = args.iter().map(|arg| (*arg).to_owned()).collect();
        let request = ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: 10 };
        self.cri.exec_sync(request).await.unwrap().into_inner()
    }

    pub async fn sh(&mut self, id: &str, script: &str) -> String {
        let output = self.exec(id, &["sh", "-c", script]).await;
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The log of a container, without times.
    pub async fn log(&mut self, id: &str) -> Vec<String> {
        let path = self.status(id).await.log_path;
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    /// Runs a script to its end and returns what it printed.
    pub async fn output_of(&mut self, sandbox: &str, config: ContainerConfig) -> (i32, String) {
        let id = self.run_with(sandbox, config).await;
        let code = self.exited(&id).await.exit_code;
        let log = self.log(&id).await;
        let lines = log.iter().map(|line| line.splitn(3, ' ').nth(2).unwrap_or_default());
        (code, lines.collect::<Vec<_>>().join("\n"))
    }

    /// Ends everything and looks for what should not be left.
    pub async fn finish(mut self) {
        self.runtime.take().unwrap().destroy_all().await.unwrap();
        self.assert_nothing_left();
    }

    pub fn assert_nothing_left(&self) {
        let prefix = self.directory.path().to_str().unwrap().to_owned();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&prefix), "mounts are left: {mounts}");
        for name in [format!("{}-shims", self.config.instance), format!("{}-pods", self.config.instance)] {
            for controller in ["memory", "pids", "cpu", ""] {
                let group = PathBuf::from("/sys/fs/cgroup").join(controller).join(&name);
                assert!(!group.exists(), "{} is left", group.display());
            }
        }
        for process in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let arguments = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            let is_shim = arguments.contains("runtime-test-shim") && arguments.contains(&prefix);
            assert!(!is_shim, "a shim is left: {arguments}");
        }
        assert!(!self.config.state.exists());
    }
}

impl Drop for Node {
    /// A test that failed cleans up too.
    fn drop(&mut self) {
        if self.runtime.take().is_none() {
            return;
        }
        self.shutdown.cancel();
        let config = self.config.clone();
        let cleaning = std::thread::spawn(move || {
            let clean = async { Runtime::destroy(config, Arc::new(LoopbackOnly)).await };
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(clean)
        });
        if let Err(error) = cleaning.join().unwrap() {
            eprintln!("cleaning up: {error}");
        }
    }
}

async fn connect(config: &Config) -> (RuntimeServiceClient<Channel>, ImageServiceClient<Channel>) {
    let endpoint = Endpoint::from_shared(format!("unix://{}", config.socket.display())).unwrap();
    let channel = endpoint.connect().await.unwrap();
    (RuntimeServiceClient::new(channel.clone()), ImageServiceClient::new(channel))
}

pub fn sandbox_config(name: &str, directory: &std::path::Path) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        log_directory: directory.join("logs").join(name).display().to_string(),
        dns_config: Some(DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        }),
        labels: [("app".to_owned(), name.to_owned())].into(),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(NamespaceOption {
                    pid: NamespaceMode::Container.into(),
                    ..NamespaceOption::default()
                }),
                ..LinuxSandboxSecurityContext::default()
            }),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    }
}

/// A container that runs a shell script, with the default seccomp profile, as the agent would send it.
pub fn shell(script: &str) -> ContainerConfig {
    let name = format!("c{}", hex::encode(rand::random::<[u8; 4]>()));
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.clone(), attempt: 0 }),
        image: Some(ImageSpec { image: BUSYBOX.into(), ..ImageSpec::default() }),
        command: vec!["sh".into(), "-c".into(), script.into()],
        log_path: format!("{name}/0.log"),
        linux: Some(LinuxContainerConfig {
            resources: None,
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(NamespaceOption {
                    pid: NamespaceMode::Container.into(),
                    ..NamespaceOption::default()
                }),
                seccomp: Some(SecurityProfile {
                    profile_type: security_profile::ProfileType::RuntimeDefault.into(),
                    localhost_ref: String::new(),
                }),
                ..LinuxContainerSecurityContext::default()
            }),
        }),
        ..ContainerConfig::default()
    }
}

/// What an extra member of the image's layer is.
pub enum Member<'a> {
    File(&'a str),
    Link(&'a str),
    Directory,
}

/// An archive as `docker save` writes it: busybox with its commands as links, and whatever else a test wants.
pub fn busybox_archive(extra: &[(&str, Member<'_>)]) -> Vec<u8> {
    archive_named("busybox:test", extra)
}

pub fn archive_named(name: &str, extra: &[(&str, Member<'_>)]) -> Vec<u8> {
    archive_running(name, &["sh"], extra)
}

pub fn archive_running(name: &str, command: &[&str], extra: &[(&str, Member<'_>)]) -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").unwrap();
    let mut layer = tar::Builder::new(Vec::new());
    for directory in ["bin", "etc", "tmp", "root"] {
        add(
            &mut layer,
            directory,
            tar::EntryType::Directory,
            if directory == "tmp" { 0o1777 } else { 0o755 },
            b"",
            "",
        );
    }
    add(&mut layer, "bin/busybox", tar::EntryType::Regular, 0o755, &busybox, "");
    let commands = [
        "sh", "sleep", "echo", "cat", "id", "ls", "unshare", "mount", "dd", "touch", "hostname", "ps",
        "kill", "wc", "seq", "true", "stty", "nc", "trap", "env", "pwd", "grep", "tail", "head", "usleep",
        "yes", "chroot", "date",
    ];
    for command in commands {
        add(&mut layer, &format!("bin/{command}"), tar::EntryType::Symlink, 0o777, b"", "busybox");
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\n";
    add(&mut layer, "etc/passwd", tar::EntryType::Regular, 0o644, passwd, "");
    add(&mut layer, "etc/group", tar::EntryType::Regular, 0o644, b"root:x:0:\nextra:x:50:web\n", "");
    for (path, member) in extra {
        match member {
            Member::File(content) => {
                add(&mut layer, path, tar::EntryType::Regular, 0o755, content.as_bytes(), "");
            }
            Member::Link(target) => add(&mut layer, path, tar::EntryType::Symlink, 0o777, b"", target),
            Member::Directory => add(&mut layer, path, tar::EntryType::Directory, 0o755, b"", ""),
        }
    }
    let layer = layer.into_inner().unwrap();
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Cmd": command, "Env": ["FROM_IMAGE=yes"], "StopSignal": "SIGQUIT" },
        "rootfs": { "type": "layers", "diff_ids": [sha256(&layer)] },
    })
    .to_string();
    let manifest =
        serde_json::json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["l/layer.tar"] }]);
    let mut archive = tar::Builder::new(Vec::new());
    add(&mut archive, "l/layer.tar", tar::EntryType::Regular, 0o644, &layer, "");
    add(&mut archive, "config.json", tar::EntryType::Regular, 0o644, config.as_bytes(), "");
    add(&mut archive, "manifest.json", tar::EntryType::Regular, 0o644, manifest.to_string().as_bytes(), "");
    archive.into_inner().unwrap()
}

fn add(
    builder: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    content: &[u8],
    link: &str,
) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(content.len() as u64);
    if !link.is_empty() {
        header.set_link_name_literal(link).unwrap();
    }
    header.set_path(path).unwrap();
    header.set_cksum();
    builder.append(&header, content).unwrap();
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}
