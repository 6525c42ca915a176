//! What a user gets wrong, and what the machine lacks: a clear message, upstream's code and reason, nothing lost.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::process::Command;

use tests::{Cluster, NodeOptions, Tool, eventually, gantry, run};

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {a: b}\n";

fn pod(name: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  containers:\n  - name: main\n{container}"
    )
}

#[test]
fn manifests_that_are_wrong_are_refused_with_file_line_and_field() {
    let cluster = Cluster::start_with(NodeOptions { arguments: vec!["--no-agent".into()] });
    let refused = |tool: Tool, name: &str, text: &str| {
        let manifest = cluster.manifest(name, text);
        cluster.tool(tool, &["apply", "-f", &manifest]).refused()
    };
    let good = cluster.manifest("good.yml", CONFIG_MAP);
    cluster.ctl(&["apply", "-f", &good]).ok();

    let said = refused(Tool::Ctl, "syntax.yml", &format!("{CONFIG_MAP}---\nkind: Pod\n   apiVersion: v1\n"));
    assert!(said.contains("syntax.yml:7") || said.contains("syntax.yml:6"), "{said}");

    let unknown = pod("p", "    image: x\n    imgePullPolicy: Always\n");
    let said = refused(Tool::Ctl, "unknown.yml", &unknown);
    assert!(said.contains("unknown.yml:9") && said.contains("imgePullPolicy"), "{said}");
    let said = refused(Tool::Kubectl, "unknown.yml", &unknown);
    assert!(said.contains("unknown field") && said.contains("imgePullPolicy"), "{said}");

    let said = refused(Tool::Kubectl, "duplicate.yml", &pod("p", "    image: x\n    image: y\n"));
    assert!(said.contains("image"), "{said}");
    let said = refused(Tool::Ctl, "duplicate.yml", &pod("p", "    image: x\n    image: y\n"));
    assert!(said.contains("duplicate.yml:9") && said.contains("image"), "{said}");

    let said =
        refused(Tool::Ctl, "kind.yml", "apiVersion: apps/v1beta1\nkind: Deployment\nmetadata: {name: a}\n");
    assert!(said.contains("kind.yml:1") && said.contains("served in apps/v1"), "{said}");
    let said = refused(
        Tool::Kubectl,
        "kind.yml",
        "apiVersion: apps/v1beta1\nkind: Deployment\nmetadata: {name: a}\n",
    );
    assert!(said.contains("no matches for kind \"Deployment\" in version \"apps/v1beta1\""), "{said}");

    let said = refused(Tool::Ctl, "name.yml", &pod("Not_A_Name", "    image: x\n"));
    assert!(
        said.contains("Invalid") && said.contains("metadata.name") && said.contains("name.yml:4"),
        "{said}"
    );
    let said = refused(Tool::Kubectl, "name.yml", &pod("Not_A_Name", "    image: x\n"));
    assert!(said.contains("a lowercase RFC 1123 subdomain must consist of"), "{said}");

    let said =
        refused(Tool::Ctl, "type.yml", &pod("p", "    image: x\n    ports: [{containerPort: many}]\n"));
    assert!(said.contains("containerPort"), "{said}");

    let said = cluster.ctl(&["get", "deploymnets"]).refused();
    assert!(said.contains("did you mean deployments"), "{said}");
    let said = cluster.kubectl(&["get", "configmap", "missing"]).refused();
    assert_eq!(said.trim(), "Error from server (NotFound): configmaps \"missing\" not found");

    // A write to an older version is refused, and neither it nor all the above lost anything.
    let mut stale = cluster.get(&["configmap", "kept"]).unwrap();
    cluster.ctl(&["label", "configmap", "kept", "seen=yes"]).ok();
    stale["data"]["a"] = "overwritten".into();
    let manifest = cluster.manifest("stale.json", &stale.to_string());
    let said = cluster.kubectl(&["replace", "-f", &manifest]).refused();
    assert!(said.contains("(Conflict)") && said.contains("the object has been modified"), "{said}");
    assert_eq!(cluster.get(&["configmap", "kept"]).unwrap()["data"]["a"], "b");
    cluster.finish();
}

#[test]
fn pods_that_cannot_run_say_why() {
    let cluster = Cluster::start();
    cluster.load_images(&["busybox:latest"]);
    let describe = |name: &str, expected: &[&str]| {
        eventually(30, "the pod says why", || {
            let said = cluster.kubectl(&["describe", "pod", name]).all();
            if expected.iter().all(|word| said.contains(word)) { Ok(()) } else { Err(said) }
        });
    };
    let apply = |name: &str, container: &str| {
        let manifest = cluster.manifest(&format!("{name}.yml"), &pod(name, container));
        cluster.ctl(&["apply", "-f", &manifest]).ok();
    };
    apply("unpullable", "    image: 127.0.0.1:1/missing:v1\n");
    describe("unpullable", &["ErrImagePull", "127.0.0.1:1/missing:v1"]);
    apply(
        "no-key",
        concat!(
            "    image: busybox:latest\n    imagePullPolicy: Never\n",
            "    env: [{name: A, valueFrom: {configMapKeyRef: {name: nowhere, key: k}}}]\n",
        ),
    );
    describe("no-key", &["CreateContainerConfigError", "configmap \"nowhere\" not found"]);
    apply("too-big", "    image: busybox:latest\n    resources: {requests: {cpu: '4000'}}\n");
    describe("too-big", &["FailedScheduling", "Insufficient cpu"]);
    apply(
        "crashing",
        "    image: busybox:latest\n    imagePullPolicy: Never\n    command: [sh, -c, 'echo oh no; exit 7']\n",
    );
    describe("crashing", &["CrashLoopBackOff", "Exit Code:    7"]);
    let said = cluster.ctl(&["logs", "crashing", "--previous"]).ok();
    assert_eq!(said, "oh no\n");
    cluster.finish();
}

#[test]
fn a_machine_that_cannot_serve_says_what_to_do() {
    let cluster = Cluster::start_with(NodeOptions { arguments: vec!["--no-agent".into()] });
    let server = cluster.server();
    let other = tempfile::tempdir().unwrap();
    let program = gantry();
    let start = |arguments: &[&str]| {
        let mut words = vec![program.to_str().unwrap(), "server", "--no-agent"];
        words.extend(arguments);
        server.machine.inside(&words).refused()
    };
    let data_dir = server.data_dir().to_str().unwrap();
    let said = start(&["--data-dir", data_dir, "--secure-port", "7443"]);
    assert!(said.contains(data_dir) && said.contains("in use by process"), "{said}");
    let said = start(&["--data-dir", other.path().to_str().unwrap()]);
    assert!(
        said.contains("port 6443 is in use by")
            && said.contains(&format!("{} (process", program.file_name().unwrap().display()))
            && said.contains("--secure-port"),
        "{said}"
    );
    let said = start(&["--data-dir", other.path().to_str().unwrap(), "--pod-cidr", "10.96.0.0/12"]);
    assert!(said.contains("overlap"), "{said}");

    // As nobody, from a copy that nobody may run.
    let copy = other.path().join("gantry");
    std::fs::copy(&program, &copy).unwrap();
    run(Command::new("chmod").args(["-R", "a+rx", other.path().to_str().unwrap()])).ok();
    let said = run(Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .args(["up", "--data-dir", "/tmp/gantry-nobody"]))
    .refused();
    assert!(said.contains("needs root"), "{said}");

    // A kernel without overlayfs, as /proc/filesystems tells it.
    let filesystems = other.path().join("filesystems");
    std::fs::write(&filesystems, "nodev\tcgroup\n").unwrap();
    let script = format!(
        "mount --bind {} /proc/filesystems && exec {} server --data-dir {}/none",
        filesystems.display(),
        program.display(),
        other.path().display()
    );
    let said = run(Command::new("unshare").args(["--mount", "sh", "-c", &script])).refused();
    assert!(said.contains("no overlay") && said.contains("modprobe overlay"), "{said}");
    cluster.finish();
}
