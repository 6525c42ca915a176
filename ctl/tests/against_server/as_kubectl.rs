//! The same question to ctl and to kubectl.

use crate::cluster::{Cluster, Tool};
use crate::verbs::WEB;

const MORE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: web, tier: front}, annotations: {note: "on"}}
spec:
  containers:
  - {name: c, image: "nginx:1", ports: [{containerPort: 80}], resources: {requests: {cpu: 100m, memory: 64Mi}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, clusterIP: 10.96.0.50, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {a: "y", b: "010", c: "1e3", d: "two\nlines\n", e: "", f: "null", g: "2001-01-01", h: "a: b", i: " x", j: "- y", k: "{}", l: "it's"}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: np}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: a}}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]
    ports: [{port: 80}, {port: 8000, endPort: 8010, protocol: UDP}]
  - {}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}, nodeName: n1, targetRef: {kind: Pod, name: p, namespace: default}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: ["", apps], resources: [pods, deployments/scale], verbs: [get, list]}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 3 * * *"
  timeZone: Europe/Berlin
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: busybox}]}}}}
"#;

/// Without what depends on the moment or on how wide a column is.
fn settled(text: &str) -> Vec<Vec<String>> {
    let is_age = |word: &str| {
        let digits = word.trim_end_matches(['s', 'm', 'h', 'd']);
        digits.len() < word.len() && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    };
    let word = |word: &str| if is_age(word) { "AGE".to_string() } else { word.to_string() };
    text.lines().map(|line| line.split_whitespace().map(word).collect()).collect()
}

fn compare(cluster: &Cluster, kubectl: &Tool, words: &str, exactly: bool) {
    let theirs = cluster.run(kubectl, words, "");
    assert!(theirs.ok, "kubectl {words}: {theirs:?}");
    let ours = cluster.ctl(words);
    let same = if exactly { ours == theirs.out } else { settled(&ours) == settled(&theirs.out) };
    assert!(same, "{words}\n--- ctl\n{ours}\n--- kubectl\n{}", theirs.out);
}

#[test]
fn the_same_is_shown_in_every_form() {
    let cluster = Cluster::start();
    let Some(kubectl) = Tool::kubectl() else {
        eprintln!("not run: no kubectl of v1.30 or newer on this machine");
        return;
    };
    cluster.ctl_with("apply -f -", &format!("{WEB}---{MORE}"));
    cluster.write("columns", "NAME IMAGE\n.metadata.name .spec.containers[*].image\n");
    for words in [
        "get pods",
        "get pods -o wide",
        "get pods,services,deployments",
        "get deployment web -o wide",
        "get all -A",
        "get cronjobs",
        "get pods --show-labels -L tier",
        "get pod p --no-headers",
        "api-versions",
    ] {
        compare(&cluster, &kubectl, words, false);
    }
    for words in [
        "get deployment web -o json",
        "get deployment web -o yaml",
        "get configmap words -o yaml",
        "get pods -o yaml",
        "get cronjob nightly -o yaml",
        "get pods,services -o name",
        "get pods -o jsonpath={.items[*].metadata.name}",
        "get pods -o 'jsonpath={range .items[*]}{.metadata.name}{\"\\t\"}{.spec.containers[0].image}{\"\\n\"}{end}'",
        "get pods -o custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[*].image,NODE:.spec.nodeName",
        "get pods -o custom-columns-file=columns",
        "get services --sort-by=.metadata.name -o name",
        "auth can-i create pods",
        "config get-contexts -o name",
        "config current-context",
    ] {
        compare(&cluster, &kubectl, words, true);
    }
    for words in [
        "describe networkpolicy np",
        "describe endpointslice web-1",
        "describe role reader",
        "describe service web",
    ] {
        compare(&cluster, &kubectl, words, false);
    }
}
