//! Exec, attach and port-forward over the URLs that the runtime gives out: needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod helpers;

use std::time::Duration;

use helpers::{Node, can_run, shell};
use k8s_cri::v1::*;
use streaming::spdy::{Connection, Headers};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

struct Session {
    error: DuplexStream,
    stdin: Option<DuplexStream>,
    stdout: DuplexStream,
    stderr: Option<DuplexStream>,
    resize: Option<DuplexStream>,
    _connection: Connection,
}

async fn open(url: &str, tty: bool) -> Session {
    let connection = streaming::client::connect(&url.parse().unwrap(), &["v4.channel.k8s.io"]).await.unwrap();
    let stream =
        async |kind: &str| connection.open(Headers::default().with("streamType", kind)).await.unwrap().io;
    let error = stream("error").await;
    let stdin = Some(stream("stdin").await);
    let stdout = stream("stdout").await;
    let stderr = if tty { None } else { Some(stream("stderr").await) };
    let resize = if tty { Some(stream("resize").await) } else { None };
    Session { error, stdin, stdout, stderr, resize, _connection: connection }
}

async fn text(mut stream: DuplexStream) -> String {
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

async fn exec_url(node: &mut Node, id: &str, cmd: &[&str], tty: bool) -> String {
    let cmd = cmd.iter().map(|arg| (*arg).to_owned()).collect();
    let request = ExecRequest { container_id: id.into(), cmd, tty, stdin: true, stdout: true, stderr: !tty };
    node.cri.exec(request).await.unwrap().into_inner().url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_should_carry_all_streams_and_the_exit_code() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("exec").await;
    let id = node.run(&sandbox, "sleep 1000").await;
    let url = exec_url(&mut node, &id, &["sh", "-c", "cat; echo problem >&2; exit 5"], false).await;
    let mut session = open(&url, false).await;
    let large = "x".repeat(300_000);
    let mut stdin = session.stdin.take().unwrap();
    let sent = large.clone();
    let writer = tokio::spawn(async move {
        stdin.write_all(sent.as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    assert_eq!(text(session.stdout).await, large);
    assert_eq!(text(session.stderr.take().unwrap()).await, "problem\n");
    let status = text(session.error).await;
    assert!(status.contains(r#""message":"5""#), "{status}");
    writer.await.unwrap();
    // A URL works once.
    assert!(streaming::client::connect(&url.parse().unwrap(), &["v4.channel.k8s.io"]).await.is_err());
    let url = exec_url(&mut node, &id, &["no-such-program"], false).await;
    let status = text(open(&url, false).await.error).await;
    assert!(status.contains("executable file not found"), "{status}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_should_give_a_terminal_that_can_be_resized() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("tty").await;
    let id = node.run(&sandbox, "sleep 1000").await;
    let url = exec_url(&mut node, &id, &["sh"], true).await;
    let mut session = open(&url, true).await;
    session.resize.as_mut().unwrap().write_all(br#"{"Width":123,"Height":45}"#).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    session.stdin.as_mut().unwrap().write_all(b"stty size; exit 3\n").await.unwrap();
    let output = text(session.stdout).await;
    assert!(output.contains("45 123"), "{output:?}");
    assert!(text(session.error).await.contains(r#""message":"3""#));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_should_reach_the_first_process_and_the_log_still_have_everything() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("attach").await;
    let config =
        ContainerConfig { stdin: true, stdin_once: true, ..shell("echo begin; cat; echo end; exit 2") };
    let id = node.run_with(&sandbox, config).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let request =
        AttachRequest { container_id: id.clone(), stdin: true, tty: false, stdout: true, stderr: true };
    let url = node.cri.attach(request).await.unwrap().into_inner().url;
    let mut session = open(&url, false).await;
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"typed\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(text(session.stdout).await, "typed\nend\n");
    assert_eq!(node.exited(&id).await.exit_code, 2);
    assert_eq!(node.log(&id).await, ["stdout F begin", "stdout F typed", "stdout F end"]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_should_reach_a_terminal() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("console").await;
    let config = ContainerConfig { stdin: true, tty: true, command: vec!["sh".into()], ..shell("") };
    let id = node.run_with(&sandbox, config).await;
    let request =
        AttachRequest { container_id: id.clone(), stdin: true, tty: true, stdout: true, stderr: false };
    let url = node.cri.attach(request).await.unwrap().into_inner().url;
    let mut session = open(&url, true).await;
    session.resize.as_mut().unwrap().write_all(br#"{"Width":99,"Height":33}"#).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    session.stdin.as_mut().unwrap().write_all(b"stty size; exit 4\n").await.unwrap();
    let output = text(session.stdout).await;
    assert!(output.contains("33 99"), "{output:?}");
    assert_eq!(node.exited(&id).await.exit_code, 4);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_should_be_forwarded_into_the_pods_own_network() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("ports").await;
    let id = node.run(&sandbox, "while true; do echo answer | nc -l -p 7777; done").await;
    node.sh(
        &id,
        "for i in $(seq 50); do nc 127.0.0.1 7777 </dev/null >/dev/null 2>&1 && break; usleep 50000; done",
    )
    .await;
    let request = PortForwardRequest { pod_sandbox_id: sandbox.clone(), port: vec![7777] };
    let url = node.cri.port_forward(request).await.unwrap().into_inner().url;
    let connection =
        streaming::client::connect(&url.parse().unwrap(), &["portforward.k8s.io"]).await.unwrap();
    let open = async |kind: &str, port: &str, request: &str| {
        let headers =
            Headers::default().with("streamType", kind).with("port", port).with("requestID", request);
        connection.open(headers).await.unwrap().io
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (_error, data) = (open("error", "7777", "0").await, open("data", "7777", "0").await);
    assert_eq!(text(data).await, "answer\n");
    let (error, _data) = (open("error", "7778", "1").await, open("data", "7778", "1").await);
    assert!(text(error).await.contains("onnection refused"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_should_be_hung_up_when_its_client_goes() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("gone").await;
    let id = node.run(&sandbox, "sleep 1000").await;
    let url = exec_url(&mut node, &id, &["sh", "-c", "sleep 4321; true"], true).await;
    let session = open(&url, true).await;
    for _ in 0..100 {
        if node.sh(&id, "ps").await.contains("sleep 4321") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(node.sh(&id, "ps").await.contains("sleep 4321"));
    drop(session);
    for _ in 0..100 {
        if !node.sh(&id, "ps").await.contains("sleep 4321") {
            return node.finish().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the program outlives its terminal: {}", node.sh(&id, "ps").await);
}
