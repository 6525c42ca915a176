//! The life of an installation: up, down, uninstall; over another store and another runtime; rights from within.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use tests::{Cluster, Daemon, Lan, NodeOptions, Tool, eventually, gantry, image_archive};

const WEB: &str = include_str!("../../manifests/web.yml");

#[test]
fn up_tells_how_to_go_on_down_leaves_nothing_running_and_uninstall_no_file() {
    let lan = Lan::new();
    let machine = lan.machine(11);
    let directory = tempfile::Builder::new().prefix("gantry-test").tempdir().unwrap();
    let data_dir = directory.path().join("data").to_str().unwrap().to_string();
    let program = gantry();
    let gantry = |arguments: &[&str]| {
        let mut words = vec![program.to_str().unwrap()];
        words.extend(arguments);
        let at = ["--data-dir", &data_dir, "--node-name", "n1", "--node-ip", machine.address()];
        words.extend(at);
        machine.inside(&words)
    };
    let ctl = |arguments: &[&str]| {
        let kubeconfig = format!("--kubeconfig={data_dir}/admin.kubeconfig");
        let mut words = vec![program.to_str().unwrap(), "ctl", &kubeconfig];
        words.extend(arguments);
        machine.inside(&words)
    };
    let said = gantry(&["up"]).ok();
    assert!(
        said.contains("node n1 is Ready") && said.contains("ctl get nodes") && said.contains("KUBECONFIG="),
        "{said}"
    );
    let again = gantry(&["up"]).ok();
    assert!(again.contains("already running"), "{again}");
    ctl(&["image", "load", image_archive("web:v1").to_str().unwrap()]).ok();
    let manifest = directory.path().join("web.yml");
    std::fs::write(&manifest, WEB).unwrap();
    ctl(&["apply", "--wait", "-f", manifest.to_str().unwrap()]).ok();
    let names = ctl(&["get", "pods", "-o", "name"]).ok();

    let said = gantry(&["down"]).ok();
    assert!(said.contains("is down"), "{said}");
    eventually(5, "every process has ended", || {
        let left = tests::processes_naming(std::path::Path::new(&data_dir));
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    });
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&data_dir));
    assert!(gantry(&["down"]).success, "down twice is fine");

    gantry(&["up"]).ok();
    assert_eq!(ctl(&["get", "pods", "-o", "name"]).ok(), names, "the same pods");
    ctl(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    let said = gantry(&["uninstall", "--yes"]).ok();
    assert!(said.contains("is gone"), "{said}");
    assert!(!std::path::Path::new(&data_dir).exists());
    let links = machine.inside(&["ip", "-o", "link"]).ok();
    assert_eq!(links.lines().count(), 2, "loopback and the cable: {links}");
}

#[test]
fn the_demonstration_that_make_up_ends_with_runs_twice_and_loses_no_request() {
    let lan = Lan::new();
    let machine = lan.machine(11);
    let directory = tempfile::Builder::new().prefix("gantry-test").tempdir().unwrap();
    let data_dir = format!("--data-dir={}", directory.path().join("data").display());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/demo.sh");
    let program = gantry();
    let program = program.to_str().unwrap();
    let node_ip = format!("--node-ip={}", machine.address());
    let demonstrate = || {
        let flags = ["--node-name=n1", "--eviction-hard=memory.available<100Mi"];
        machine.inside(&[&[script, program, &data_dir, &node_ip], flags.as_slice()].concat())
    };
    let said = [demonstrate(), demonstrate()];
    machine.inside(&[program, "uninstall", "--yes", &data_dir]).ok();
    for said in said {
        assert!(said.success && said.stdout.contains(" requests, 0 failed"), "{}", said.all());
    }
}

#[test]
fn everything_runs_over_a_real_etcd_too() {
    let data = tempfile::tempdir().unwrap();
    let arguments = ["--store=etcd", "--etcd-endpoints=http://127.0.0.1:2379"].map(str::to_string).to_vec();
    let data_dir = data.path().to_str().unwrap().to_string();
    let mut etcd = None;
    let mut cluster = Cluster::start_after(NodeOptions { arguments }, |machine| {
        etcd = Some(Daemon::etcd(machine, &data_dir));
    });
    cluster.load_images(&["web:v1"]);
    let manifest = cluster.manifest("web.yml", WEB);
    cluster.kubectl(&["apply", "-f", &manifest]).ok();
    cluster.ctl(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    cluster.nodes[0].kill();
    cluster.nodes[0].spawn();
    cluster.wait_pods_ready("app=web", 3, 60);
    cluster.finish();
}

#[test]
fn pods_run_in_a_real_containerd_on_our_network() {
    let directory = tempfile::Builder::new().prefix("gantry-cd").tempdir().unwrap();
    let root = directory.path().to_str().unwrap().to_string();
    let socket = format!("{root}/containerd.sock");
    let config = format!(
        concat!(
            "version = 2\nroot = '{root}/root'\nstate = '{root}/state'\n[grpc]\naddress = '{root}/containerd.sock'\n",
            "[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'docker.io/library/pause:3.10'\n",
            "restrict_oom_score_adj = true\n[plugins.'io.containerd.grpc.v1.cri'.cni]\n",
            "bin_dir = '{root}/cni/bin'\nconf_dir = '{root}/cni/conf'\n",
        ),
        root = root
    );
    let config_path = format!("{root}/config.toml");
    std::fs::write(&config_path, config).unwrap();
    let arguments = vec![
        format!("--runtime-endpoint=unix://{socket}"),
        format!("--cni-bin-dir={root}/cni/bin"),
        format!("--cni-conf-dir={root}/cni/conf"),
    ];
    let mut containerd = None;
    let cluster = Cluster::start_after(NodeOptions { arguments }, |machine| {
        containerd = Some(Daemon::start(machine, &["containerd", "-c", &config_path]));
        for image in ["pause:3.10", "web:v1"] {
            let archive = image_archive(image);
            eventually(15, "containerd takes images", || {
                let words =
                    ["ctr", "-a", &socket, "-n", "k8s.io", "images", "import", archive.to_str().unwrap()];
                let answer = machine.inside(&words);
                if answer.success { Ok(()) } else { Err(answer.all()) }
            });
        }
    });
    let manifest = cluster.manifest("web.yml", WEB);
    cluster.ctl(&["apply", "-f", &manifest]).ok();
    cluster.wait_pods_ready("app=web", 3, 60);
    for tool in Tool::all() {
        let said =
            cluster.tool(tool, &["exec", "deploy/web", "--", "wget", "-q", "-O", "-", "http://web/"]).ok();
        assert!(said.starts_with("web v1 on web-"), "{tool:?}: {said}");
        let logs = cluster.tool(tool, &["logs", "deploy/web"]);
        assert!(logs.success, "{tool:?}: {}", logs.all());
    }
    // The runtime is not ours to stop; its pods are.
    cluster.ctl(&["delete", "-f", &manifest]).ok();
    eventually(30, "every pod is gone", || {
        let pods = cluster.get(&["pods"])?;
        if pods["items"].as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(pods.to_string()) }
    });
    cluster.finish();
}

#[test]
fn a_pod_asks_the_api_with_its_own_token_and_gets_only_what_its_role_grants() {
    let cluster = Cluster::start();
    cluster.load_images(&["web:v1"]);
    cluster.kubectl(&["create", "serviceaccount", "reader"]).ok();
    cluster.ctl(&["create", "role", "reader", "--verb=get,list", "--resource=configmaps"]).ok();
    cluster
        .ctl(&["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader"])
        .ok();
    let can = |verb: &str, what: &str| {
        cluster.kubectl(&["auth", "can-i", verb, what, "--as=system:serviceaccount:default:reader"]).success
    };
    assert!(can("list", "configmaps") && !can("list", "secrets") && !can("delete", "configmaps"));
    let pod = cluster.manifest(
        "pod.yml",
        concat!(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: asking}\nspec:\n  serviceAccountName: reader\n",
            "  containers:\n  - {name: main, image: 'web:v1', command: [sleep, '3600']}\n",
        ),
    );
    cluster.ctl(&["apply", "-f", &pod]).ok();
    cluster.ctl(&["wait", "--for=condition=Ready", "pod/asking", "--timeout=30s"]).ok();
    let directory = "/var/run/secrets/kubernetes.io/serviceaccount";
    let token = cluster.ctl(&["exec", "asking", "--", "cat", &format!("{directory}/token")]).ok();
    let authority = cluster.manifest(
        "ca.crt",
        &cluster.ctl(&["exec", "asking", "--", "cat", &format!("{directory}/ca.crt")]).ok(),
    );
    // From the node, through the service that every pod finds in its environment.
    let service =
        cluster.get(&["service", "kubernetes"]).unwrap()["spec"]["clusterIP"].as_str().unwrap().to_string();
    let ask = |path: &str, token: &str| {
        let header = format!("Authorization: Bearer {token}");
        let url = format!("https://{service}{path}");
        let words = [
            "curl",
            "-s",
            "--cacert",
            &authority,
            "-H",
            &header,
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &url,
        ];
        cluster.server().machine.inside(&words).stdout
    };
    assert_eq!(ask("/api/v1/namespaces/default/configmaps", &token), "200");
    assert_eq!(ask("/api/v1/namespaces/default/secrets", &token), "403");
    assert_eq!(ask("/api/v1/namespaces/default/configmaps", &format!("{token}x")), "401");
    cluster.ctl(&["delete", "pod", "asking", "--grace-period=0", "--force"]).ok();
    eventually(15, "the token ends with its pod", || {
        match ask("/api/v1/namespaces/default/configmaps", &token) {
            code if code == "401" => Ok(()),
            code => Err(code),
        }
    });
    cluster.finish();
}
