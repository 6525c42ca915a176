//! The care of the data, as an administrator does it: copies while the server runs, moves between stores, the way back.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::Value;
use tests::{Cluster, Daemon, NodeOptions, eventually, gantry};

const OBJECTS: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: kept}
data: {state: first}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden}
stringData: {password: hunter2}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web:v1}]}
";
const IN_ETCD: &str = "store: etcd\netcd-endpoints: [http://127.0.0.1:2379]\n";
const ETCD: &str = "etcd://127.0.0.1:2379";

/// A server that takes its store from a file, and what is remembered of it.
struct Server {
    cluster: Cluster,
    config: String,
}

impl Server {
    fn gantry(&self, arguments: &[&str]) -> tests::Output {
        self.cluster.server().gantry(&[&["store"][..], arguments].concat())
    }

    fn stop(&mut self) {
        self.cluster.nodes[0].terminate();
    }

    /// Starts the server over the store that the configuration names.
    fn start(&mut self, config: &str) {
        std::fs::write(&self.config, config).unwrap();
        self.cluster.nodes[0].spawn();
        eventually(60, "the API server answers", || self.cluster.get(&["namespace", "default"]).map(|_| ()));
    }

    /// Puts the server's store out of the way, as a cautious administrator does before another takes its place.
    fn move_store_aside(&self, name: &str) {
        let data_dir = self.cluster.server().data_dir();
        std::fs::rename(data_dir.join("store"), data_dir.join(name)).unwrap();
    }

    fn state(&self) -> String {
        let object = self.cluster.get(&["configmap", "kept"]).unwrap();
        object["data"]["state"].as_str().unwrap().to_string()
    }

    fn set_state(&self, state: &str) {
        let patch = format!("{{\"data\":{{\"state\":\"{state}\"}}}}");
        self.cluster.ctl(&["patch", "configmap", "kept", "-p", &patch]).ok();
    }

    /// The revision of the newest list, and of our objects without it.
    fn look(&self) -> (u64, Vec<(u64, Value)>) {
        let raw = self.cluster.ctl(&["get", "--raw", "/api/v1/configmaps"]).ok();
        let list: Value = serde_json::from_str(&raw).unwrap();
        let objects = ["configmap/kept", "secret/hidden", "deployment/web"].map(|name| {
            let mut object = self.cluster.get(&[name]).unwrap();
            (revision(&object["metadata"]["resourceVersion"].take()), object)
        });
        (revision(&list["metadata"]["resourceVersion"]), objects.into())
    }

    /// Whoever watched the server before must be told to list again.
    fn check_old_watches_end(&self, since: u64) {
        let path = format!("/api/v1/configmaps?watch=1&timeoutSeconds=5&resourceVersion={since}");
        let answer = self.cluster.ctl(&["get", "--raw", &path]).all();
        assert!(answer.contains("410") || answer.contains("Expired"), "{answer}");
    }
}

fn revision(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn a_cluster_outgrows_its_machine_and_comes_back_and_a_copy_saves_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_string();
    let (config, copy) = (path("gantry.yml"), path("copy"));
    std::fs::write(&config, "store: embedded\n").unwrap();
    let arguments = ["--no-agent", "--config", &config].map(str::to_string).to_vec();
    let mut etcd = None;
    let cluster = Cluster::start_after(NodeOptions { arguments }, |machine| {
        etcd = Some(Daemon::etcd(machine, &path("etcd")));
    });
    let mut server = Server { cluster, config };
    let manifest = server.cluster.manifest("objects.yml", OBJECTS);
    server.cluster.ctl(&["apply", "-f", &manifest]).ok();
    let data_dir = server.cluster.server().data_dir().to_str().unwrap().to_string();

    // A copy of a running server; what must not be done to one is refused.
    let said = server.gantry(&["snapshot", "save", &copy]).ok();
    assert!(said.contains("keys") && said.contains(&copy), "{said}");
    let program = gantry();
    let status = [program.to_str().unwrap(), "store", "snapshot", "status", &copy];
    let said = server.cluster.server().machine.inside(&status).ok();
    assert!(said.contains("is whole") && said.contains("core/configmaps"), "{said}");
    for refused in [&["verify"][..], &["migrate", "--to", ETCD]] {
        let said = server.gantry(refused).refused();
        assert!(said.contains("in use by gantry"), "{said}");
    }
    server.set_state("second");
    server.stop();
    let said = server.gantry(&["verify"]).ok();
    assert!(said.contains("is sound"), "{said}");
    server.start("store: embedded\n");
    let (known, before) = server.look();
    server.stop();

    // To etcd.
    let said = server.gantry(&["migrate", "--to", ETCD]).ok();
    assert!(said.contains("moved"), "{said}");
    let said = server.gantry(&["migrate", "--to", ETCD]).refused();
    assert!(said.contains("already holds keys"), "{said}");
    server.start(IN_ETCD);
    let (there, moved) = server.look();
    assert!(there > known, "{there} after {known}");
    for ((old, object), (new, same)) in before.iter().zip(&moved) {
        assert_eq!(object, same);
        assert!(new > old && *new > known, "{new} after {old}");
    }
    server.check_old_watches_end(known);
    server.set_state("third");
    server.stop();

    // And back.
    let said = server.gantry(&["migrate", "--from", ETCD, "--to", &data_dir]).refused();
    assert!(said.contains("is not empty"), "{said}");
    server.move_store_aside("store.old");
    server.gantry(&["migrate", "--from", ETCD, "--to", &data_dir]).ok();
    server.start("store: embedded\n");
    let (back, _) = server.look();
    assert!(back > there, "{back} after {there}");
    assert_eq!(server.state(), "third");
    server.check_old_watches_end(there);
    server.stop();

    // The copy brings back what was when it was made.
    server.move_store_aside("store.lost");
    let said = server.gantry(&["snapshot", "restore", &copy]).ok();
    assert!(said.contains("goes on at revision"), "{said}");
    server.start("store: embedded\n");
    assert_eq!(server.state(), "first");
    assert!(server.look().0 > back);
    server.check_old_watches_end(back);
    server.cluster.finish();
}
