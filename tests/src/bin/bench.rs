//! `make bench`: the figures of a single node, as docs/benchmarks.md explains them. The loads are bounded; everything
//! happens on a machine of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Cluster, Node, eventually, gantry};

const IDLE_SECONDS: u64 = 60;
const SINGLE_PODS: usize = 20;
const POD_BURST: usize = 50;

fn main() {
    println!("| figure | target | reached |\n| --- | --- | --- |");
    let size = std::fs::metadata(gantry()).unwrap().len();
    row("size of the binary", "< 60 MB", &format!("{:.1} MB", size as f64 / 1e6));

    let begun = Instant::now();
    let cluster = Cluster::start();
    let ready = begun.elapsed();
    let node = cluster.server();
    eventually(10, "DNS answers", || {
        // Port 53, as the kernel writes it.
        let listening = node.machine.inside(&["grep", "-qi", ":0035 ", "/proc/net/udp"]);
        if listening.success { Ok(()) } else { Err("nobody listens on port 53".to_string()) }
    });
    row("from start to a Ready node", "< 2 s", &format!("{:.2} s", ready.as_secs_f64()));
    row("to a Ready node with DNS", "< 2 s", &format!("{:.2} s", begun.elapsed().as_secs_f64()));

    let (memory_kb, cpu_percent) = idle(node);
    row("idle: summed PSS", "< 60 MB", &format!("{:.1} MB", memory_kb as f64 / 1e3));
    row("idle: share of a core", "< 0.5 %", &format!("{cpu_percent:.2} %"));

    cluster.load_images(&["busybox:latest"]);
    let mut singles: Vec<Duration> =
        (0..SINGLE_PODS).map(|index| burst(node, &format!("single-{index}"), 1)).collect();
    singles.sort();
    row("one pod, POST to Running, p50", "< 150 ms", &milliseconds(singles[SINGLE_PODS / 2]));
    row("one pod, POST to Running, p90", "", &milliseconds(singles[SINGLE_PODS * 9 / 10]));
    let all = burst(node, "burst", POD_BURST);
    row("50 pods at once, until all run", "< 3 s", &format!("{:.2} s", all.as_secs_f64()));
    cluster.finish();
}

fn row(figure: &str, target: &str, reached: &str) {
    println!("| {figure} | {target} | {reached} |");
}

fn milliseconds(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}

/// The proportional set size of the node's processes, and the processor time that they take while nothing happens.
fn idle(node: &Node) -> (u64, f64) {
    std::thread::sleep(Duration::from_secs(10));
    let process = node.process_id();
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(IDLE_SECONDS));
    // The kernel counts in hundredths of a second.
    let percent = (ticks() - before) as f64 / IDLE_SECONDS as f64;
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    (pss.split_whitespace().next().unwrap().parse().unwrap(), percent)
}

/// Creates pods one right after the other and measures until a watch has seen the last of them running.
fn burst(node: &Node, name: &str, count: usize) -> Duration {
    let (mut watching, running) = watch(node, name);
    let pods: Vec<Value> = (0..count).map(|index| pod(&format!("{name}-{index}"), name)).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pods});
    let begun = Instant::now();
    for pod in list["items"].as_array().unwrap() {
        post(node, pod);
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < count {
        let name = running.recv_timeout(Duration::from_secs(60)).expect("the pods run within a minute");
        seen.insert(name);
    }
    let taken = begun.elapsed();
    watching.kill().unwrap();
    watching.wait().unwrap();
    let selector = format!("labelSelector=bench%3D{name}");
    let path = format!("/api/v1/namespaces/default/pods?{selector}");
    let mut request = curl(node, &path);
    let body = r#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0}"#;
    request.args(["-X", "DELETE", "-H", "Content-Type: application/json", "-d", body]);
    tests::run(&mut request).ok();
    taken
}

fn pod(name: &str, label: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"bench": label}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": "busybox:latest", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "3600"]}]},
    })
}

fn post(node: &Node, pod: &Value) {
    let mut request = curl(node, "/api/v1/namespaces/default/pods");
    request.args(["-H", "Content-Type: application/json", "-d", &pod.to_string()]);
    tests::run(&mut request).ok();
}

/// The names of pods as they come to run.
fn watch(node: &Node, label: &str) -> (Child, Receiver<String>) {
    let path = format!("/api/v1/namespaces/default/pods?watch=true&labelSelector=bench%3D{label}");
    let mut watching = curl(node, &path).arg("-N").stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if event["object"]["status"]["phase"] == "Running" {
                let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_string();
                if sender.send(name).is_err() {
                    return;
                }
            }
        }
    });
    std::thread::sleep(Duration::from_millis(200));
    (watching, receiver)
}

fn curl(node: &Node, path: &str) -> std::process::Command {
    let pki = node.data_dir().join("pki");
    let file = |name: &str| pki.join(name).to_str().unwrap().to_string();
    let url = format!("https://127.0.0.1:6443{path}");
    let (ca, certificate, key) = (file("ca.crt"), file("admin.crt"), file("admin.key"));
    node.machine.command(&["curl", "-sf", "--cacert", &ca, "--cert", &certificate, "--key", &key, &url])
}
