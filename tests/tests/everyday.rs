//! The everyday jobs of a user, on real machines, containers and networks, with ctl and with real kubectls, new and old.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{Cluster, NodeOptions, REGISTRY, Registry, Tool, eventually};

const WEB: &str = include_str!("../../manifests/web.yml");
const REDIS: &str = include_str!("../../manifests/redis.yml");
const TOOLS: &str = include_str!("../../manifests/tools.yml");
fn web_cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.load_images(&["web:v1", "web:v2"]);
    let manifest = cluster.manifest("web.yml", WEB);
    cluster.ctl(&["apply", "-f", &manifest]).ok();
    cluster.ctl(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    cluster
}

fn first_pod(cluster: &Cluster, selector: &str) -> String {
    let pods = cluster.get(&["pods", "-l", selector]).unwrap();
    pods["items"][0]["metadata"]["name"].as_str().unwrap().to_string()
}

#[test]
fn a_manifest_is_applied_shown_and_deleted_by_every_command_line() {
    let cluster = Cluster::start();
    cluster.load_images(&["web:v1"]);
    let manifest = cluster.manifest("web.yml", WEB);
    for tool in Tool::all() {
        let applied = cluster.tool(tool, &["apply", "-f", &manifest]).ok();
        assert!(
            applied.contains("deployment.apps/web created") && applied.contains("service/web created"),
            "{applied}"
        );
        let again = cluster.tool(tool, &["apply", "-f", &manifest]).ok();
        assert!(again.contains("deployment.apps/web unchanged"), "{again}");
        let status = cluster.tool(tool, &["rollout", "status", "deployment/web", "--timeout=60s"]).ok();
        assert!(status.contains("successfully rolled out"), "{status}");
        let pods = cluster.tool(tool, &["get", "pods", "-o", "wide"]).ok();
        assert_eq!(pods.matches("1/1").count(), 3, "{pods}");
        assert!(pods.contains("10.244.") && pods.contains("n1"), "{pods}");
        let described = cluster.tool(tool, &["describe", "deployment", "web"]).ok();
        assert!(described.contains("3 available") && described.contains("ScalingReplicaSet"), "{described}");
        let pod = first_pod(&cluster, "app=web");
        let described = cluster.tool(tool, &["describe", "pod", &pod]).ok();
        assert!(described.contains("Started") && described.contains("web:v1"), "{described}");
        let said = cluster
            .tool(tool, &["exec", &pod, "--", "sh", "-c", "echo to stdout; echo to stderr >&2; exit 3"]);
        assert_eq!((said.stdout.trim(), said.success), ("to stdout", false));
        assert!(said.stderr.contains("to stderr") && said.stderr.contains('3'), "{}", said.stderr);
        cluster.tool(tool, &["delete", "-f", &manifest]).ok();
        eventually(30, "every pod is gone", || {
            let pods = cluster.get(&["pods"])?;
            if pods["items"].as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(pods.to_string()) }
        });
    }
    cluster.finish();
}

#[test]
fn logs_follow_files_are_copied_and_ports_are_forwarded() {
    let cluster = web_cluster();
    let manifest = cluster.manifest("counter.yml", concat!(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: counter}\nspec:\n  containers:\n  - name: main\n",
        "    image: busybox:latest\n    imagePullPolicy: IfNotPresent\n",
        "    command: [sh, -c, 'i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo line $i; sleep 0.2; done; sleep 3600']\n",
    ));
    cluster.load_images(&["busybox:latest"]);
    cluster.ctl(&["apply", "-f", &manifest]).ok();
    for tool in Tool::all() {
        cluster.tool(tool, &["wait", "--for=condition=Ready", "pod/counter", "--timeout=30s"]).ok();
        let mut following = cluster.tool_command(tool, &["logs", "-f", "counter"]);
        let mut following = following.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut seen = String::new();
        let reader = std::io::BufReader::new(following.stdout.take().unwrap());
        for line in std::io::BufRead::lines(reader) {
            seen = line.unwrap();
            if seen == "line 20" {
                break;
            }
        }
        following.kill().unwrap();
        following.wait().unwrap();
        assert_eq!(seen, "line 20");
        let tail = cluster.tool(tool, &["logs", "counter", "--tail=2"]).ok();
        assert_eq!(tail, "line 19\nline 20\n");

        let sent = cluster.manifest("sent.txt", "sent by the user\n");
        cluster.tool(tool, &["exec", "counter", "--", "rm", "-f", "/tmp/sent.txt"]).ok();
        cluster.tool(tool, &["cp", &sent, "counter:/tmp/sent.txt"]).ok();
        let read = cluster.tool(tool, &["exec", "counter", "--", "cat", "/tmp/sent.txt"]).ok();
        assert_eq!(read, "sent by the user\n");
        let back = cluster.manifest("back.txt", "");
        cluster.tool(tool, &["cp", "counter:/tmp/sent.txt", &back]).ok();
        assert_eq!(std::fs::read_to_string(&back).unwrap(), "sent by the user\n");

        let mut forwarding = cluster.tool_command(tool, &["port-forward", "deployment/web", "18080:80"]);
        let mut forwarding = forwarding.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let answer = eventually(15, "the forwarded port answers", || {
            let answer =
                cluster.server().machine.inside(&["curl", "-s", "-m", "2", "http://127.0.0.1:18080/"]);
            if answer.success && answer.stdout.starts_with("web v1 on") {
                Ok(answer.stdout)
            } else {
                Err(answer.all())
            }
        });
        forwarding.kill().unwrap();
        forwarding.wait().unwrap();
        assert!(answer.contains("web-"), "{answer}");
    }
    cluster.finish();
}

#[test]
fn scaling_goes_up_and_down_and_what_is_killed_comes_back() {
    let cluster = web_cluster();
    cluster.ctl(&["scale", "deployment/web", "--replicas=5"]).ok();
    cluster.wait_pods_ready("app=web", 5, 30);
    cluster.kubectl(&["scale", "deployment/web", "--replicas=2"]).ok();
    let pods = cluster.wait_pods_ready("app=web", 2, 30);

    let victim = pods[0]["metadata"]["name"].as_str().unwrap();
    // The container's first process is sent what no process survives, from outside.
    cluster.ctl(&["exec", victim, "--", "sh", "-c", "kill -QUIT 1"]).ok();
    eventually(30, "the container is started again", || {
        let pod = cluster.get(&["pod", victim])?;
        let status = &pod["status"]["containerStatuses"][0];
        if status["restartCount"] == 1 && status["ready"] == true { Ok(()) } else { Err(status.to_string()) }
    });
    cluster.ctl(&["delete", "pod", victim]).ok();
    let names = cluster.wait_pods_ready("app=web", 2, 30);
    assert!(names.iter().all(|pod| pod["metadata"]["name"] != victim));
    cluster.finish();
}

#[test]
fn a_node_port_answers_everywhere_and_names_resolve() {
    let cluster = web_cluster();
    cluster.load_images(&["busybox:latest"]);
    for (tool, name) in [(Tool::Ctl, "public-a"), (Tool::Kubectl, "public-b")] {
        let name_flag = format!("--name={name}");
        cluster.tool(tool, &["expose", "deployment/web", &name_flag, "--type=NodePort", "--port=80"]).ok();
        let service = cluster.get(&["service", name]).unwrap();
        let port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
        let outside = cluster.outside_host();
        let public = format!("http://{}:{port}/", cluster.server().machine.address());
        let local = format!("http://127.0.0.1:{port}/");
        let mut answered = std::collections::BTreeSet::new();
        for _ in 0..40 {
            for (machine, url) in [(&outside, &public), (&cluster.server().machine, &local)] {
                let answer = eventually(10, "the node port answers", || {
                    let answer = machine.inside(&["curl", "-s", "-m", "2", url]);
                    if answer.success { Ok(answer.stdout) } else { Err(answer.all()) }
                });
                answered.insert(answer);
            }
        }
        assert_eq!(answered.len(), 3, "spread over all pods: {answered:?}");
    }
    let pod = cluster.manifest(
        "client.yml",
        concat!(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: client}\nspec:\n  containers:\n  - name: main\n",
            "    image: busybox:latest\n    imagePullPolicy: IfNotPresent\n    command: [sleep, '3600']\n",
        ),
    );
    cluster.ctl(&["apply", "-f", &pod]).ok();
    cluster.ctl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=30s"]).ok();
    for host in ["web", "web.default", "web.default.svc.cluster.local"] {
        let url = format!("http://{host}/");
        let answer =
            cluster.ctl(&["exec", "client", "--", "timeout", "5", "wget", "-q", "-O", "-", &url]).ok();
        assert!(answer.starts_with("web v1 on"), "{answer}");
    }
    cluster.finish();
}

#[test]
fn a_new_version_rolls_out_and_back_without_one_failed_request() {
    let cluster = web_cluster();
    cluster.ctl(&["expose", "deployment/web", "--name=public", "--type=NodePort", "--port=80"]).ok();
    let service = cluster.get(&["service", "public"]).unwrap();
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    let url = format!("http://{}:{port}/", cluster.server().machine.address());
    eventually(10, "the node port answers", || {
        let answer = cluster.server().machine.inside(&["curl", "-s", "-m", "2", &url]);
        if answer.success { Ok(()) } else { Err(answer.all()) }
    });
    // A new connection per request, until the file is gone; every failure is a line.
    let going = cluster.manifest("going", "");
    let script = format!(
        "n=0; while [ -e {going} ]; do curl -s -m 5 -o /dev/null {url} || echo failed $?; n=$((n+1)); done; echo done $n"
    );
    let outside = cluster.outside_host();
    let load = outside.command(&["sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    cluster.kubectl(&["set", "image", "deployment/web", "web=web:v2"]).ok();
    let status = cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]).ok();
    assert!(status.contains("successfully rolled out"), "{status}");
    let answer = cluster.server().machine.inside(&["curl", "-s", &url]).ok();
    assert!(answer.starts_with("web v2"), "{answer}");
    for tool in Tool::all() {
        let history = cluster.tool(tool, &["rollout", "history", "deployment/web"]).ok();
        assert!(history.contains('1') && history.contains('2'), "{history}");
    }
    cluster.ctl(&["rollout", "undo", "deployment/web"]).ok();
    cluster.ctl(&["rollout", "status", "deployment/web", "--timeout=90s"]).ok();
    std::thread::sleep(Duration::from_secs(1));
    std::fs::remove_file(&going).unwrap();
    let said = String::from_utf8(load.wait_with_output().unwrap().stdout).unwrap();
    assert!(!said.contains("failed"), "{said}");
    let requests: u32 = said.trim().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(requests > 100, "too few requests to mean anything: {said}");
    let answer = cluster.server().machine.inside(&["curl", "-s", &url]).ok();
    assert!(answer.starts_with("web v1"), "{answer}");

    // A version that cannot be had leaves the old pods serving, and the status says why.
    cluster.ctl(&["set", "image", "deployment/web", "web=127.0.0.1:1/web:v3"]).ok();
    let why = cluster.ctl(&["rollout", "status", "deployment/web", "--timeout=10s"]).refused();
    assert!(why.contains("127.0.0.1:1/web:v3") && why.contains("Image"), "{why}");
    let answer = cluster.server().machine.inside(&["curl", "-s", &url]).ok();
    assert!(answer.starts_with("web v1"), "{answer}");
    cluster.kubectl(&["rollout", "undo", "deployment/web"]).ok();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    cluster.finish();
}

#[test]
fn labels_place_pods_and_selectors_find_them() {
    let mut cluster = Cluster::start();
    cluster.join(NodeOptions::default());
    cluster.load_images(&["busybox:latest"]);
    cluster.ctl(&["label", "node", "n2", "disk=ssd"]).ok();
    let pod = |name: &str, labels: &str, selector: &str| {
        format!(
            concat!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {}, labels: {}}}\nspec:\n  nodeSelector: {}\n",
                "  terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: main, image: 'busybox:latest', ",
                "imagePullPolicy: IfNotPresent, command: [sleep, '3600']}}\n---\n",
            ),
            name, labels, selector
        )
    };
    let manifest = [
        pod("a", "{tier: front, env: dev}", "{disk: ssd}"),
        pod("b", "{tier: back, env: prod}", "{}"),
        pod("c", "{tier: back, env: test}", "{disk: tape}"),
    ];
    let manifest = cluster.manifest("pods.yml", &manifest.concat());
    cluster.ctl(&["apply", "-f", &manifest]).ok();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/a", "pod/b", "--timeout=40s"]).ok();
    assert_eq!(cluster.get(&["pod", "a"]).unwrap()["spec"]["nodeName"], "n2");
    let waiting = cluster.kubectl(&["describe", "pod", "c"]).ok();
    assert!(waiting.contains("FailedScheduling") && waiting.contains("0/2 nodes are available"), "{waiting}");
    for (selector, expected) in [
        ("tier=back", "b c"),
        ("tier!=back", "a"),
        ("env in (dev,prod)", "a b"),
        ("env notin (dev)", "b c"),
        ("tier", "a b c"),
        ("!tier", ""),
        ("tier=back,env=test", "c"),
    ] {
        for tool in Tool::all() {
            let found = cluster.tool(tool, &["get", "pods", "-l", selector, "-o", "name"]).ok();
            let names: Vec<&str> = found.lines().map(|line| line.trim_start_matches("pod/")).collect();
            assert_eq!(names.join(" "), expected, "{tool:?} -l {selector}");
        }
    }
    cluster.finish();
}

#[test]
fn containers_of_a_pod_share_and_probes_act() {
    let cluster = Cluster::start();
    cluster.load_images(&["busybox:latest"]);
    let manifest = cluster.manifest("tools.yml", TOOLS);
    cluster.ctl(&["apply", "-f", &manifest]).ok();
    cluster.ctl(&["wait", "--for=condition=Ready", "pod/pair", "--timeout=40s"]).ok();
    let exec = |command: &[&str]| {
        let mut words = vec!["exec", "pair", "-c", "writer", "--"];
        words.extend(command);
        cluster.ctl(&words).ok()
    };
    assert!(!exec(&["wget", "-q", "-O", "-", "http://127.0.0.1:8080/now"]).is_empty());
    assert_eq!(exec(&["cat", "/settings/text"]), "hello from a config map");
    assert_eq!(exec(&["sh", "-c", "echo $PASSWORD"]).trim(), "swordfish");

    let probes = cluster.manifest("probes.yml", concat!(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: probed}\nspec:\n  terminationGracePeriodSeconds: 0\n  volumes:\n",
        "  - {name: host, hostPath: {path: /etc, type: Directory}}\n  containers:\n  - name: main\n",
        "    image: busybox:latest\n    imagePullPolicy: IfNotPresent\n",
        "    command: [sh, -c, 'touch /tmp/alive; httpd -f -p 80 -h /tmp']\n",
        "    volumeMounts: [{name: host, mountPath: /host, readOnly: true}]\n",
        "    startupProbe: {tcpSocket: {port: 80}, periodSeconds: 1}\n",
        "    livenessProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 1, failureThreshold: 1}\n",
        "    readinessProbe: {httpGet: {path: /ready, port: 80}, periodSeconds: 1, failureThreshold: 1}\n",
    ));
    cluster.kubectl(&["apply", "-f", &probes]).ok();
    let status = || cluster.get(&["pod", "probed"]).map(|pod| pod["status"]["containerStatuses"][0].clone());
    eventually(30, "started but not ready", || match status()? {
        status if status["started"] == true && status["ready"] == false => Ok(()),
        status => Err(status.to_string()),
    });
    cluster.ctl(&["exec", "probed", "--", "touch", "/tmp/ready"]).ok();
    eventually(15, "ready", || match status()? {
        status if status["ready"] == true => Ok(()),
        status => Err(status.to_string()),
    });
    assert!(cluster.ctl(&["exec", "probed", "--", "cat", "/host/hostname"]).success);
    cluster.ctl(&["exec", "probed", "--", "rm", "/tmp/alive"]).ok();
    eventually(30, "started again by the liveness probe", || match status()? {
        status if status["restartCount"].as_u64() >= Some(1) => Ok(()),
        status => Err(status.to_string()),
    });
    cluster.finish();
}

#[test]
fn redis_answers_through_a_node_port_and_sixty_containers_run_on_two_nodes() {
    let mut cluster = Cluster::start();
    cluster.join(NodeOptions::default());
    cluster.load_images(&["redis:latest", "nginx:latest"]);
    let manifest = cluster.manifest("redis.yml", REDIS);
    cluster.ctl(&["apply", "-f", &manifest]).ok();
    cluster.ctl(&["rollout", "status", "deployment/redis", "--timeout=60s"]).ok();
    let outside = cluster.outside_host();
    for node in &cluster.nodes {
        let client = |words: &[&str]| {
            let mut command = vec!["redis-cli", "-h", node.machine.address(), "-p", "30379"];
            command.extend(words);
            outside.inside(&command)
        };
        eventually(10, "redis answers", || {
            let answer = client(&["set", "key", "value"]);
            if answer.stdout.trim() == "OK" { Ok(()) } else { Err(answer.all()) }
        });
        assert_eq!(client(&["get", "key"]).ok().trim(), "value");
    }
    cluster.ctl(&["scale", "deployment/redis", "--replicas=30"]).ok();
    let pods = cluster.wait_pods_ready("app=redis", 30, 120);
    spread_over_both(&pods);
    cluster.ctl(&["delete", "deployment", "redis"]).ok();

    let pairs = cluster.manifest("pairs.yml", concat!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: pairs}\nspec:\n  replicas: 30\n",
        "  selector: {matchLabels: {app: pairs}}\n  template:\n    metadata: {labels: {app: pairs}}\n    spec:\n",
        "      containers:\n      - {name: redis, image: 'redis:latest', imagePullPolicy: IfNotPresent}\n",
        "      - {name: nginx, image: 'nginx:latest', imagePullPolicy: IfNotPresent}\n",
    ));
    cluster.ctl(&["apply", "-f", &pairs]).ok();
    let pods = cluster.wait_pods_ready("app=pairs", 30, 180);
    spread_over_both(&pods);
    let ready: usize = pods
        .iter()
        .flat_map(|pod| pod["status"]["containerStatuses"].as_array().unwrap())
        .filter(|status| status["ready"] == true)
        .count();
    assert_eq!(ready, 60);
    cluster.finish();
}

fn spread_over_both(pods: &[Value]) {
    for node in ["n1", "n2"] {
        let here = pods.iter().filter(|pod| pod["spec"]["nodeName"] == node).count();
        assert!(here >= 10, "{here} pods on {node}");
    }
}

#[test]
fn a_second_node_joins_pods_reach_each_other_and_a_dead_node_is_replaced() {
    let options = || NodeOptions { arguments: vec!["--node-monitor-grace-seconds=4".into()] };
    let mut cluster = Cluster::start_with(options());
    cluster.join(NodeOptions::default());
    cluster.load_images(&["web:v1", "busybox:latest"]);
    let impatient = WEB.replace(
        "    spec:\n      containers:",
        concat!(
            "    spec:\n      tolerations:\n",
            "      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}\n",
            "      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}\n",
            "      containers:",
        ),
    );
    let manifest = cluster.manifest("web.yml", &impatient);
    cluster.ctl(&["apply", "-f", &manifest]).ok();
    cluster.ctl(&["scale", "deployment/web", "--replicas=4"]).ok();
    let pods = cluster.wait_pods_ready("app=web", 4, 60);
    let nodes: std::collections::BTreeSet<&str> =
        pods.iter().map(|pod| pod["spec"]["nodeName"].as_str().unwrap()).collect();
    assert_eq!(nodes.len(), 2);
    for node in ["n1", "n2"] {
        let client = format!("client-{node}");
        let pod = cluster.manifest("client.yml", &format!(concat!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {}}}\nspec:\n  nodeName: {}\n  terminationGracePeriodSeconds: 0\n",
            "  containers:\n  - {{name: main, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sleep, '3600']}}\n",
        ), client, node));
        cluster.ctl(&["apply", "-f", &pod]).ok();
        cluster.ctl(&["wait", "--for=condition=Ready", &format!("pod/{client}"), "--timeout=30s"]).ok();
        let addresses = pods.iter().map(|pod| pod["status"]["podIP"].as_str().unwrap().to_string());
        for host in addresses.chain(["web".to_string()]) {
            let url = format!("http://{host}/");
            let answer = cluster.ctl(&["exec", &client, "--", "timeout", "5", "wget", "-q", "-O", "-", &url]);
            assert!(answer.stdout.starts_with("web v1"), "{client} to {host}: {}", answer.all());
        }
    }
    cluster.nodes[1].machine.unplug();
    eventually(60, "the dead node is NotReady", || {
        let node = cluster.get(&["node", "n2"])?;
        let ready = node["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["type"] == "Ready")
            .unwrap()
            .clone();
        if ready["status"] == "Unknown" { Ok(()) } else { Err(ready.to_string()) }
    });
    eventually(60, "its pods are replaced", || {
        let pods = cluster.get(&["pods", "-l", "app=web", "--field-selector", "spec.nodeName=n1"])?;
        let ready = pods["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|pod| tests::condition(pod, "Ready") == "True")
            .count();
        if ready == 4 { Ok(()) } else { Err(format!("{ready} ready on n1")) }
    });
    cluster.finish();
}

#[test]
fn a_drained_node_is_empty_and_takes_nothing_new() {
    let mut cluster = Cluster::start();
    cluster.join(NodeOptions::default());
    cluster.load_images(&["web:v1"]);
    let manifest = cluster.manifest("web.yml", WEB);
    cluster.ctl(&["apply", "-f", &manifest]).ok();
    cluster.wait_pods_ready("app=web", 3, 60);
    for tool in Tool::all() {
        cluster.tool(tool, &["drain", "n2", "--ignore-daemonsets", "--timeout=60s"]).ok();
        let pods = cluster.wait_pods_ready("app=web", 3, 60);
        assert!(pods.iter().all(|pod| pod["spec"]["nodeName"] == "n1"), "{pods:?}");
        let nodes = cluster.tool(tool, &["get", "nodes"]).ok();
        assert!(nodes.contains("SchedulingDisabled"), "{nodes}");
        cluster.tool(tool, &["uncordon", "n2"]).ok();
    }
    cluster.finish();
}

#[test]
fn jobs_run_once_in_sequence_in_parallel_and_on_schedule() {
    let cluster = Cluster::start();
    cluster.load_images(&["busybox:latest"]);
    let job = |name: &str, spec: &str| {
        format!(
            concat!(
                "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {}}}\nspec:\n  {}\n  template:\n    spec:\n      restartPolicy: Never\n",
                "      containers:\n      - {{name: main, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sh, -c, 'sleep 1; echo finished']}}\n---\n",
            ),
            name, spec
        )
    };
    let manifest = [
        job("once", "backoffLimit: 1"),
        job("in-sequence", "completions: 3"),
        job("in-parallel", "{completions: 4, parallelism: 4}")
            .replace("  {completions: 4, parallelism: 4}\n", "  completions: 4\n  parallelism: 4\n"),
    ];
    let manifest = cluster.manifest("jobs.yml", &manifest.concat());
    let begun = Instant::now();
    cluster.ctl(&["apply", "-f", &manifest]).ok();
    for name in ["once", "in-sequence", "in-parallel"] {
        cluster.kubectl(&["wait", "--for=condition=Complete", &format!("job/{name}"), "--timeout=60s"]).ok();
    }
    assert!(begun.elapsed() > Duration::from_secs(3), "three in sequence take three seconds at least");
    let logs = cluster.ctl(&["logs", "job/once"]).ok();
    assert_eq!(logs, "finished\n");
    let cron = cluster.manifest("cron.yml", concat!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: tick}\nspec:\n  schedule: '* * * * *'\n  jobTemplate:\n    spec:\n      template:\n        spec:\n",
        "          restartPolicy: OnFailure\n          containers:\n          - {name: main, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [date]}\n",
    ));
    cluster.ctl(&["apply", "-f", &cron]).ok();
    eventually(90, "the schedule made a job that completed", || {
        let jobs = cluster.get(&["jobs"])?;
        let done = jobs["items"].as_array().unwrap().iter().any(|job| {
            job["metadata"]["name"].as_str().unwrap().starts_with("tick-") && job["status"]["succeeded"] == 1
        });
        if done { Ok(()) } else { Err(jobs["items"].to_string()) }
    });
    cluster.finish();
}

#[test]
fn killed_agents_and_servers_lose_nothing_and_start_nothing_twice() {
    let mut cluster = Cluster::start();
    cluster.join(NodeOptions::default());
    cluster.load_images(&["web:v1"]);
    let manifest = cluster.manifest("web.yml", WEB);
    cluster.ctl(&["apply", "-f", &manifest]).ok();
    let before = identities(&cluster.wait_pods_ready("app=web", 3, 60));
    cluster.nodes[1].kill();
    cluster.nodes[1].spawn();
    cluster.nodes[0].kill();
    cluster.nodes[0].spawn();
    eventually(30, "the server answers again", || {
        let answer = cluster.ctl(&["create", "configmap", "acknowledged"]);
        if answer.success { Ok(()) } else { Err(answer.all()) }
    });
    cluster.nodes[0].kill();
    cluster.nodes[0].spawn();
    eventually(30, "what was acknowledged is there", || {
        cluster.get(&["configmap", "acknowledged"]).map(|_| ())
    });
    let after = identities(&cluster.wait_pods_ready("app=web", 3, 60));
    assert_eq!(before, after, "the same containers, started once");

    cluster.nodes[0].down();
    cluster.nodes[0].spawn();
    let pods = cluster.wait_pods_ready("app=web", 3, 60);
    let uids = |pods: &[(String, String, u64)]| pods.iter().map(|(uid, ..)| uid.clone()).collect::<Vec<_>>();
    assert_eq!(uids(&identities(&pods)), uids(&before), "the same pods after down and up");
    cluster.finish();
}

fn identities(pods: &[Value]) -> Vec<(String, String, u64)> {
    let mut all: Vec<_> = pods
        .iter()
        .map(|pod| {
            let status = &pod["status"]["containerStatuses"][0];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
            (
                text(&pod["metadata"]["uid"]),
                text(&status["containerID"]),
                status["restartCount"].as_u64().unwrap_or(99),
            )
        })
        .collect();
    all.sort();
    all
}

#[test]
fn images_are_pulled_from_a_real_registry() {
    let insecure = format!("--insecure-registries={REGISTRY}");
    let cluster = Cluster::start_with(NodeOptions { arguments: vec![insecure] });
    let _registry = Registry::start(&cluster.server().machine, &["busybox:latest"]);
    let pod = |name: &str, volume: &str| {
        cluster.manifest(&format!("{name}.yml"), &format!(concat!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n",
        "  - name: main\n    image: '{registry}/busybox:latest'\n    imagePullPolicy: Always\n    command: [sleep, '3600']\n",
        "    volumeMounts:\n    - {{name: image, mountPath: /volume}}\n",
        "    - {{name: image, mountPath: /tools, subPath: bin}}\n",
        "  volumes: [{{name: image, image: {{reference: '{registry}/{volume}', pullPolicy: Always}}}}]\n",
    ), name = name, registry = REGISTRY, volume = volume))
    };
    cluster.ctl(&["apply", "-f", &pod("pulled", "busybox:latest")]).ok();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/pulled", "--timeout=40s"]).ok();
    let inside = |command: &str| cluster.ctl(&["exec", "pulled", "--", "sh", "-c", command]);
    assert_eq!(inside("cmp /volume/bin/busybox /tools/busybox && echo same").ok().trim(), "same");
    let refused = inside("touch /volume/x");
    assert!(!refused.success && refused.stderr.contains("Read-only file system"), "{}", refused.all());
    cluster.ctl(&["apply", "-f", &pod("missing", "none:latest")]).ok();
    eventually(40, "the missing image is told", || {
        let waiting =
            cluster.get(&["pod", "missing"])?["status"]["containerStatuses"][0]["state"]["waiting"].clone();
        let reason = waiting["reason"].as_str().unwrap_or_default();
        let is_told = ["ErrImagePull", "ImagePullBackOff"].contains(&reason)
            && waiting["message"].as_str().is_some_and(|message| message.contains("none"));
        if is_told { Ok(()) } else { Err(waiting.to_string()) }
    });
    let events = cluster.kubectl(&["get", "events", "-o", "name"]).ok();
    assert!(!events.is_empty());
    let described = cluster.kubectl(&["describe", "pod", "pulled"]).ok();
    assert!(described.contains("Successfully pulled image"), "{described}");
    cluster.finish();
}
