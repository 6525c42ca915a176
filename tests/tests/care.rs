//! The care of the data, as an administrator does it: copies while the server runs, moves between stores, the way back.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use jiff::Timestamp;
use pki::{Authority, Leaf, Usage};
use serde_json::Value;
use tests::{Cluster, Daemon, Machine, NodeOptions, eventually, gantry};

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

/// Writes an authority's certificate and what it issues, for a server on loopback and for a client, as `NAME-….pem`.
fn issue(directory: &Path, name: &str) {
    let now = Timestamp::now();
    let authority = Authority::create(name, now).unwrap();
    let addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let server = Leaf { addresses, usage: Usage::Server, ..Leaf::client("etcd", None) };
    let write = |what: &str, text: &str| {
        std::fs::write(directory.join(format!("{name}-{what}.pem")), text).unwrap();
    };
    write("ca", authority.certificate_pem());
    for (what, leaf) in [("server", server), ("client", Leaf::client("gantry", None))] {
        let issued = authority.issue(&leaf, now).unwrap();
        write(what, &issued.certificate_pem);
        write(&format!("{what}-key"), &issued.key_pem);
    }
}

/// Starts an etcd at port 2479 that asks for users, of whom `gantry`, whose password is `hunter2`, has the default prefix.
fn etcd_with_users(machine: &Machine, data_dir: &str) -> Daemon {
    let url = "http://127.0.0.1:2479";
    let flags = ["--listen-client-urls", url, "--advertise-client-urls", url];
    let peer =
        ["--listen-peer-urls=http://127.0.0.1:2480", "--initial-cluster=default=http://127.0.0.1:2480"];
    let advertised = ["--initial-advertise-peer-urls=http://127.0.0.1:2480"];
    let flags = [&flags[..], &peer, &advertised].concat();
    let etcd = Daemon::etcd_with(machine, data_dir, &flags, &[&format!("{url}/health")]);
    for (path, body) in [
        ("user/add", r#"{"name": "root", "password": "toor"}"#),
        ("user/grant", r#"{"user": "root", "role": "root"}"#),
        ("user/add", r#"{"name": "gantry", "password": "hunter2"}"#),
        ("role/add", r#"{"name": "keeper"}"#),
        // From /gantry to /gantrz.
        (
            "role/grant",
            r#"{"name": "keeper", "perm": {"permType": "READWRITE", "key": "L2dhbnRyeQ==", "range_end": "L2dhbnRyeg=="}}"#,
        ),
        ("user/grant", r#"{"user": "gantry", "role": "keeper"}"#),
        ("enable", "{}"),
    ] {
        machine.inside(&["curl", "-sf", "-d", body, &format!("{url}/v3/auth/{path}")]).ok();
    }
    etcd
}

#[test]
fn an_etcd_that_asks_who_comes_is_served_and_what_it_refuses_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_string();
    issue(directory.path(), "ours");
    issue(directory.path(), "theirs");
    let pem = |name: &str| path(&format!("{name}.pem"));
    let (config, copy, password) = (path("gantry.yml"), path("copy"), path("password"));
    let over_tls = format!(
        "store: etcd\netcd-endpoints: [https://127.0.0.1:2379]\netcd-cafile: {}\netcd-certfile: {}\netcd-keyfile: {}\n",
        pem("ours-ca"),
        pem("ours-client"),
        pem("ours-client-key"),
    );
    std::fs::write(&config, over_tls).unwrap();
    let mut daemons = Vec::new();
    let arguments = ["--no-agent", "--config", &config].map(str::to_string).to_vec();
    let cluster = Cluster::start_after(NodeOptions { arguments }, |machine| {
        let (ca, cert, key) = (pem("ours-ca"), pem("ours-server"), pem("ours-server-key"));
        let url = "https://127.0.0.1:2379";
        let listen = ["--listen-client-urls", url, "--advertise-client-urls", url];
        let tls = ["--cert-file", &cert, "--key-file", &key, "--client-cert-auth", "--trusted-ca-file"];
        let flags = [&listen[..], &tls, &[ca.as_str()]].concat();
        let (cert, key) = (pem("ours-client"), pem("ours-client-key"));
        let health = ["--cacert", &ca, "--cert", &cert, "--key", &key, "https://127.0.0.1:2379/health"];
        daemons.push(Daemon::etcd_with(machine, &path("etcd"), &flags, &health));
        daemons.push(etcd_with_users(machine, &path("etcd-with-users")));
    });
    let mut server = Server { cluster, config: config.clone() };
    let manifest = server.cluster.manifest("objects.yml", OBJECTS);
    server.cluster.ctl(&["apply", "-f", &manifest]).ok();
    server.gantry(&["snapshot", "save", &copy, "--config", &config]).ok();

    // Another server does not get in, and says whose fault it is.
    let program = gantry();
    let try_start = |flags: &[(&str, &str)]| {
        let data_dir = path("another");
        let mut words = vec!["timeout", "60", program.to_str().unwrap(), "server", "--no-agent"];
        words.extend(["--data-dir", &data_dir, "--secure-port", "7443", "--store", "etcd"]);
        words.extend(flags.iter().flat_map(|(flag, value)| [*flag, *value]));
        server.cluster.server().machine.inside(&words).refused()
    };
    let (ca, cert, key) = (pem("ours-ca"), pem("ours-client"), pem("ours-client-key"));
    let (their_ca, their_cert, their_key) =
        (pem("theirs-ca"), pem("theirs-client"), pem("theirs-client-key"));
    let tls = |ca, cert, key| {
        try_start(&[
            ("--etcd-endpoints", "https://127.0.0.1:2379"),
            ("--etcd-cafile", ca),
            ("--etcd-certfile", cert),
            ("--etcd-keyfile", key),
        ])
    };
    std::fs::write(&password, "wrong\n").unwrap();
    for (said, blamed) in [
        (tls(&their_ca, &cert, &key), &their_ca),
        (tls(&ca, &their_cert, &their_key), &their_cert),
        (tls(&ca, &cert, &path("missing")), &path("missing")),
    ] {
        assert!(said.contains("https://127.0.0.1:2379") && said.contains(blamed), "{said}");
    }
    let user = [
        ("--etcd-endpoints", "http://127.0.0.1:2479"),
        ("--etcd-username", "gantry"),
        ("--etcd-password-file", &password),
    ];
    let said = try_start(&user);
    assert!(said.contains("http://127.0.0.1:2479") && said.contains(&password), "{said}");

    // Whom the machine trusts, if no file says so.
    let trusting = format!("SSL_CERT_FILE={ca}");
    let (again, there) = (path("again"), "etcds://127.0.0.1:2379");
    let words =
        ["env", &trusting, program.to_str().unwrap(), "store", "snapshot", "save", &again, "--from", there];
    let words = [&words[..], &["--etcd-certfile", &cert, "--etcd-keyfile", &key]].concat();
    let said = server.cluster.server().machine.inside(&words).ok();
    assert!(said.contains("saved"), "{said}");

    // The same cluster goes on in the other etcd, as a user.
    server.stop();
    std::fs::write(&password, "hunter2\n").unwrap();
    let to =
        ["--to", "etcd://127.0.0.1:2479", "--etcd-username", "gantry", "--etcd-password-file", &password];
    server.gantry(&[&["snapshot", "restore", &copy][..], &to].concat()).ok();
    server.start(&format!(
        "store: etcd\netcd-endpoints: [http://127.0.0.1:2479]\netcd-username: gantry\netcd-password-file: {password}\n"
    ));
    assert_eq!(server.state(), "first");
    server.set_state("second");
    assert_eq!(server.state(), "second");
    server.cluster.finish();
}
