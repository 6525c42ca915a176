//! The translation of WebSocket sessions for a runtime that streams over SPDY only: Debian's containerd. Needs root and
//! containerd; it runs with directories of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod helpers;

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use helpers::{archive_running, sandbox_config, shell};
use http::Uri;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use k8s_cri::v1::{runtime_service_client::RuntimeServiceClient, *};
use streaming::{
    command::CommandOptions,
    translate::{Purpose, translate},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest},
};
use tonic::transport::{Channel, Endpoint};

struct Containerd {
    directory: tempfile::TempDir,
    process: Child,
}

impl Containerd {
    async fn start() -> Option<(Self, RuntimeServiceClient<Channel>)> {
        let can_run = helpers::can_run() && Path::new("/usr/bin/containerd").exists();
        if !can_run {
            eprintln!("skipped: needs root, busybox-static and containerd");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("gc").tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\n[grpc]\naddress = {socket:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"registry.k8s.io/pause:test\"\n\
             restrict_oom_score_adj = true\nstream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = {cni:?}\nconf_dir = {cni:?}\n",
            root = at("root"),
            state = at("state"),
            socket = at("c.sock"),
            cni = at("cni"),
        );
        std::fs::write(at("config.toml"), config).unwrap();
        let log = std::fs::File::create(at("log")).unwrap();
        let process = Command::new("/usr/bin/containerd")
            .args(["--config", &at("config.toml")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Self { directory, process };
        let client = started.connect().await;
        started.import("registry.k8s.io/pause:test", &["/bin/sleep", "100000"]);
        started.import(helpers::BUSYBOX, &["sh"]);
        Some((started, client))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn connect(&self) -> RuntimeServiceClient<Channel> {
        for _ in 0..200 {
            let endpoint =
                Endpoint::from_shared(format!("unix://{}", self.path("c.sock").display())).unwrap();
            if let Ok(channel) = endpoint.connect().await {
                let mut client = RuntimeServiceClient::new(channel);
                if client.version(VersionRequest::default()).await.is_ok() {
                    return client;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("containerd does not start: {}", std::fs::read_to_string(self.path("log")).unwrap());
    }

    fn import(&self, name: &str, command: &[&str]) {
        let archive = self.path("image.tar");
        std::fs::write(&archive, archive_running(name, command, &[])).unwrap();
        let imported = Command::new("ctr")
            .arg("--address")
            .arg(self.path("c.sock"))
            .args(["--namespace", "k8s.io", "images", "import"])
            .arg(&archive)
            .output()
            .unwrap();
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        // What a failed test has left: the shims carry the directory in their arguments, and hold mounts below it.
        let directory = self.directory.path().display().to_string();
        for process in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let arguments = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            if arguments.contains("containerd-shim") && arguments.contains(&directory) {
                let pid = process.file_name().to_string_lossy().parse().unwrap();
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
                    .ok();
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut targets: Vec<_> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
        targets.reverse();
        for target in targets.iter().filter(|target| target.starts_with(&directory)) {
            nix::mount::umount2(*target, nix::mount::MntFlags::MNT_DETACH).ok();
        }
        for controller in std::fs::read_dir("/sys/fs/cgroup").unwrap().filter_map(Result::ok) {
            std::fs::remove_dir(controller.path().join(cgroup())).ok();
        }
    }
}

/// The parent of the test's cgroups.
fn cgroup() -> String {
    format!("gc{}", std::process::id())
}

/// Serves the translation to `backend` on a loopback port.
async fn translation(backend: &str, purpose: Purpose) -> Uri {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let backend: Uri = backend.parse().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let backend = backend.clone();
            let service = service_fn(move |request: http::Request<Incoming>| {
                let backend = backend.clone();
                async move { Ok::<_, Infallible>(translate(request, &backend, purpose).await) }
            });
            tokio::spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new();
                connection.serve_connection(TokioIo::new(stream), service).with_upgrades().await.ok();
            });
        }
    });
    format!("http://127.0.0.1:{port}/").parse().unwrap()
}

async fn websocket(url: &Uri, query: &str, protocol: &'static str) -> WebSocketStream<TcpStream> {
    let transport = TcpStream::connect(url.authority().unwrap().as_str()).await.unwrap();
    let url = format!("ws://{}/?{query}", url.authority().unwrap());
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", http::HeaderValue::from_static(protocol));
    tokio_tungstenite::client_async(request, transport).await.unwrap().0
}

fn host_network() -> Option<NamespaceOption> {
    Some(NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Container.into(),
        ..NamespaceOption::default()
    })
}

async fn exec_over_websocket(cri: &mut RuntimeServiceClient<Channel>, container_id: &str) {
    let options = CommandOptions { stdin: true, stdout: true, stderr: true, tty: false };
    let cmd = ["sh", "-c", "cat; echo problem >&2; exit 6"].map(str::to_owned).to_vec();
    let request = ExecRequest {
        container_id: container_id.into(),
        cmd,
        tty: false,
        stdin: true,
        stdout: true,
        stderr: true,
    };
    let backend = cri.exec(request).await.unwrap().into_inner().url;
    let url = translation(&backend, Purpose::Command(options)).await;
    let mut socket = websocket(&url, "", "v5.channel.k8s.io").await;
    let large = vec![b'x'; 100_000];
    socket.send(Message::Binary([&[0u8][..], &large].concat().into())).await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(&[255, 0]))).await.unwrap();
    let mut channels: [Vec<u8>; 5] = Default::default();
    while let Some(Ok(message)) = tokio::time::timeout(Duration::from_secs(20), socket.next()).await.unwrap()
    {
        if let Message::Binary(payload) = message {
            channels[usize::from(payload[0])].extend_from_slice(&payload[1..]);
        }
    }
    assert_eq!(channels[1].len(), large.len());
    assert_eq!(channels[2], b"problem\n");
    let status = String::from_utf8(channels[3].clone()).unwrap();
    assert!(status.contains(r#""reason":"ExitCode","message":"6""#), "{status}");
}

async fn forward_over_websocket(cri: &mut RuntimeServiceClient<Channel>, pod_sandbox_id: &str) {
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = echo.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = echo.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    let request = PortForwardRequest { pod_sandbox_id: pod_sandbox_id.into(), port: vec![port.into()] };
    let backend = cri.port_forward(request).await.unwrap().into_inner().url;
    let url = translation(&backend, Purpose::PortForward).await;
    let mut socket = websocket(&url, &format!("ports={port}"), "v4.channel.k8s.io").await;
    socket.send(Message::Binary(Bytes::from_static(b"\0ping"))).await.unwrap();
    let mut data = Vec::new();
    while data.len() < 6 {
        let message =
            tokio::time::timeout(Duration::from_secs(20), socket.next()).await.unwrap().unwrap().unwrap();
        if let Message::Binary(payload) = message
            && payload[0] == 0
        {
            data.extend_from_slice(&payload[1..]);
        }
    }
    assert_eq!(&data[2..], b"ping");
    // And in the tunnel that present clients use.
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = echo.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = echo.accept().await.unwrap();
        stream.write_all(b"banner").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok();
    });
    let request = PortForwardRequest { pod_sandbox_id: pod_sandbox_id.into(), port: vec![port.into()] };
    let backend = cri.port_forward(request).await.unwrap().into_inner().url;
    let connection =
        streaming::client::connect(&backend.parse().unwrap(), &["portforward.k8s.io"]).await.unwrap();
    let headers = |kind: &str| {
        let headers = streaming::spdy::Headers::default().with("streamType", kind);
        headers.with("port", port.to_string()).with("requestID", "0")
    };
    let _error = connection.open(headers("error")).await.unwrap();
    let mut data = connection.open(headers("data")).await.unwrap().io;
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(20), data.read_to_string(&mut text)).await.unwrap().unwrap();
    assert_eq!(text, "banner");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_sessions_should_reach_a_runtime_that_speaks_spdy() {
    let Some((containerd, mut cri)) = Containerd::start().await else { return };
    let mut config = sandbox_config("translated", containerd.directory.path());
    // A pod on the network of its host has the name of its host.
    config.hostname.clear();
    let linux = config.linux.as_mut().unwrap();
    linux.cgroup_parent = format!("/{}", cgroup());
    linux.security_context.as_mut().unwrap().namespace_options = host_network();
    let run = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
    let pod_sandbox_id = cri.run_pod_sandbox(run).await.unwrap().into_inner().pod_sandbox_id;
    let mut container = shell("sleep 100000");
    container.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = host_network();
    let create = CreateContainerRequest {
        pod_sandbox_id: pod_sandbox_id.clone(),
        config: Some(container),
        sandbox_config: Some(config),
    };
    let container_id = cri.create_container(create).await.unwrap().into_inner().container_id;
    cri.start_container(StartContainerRequest { container_id: container_id.clone() }).await.unwrap();
    exec_over_websocket(&mut cri, &container_id).await;
    forward_over_websocket(&mut cri, &pod_sandbox_id).await;
    cri.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() }).await.unwrap();
    cri.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id }).await.unwrap();
}
