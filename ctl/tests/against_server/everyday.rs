//! The everyday work of people at a command line: with ctl and with a real kubectl, over the embedded store and over a
//! real etcd. Both tools are held to the same words.

use pki::Leaf;
use testbed::Backend;

use crate::cluster::{Cluster, Said, Tool, eventually};
use crate::user::User;
use crate::verbs::{WEB, every_kind_that_create_knows, made_changed_and_deleted};

#[test]
fn ctl_does_its_everyday_work_over_the_embedded_store() {
    everyday(Tool::Ctl, Backend::Embedded);
}

#[test]
fn ctl_does_its_everyday_work_over_etcd() {
    everyday(Tool::Ctl, Backend::OwnEtcd);
}

#[test]
fn kubectl_does_its_everyday_work_over_the_embedded_store() {
    kubectl_over(Backend::Embedded);
}

#[test]
fn kubectl_does_its_everyday_work_over_etcd() {
    kubectl_over(Backend::OwnEtcd);
}

fn kubectl_over(backend: Backend) {
    match Tool::kubectl() {
        Some(kubectl) => everyday(kubectl, backend),
        None => eprintln!("not run: no kubectl of v1.30 or newer on this machine"),
    }
}

fn everyday(tool: Tool, backend: Backend) {
    let mut cluster = Cluster::alive(backend);
    let user = User { cluster: &cluster, tool: &tool };
    user.comes_to_say("get serviceaccount default -o name", "serviceaccount/default\n");
    client_side_apply(&user);
    server_side_apply(&user);
    differences(&user);
    every_output_form(&user);
    explanations(&user);
    waiting(&user);
    labels_and_annotations(&user);
    four_kinds_of_patch(&user);
    editing(&user);
    three_propagations(&user);
    rights_and_tokens(&user);
    certificates(&user);
    rollouts(&user);
    custom_kinds(&user);
    made_changed_and_deleted(&user);
    every_kind_that_create_knows(&user);
    a_watch_through_a_restart(&mut cluster, &tool);
}

fn map(name: &str, data: &str) -> String {
    format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{{data}}}}}")
}

fn client_side_apply(user: &User) {
    let apply = |data: &str| user.ok_with("apply -f -", &map("applied", data));
    assert_eq!(apply("a: one, b: two"), "configmap/applied created\n");
    assert_eq!(apply("a: one, b: two"), "configmap/applied unchanged\n");
    user.ok("patch configmap applied --type=merge -p '{\"data\":{\"theirs\":\"kept\"}}'");
    assert_eq!(apply("a: three"), "configmap/applied configured\n");
    assert_eq!(user.field("configmap applied", ".data"), r#"{"a":"three","theirs":"kept"}"#);
    if *user.tool != Tool::Ctl {
        // The server remembers what ctl applied.
        let last = user.ok("apply view-last-applied configmap applied -o json");
        assert!(last.contains(r#""a": "three""#) && !last.contains("theirs"), "{last}");
    }
    let two = format!("---\n{}\n---\n{}\n", map("applied", "a: four"), map("second", "b: two"));
    user.cluster.write("two.yaml", &two);
    let dry = "configmap/applied configured (server dry run)\nconfigmap/second created (server dry run)\n";
    user.says(&[
        ("apply -f two.yaml --dry-run=server", dry),
        ("apply -f two.yaml", "configmap/applied configured\nconfigmap/second created\n"),
        ("apply -f two.yaml", "configmap/applied unchanged\nconfigmap/second unchanged\n"),
    ]);
    let refused = user.fails("apply -f -", "{apiVersion: v1, kind: ConfigMap, metadata: {name: Not_A_Name}}");
    assert!(refused.contains("metadata.name: Invalid value: \"Not_A_Name\""), "{refused}");
}

fn server_side_apply(user: &User) {
    let apply = |flags: &str, data: &str| {
        user.cluster.run(user.tool, &format!("apply --server-side {flags} -f -"), &map("ssa", data))
    };
    let said = apply("--field-manager=first", "a: one, b: one");
    assert_eq!(said.out, "configmap/ssa serverside-applied\n", "{said:?}");
    let said = apply("--field-manager=second", "a: two, c: two");
    assert!(!said.ok, "{said:?}");
    assert!(said.err.contains("Apply failed with 1 conflict: conflict with \"first\": .data.a"), "{said:?}");
    let said = apply("--field-manager=second --force-conflicts", "a: two, c: two");
    assert_eq!(said.out, "configmap/ssa serverside-applied\n", "{said:?}");
    assert_eq!(user.field("configmap ssa", ".data"), r#"{"a":"two","b":"one","c":"two"}"#);
    // What a manager no longer names, and nobody else does, goes.
    let said = apply("--field-manager=first", "d: one");
    assert!(said.ok, "{said:?}");
    assert_eq!(user.field("configmap ssa", ".data"), r#"{"a":"two","c":"two","d":"one"}"#);
    let managers =
        user.ok("get configmap ssa --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}");
    assert!(["first second", "second first"].contains(&managers.as_str()), "{managers}");
}

fn differences(user: &User) {
    let same = map("applied", "a: four");
    assert_eq!(user.ok_with("diff -f -", &same), "");
    let said = user.fails("diff -f -", &map("applied", "a: five"));
    let changed = said.lines().filter(|line| line.starts_with(['+', '-']) && !line.contains('/'));
    assert_eq!(changed.collect::<Vec<_>>(), ["-  a: four", "+  a: five"], "{said}");
    assert_eq!(user.field("configmap applied", ".data.a"), "four");
}

fn every_output_form(user: &User) {
    user.cluster.write("path", "{.data.a}");
    user.cluster.write("columns", "NAME VALUE\n.metadata.name .data.a\n");
    user.ok_with("apply -f -", "{apiVersion: v1, kind: ConfigMap, metadata: {name: zoo, labels: {shown: yes-it-is}}, data: {a: bear}}");
    user.says(&[
        ("get configmap zoo -o name", "configmap/zoo\n"),
        ("get configmap zoo -o jsonpath={.data.a}", "bear"),
        ("get configmap zoo -o jsonpath-as-json={.data}", "[\n    {\n        \"a\": \"bear\"\n    }\n]\n"),
        ("get configmap zoo -o jsonpath-file=path", "bear"),
        ("get configmaps -l shown -o custom-columns=N:.metadata.name,V:.data.a", "N     V\nzoo   bear\n"),
        ("get configmaps -l shown -o custom-columns-file=columns", "NAME   VALUE\nzoo    bear\n"),
        ("get configmaps -l shown=no,shown!=yes -o name", ""),
        ("get configmaps -l 'shown in (yes-it-is, maybe)' -o name", "configmap/zoo\n"),
        ("get configmaps --field-selector metadata.name=zoo -o name", "configmap/zoo\n"),
        ("get configmap none --ignore-not-found", ""),
        ("get nodes --sort-by={.metadata.name} -o name", "node/hollow-0\nnode/hollow-1\n"),
        ("get namespace default -o jsonpath={.status.phase}", "Active"),
    ]);
    if *user.tool != Tool::Ctl {
        // ctl deliberately knows no Go templates.
        user.says(&[("get configmap zoo -o go-template={{.data.a}}", "bear")]);
    }
    user.shows("get configmap zoo", &["NAME DATA AGE zoo 1"]);
    user.shows("get configmap zoo --show-labels", &["NAME DATA AGE LABELS", "shown=yes-it-is"]);
    user.shows("get configmap zoo -L shown", &["NAME DATA AGE SHOWN", "yes-it-is"]);
    user.shows("get configmap zoo --show-kind --no-headers", &["configmap/zoo 1"]);
    user.shows("get nodes -o wide", &["NAME STATUS ROLES AGE VERSION INTERNAL-IP", "hollow-0 Ready <none>"]);
    user.shows(
        "get configmaps -A",
        &["NAMESPACE NAME DATA AGE", "default zoo 1", "kube-system kube-root-ca.crt 1"],
    );
    user.shows("get configmaps --chunk-size=1", &["applied 2", "second 1", "zoo 1"]);
    user.shows("get configmap,namespace", &["configmap/zoo 1", "namespace/default Active"]);
    user.shows("get configmap zoo -o yaml", &["apiVersion: v1 data: a: bear kind: ConfigMap metadata:"]);
    user.shows(
        "get configmap zoo -o json",
        &[r#"{ "apiVersion": "v1", "data": { "a": "bear" }, "kind": "ConfigMap","#],
    );
    user.shows("get --raw /api/v1/namespaces/default/configmaps/zoo", &[r#""a":"bear""#]);
    user.shows("describe configmap zoo", &["Name: zoo Namespace: default Labels: shown=yes-it-is", "bear"]);
    user.shows("describe node hollow-0", &["Name: hollow-0", "Allocatable:", "pods: 1k"]);
    let missing = user.fails("get configmap none", "");
    assert_eq!(missing, "Error from server (NotFound): configmaps \"none\" not found\n");
}

fn explanations(user: &User) {
    user.shows(
        "explain deployment.spec.strategy",
        &[
            "GROUP: apps KIND: Deployment VERSION: v1",
            "FIELD: strategy <DeploymentStrategy>",
            "rollingUpdate <RollingUpdateDeployment>",
        ],
    );
    user.shows("explain pod.spec.containers.image", &["FIELD: image <string>"]);
    user.shows(
        "explain configmap --recursive",
        &[
            "binaryData <map[string]string>",
            "ownerReferences <[]OwnerReference>",
            "blockOwnerDeletion <boolean>",
        ],
    );
    let names = user.ok("api-resources -o name");
    for name in [
        "configmaps",
        "deployments.apps",
        "leases.coordination.k8s.io",
        "customresourcedefinitions.apiextensions.k8s.io",
    ] {
        assert!(names.lines().any(|line| line == name), "{name} in {names}");
    }
    user.shows(
        "api-resources --api-group=apps --namespaced=true",
        &["NAME SHORTNAMES APIVERSION NAMESPACED KIND", "deployments deploy apps/v1 true Deployment"],
    );
    let versions = user.ok("api-versions");
    assert!(
        ["v1", "apps/v1", "batch/v1"].iter().all(|wanted| versions.lines().any(|line| line == *wanted)),
        "{versions}"
    );
    user.shows("version", &["Client Version:", "Server Version: v1.36"]);
    user.shows("cluster-info", &["Kubernetes control plane", "is running at", "https://127.0.0.1:"]);
}

fn waiting(user: &User) {
    user.ok_with("apply -f -", WEB);
    user.says(&[
        (
            "wait --for=condition=Available deployment/web --timeout=60s",
            "deployment.apps/web condition met\n",
        ),
        ("wait --for=jsonpath={.spec.replicas}=2 deployment/web", "deployment.apps/web condition met\n"),
        ("wait --for=jsonpath={.status.readyReplicas} deployment/web", "deployment.apps/web condition met\n"),
        ("wait --for=delete configmap/none --timeout=5s", ""),
        ("wait --for=create deployment/web -o name", "deployment.apps/web\n"),
        (
            "wait --for=condition=Available deployment/web -o jsonpath={.kind}/{.metadata.name}",
            "Deployment/web",
        ),
    ]);
    let ready = user.ok("wait --for=condition=Ready pod -l app=web --timeout=60s");
    assert_eq!(ready.matches(" condition met\n").count(), 2, "{ready}");
    let late = user.fails("wait --for=condition=Never deployment/web --timeout=3s", "");
    assert_eq!(late, "error: timed out waiting for the condition on deployments/web\n");
    let late = user.fails("wait --for=delete deployment/web --timeout=3s", "");
    assert_eq!(late, "error: timed out waiting for the condition on deployments/web\n");
    let missing = user.fails("wait --for=condition=Ready pod/none --timeout=5s", "");
    assert_eq!(missing, "Error from server (NotFound): pods \"none\" not found\n");
    // What is waited for may also come, or go, meanwhile.
    let coming = user.cluster.begin(user.tool, "wait --for=create configmap/coming --timeout=60s");
    user.ok("create configmap coming");
    assert_eq!(Said::of(coming).out, "configmap/coming condition met\n");
    let going = user.cluster.begin(user.tool, "wait --for=delete configmap/coming --timeout=60s");
    user.ok("delete configmap coming --wait=false");
    let said = Said::of(going);
    // It may have gone before anybody looked.
    assert!(said.ok && ["configmap/coming condition met\n", ""].contains(&said.out.as_str()), "{said:?}");
}

fn labels_and_annotations(user: &User) {
    user.ok("create configmap marked");
    user.says(&[
        ("label configmap marked tier=front", "configmap/marked labeled\n"),
        ("label configmap marked tier=front", "configmap/marked not labeled\n"),
        ("label configmap marked tier=back --overwrite", "configmap/marked labeled\n"),
        ("label configmap marked --list", "tier=back\n"),
        ("label configmaps -l tier=back second=x", "configmap/marked labeled\n"),
        ("label configmap marked tier-", "configmap/marked unlabeled\n"),
        ("get configmap marked -o jsonpath={.metadata.labels}", r#"{"second":"x"}"#),
        ("annotate configmap marked note=a", "configmap/marked annotated\n"),
        ("annotate configmap marked 'note=b c' --overwrite", "configmap/marked annotated\n"),
        ("get configmap marked -o jsonpath={.metadata.annotations}", r#"{"note":"b c"}"#),
        ("annotate configmap marked note-", "configmap/marked annotated\n"),
        ("get configmap marked -o jsonpath={.metadata.annotations}", ""),
    ]);
    assert!(user.fails("label configmap marked second=y", "").contains("--overwrite is false"));
    assert!(user.fails("label configmap marked bad=not/a/value", "").contains("a valid label must be"));
}

fn four_kinds_of_patch(user: &User) {
    let patch = |flags: &str, patch: &str| user.ok(&format!("patch deployment web {flags} -p '{patch}'"));
    let side = r#"{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"side:1"}]}}}}"#;
    assert_eq!(patch("", side), "deployment.apps/web patched\n");
    assert_eq!(user.field("deployment web", ".spec.template.spec.containers[*].name"), "side web");
    let only = r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"nginx:1"}]}}}}"#;
    assert_eq!(patch("--type=merge", only), "deployment.apps/web patched\n");
    assert_eq!(user.field("deployment web", ".spec.template.spec.containers[*].name"), "web");
    let test = r#"[{"op":"test","path":"/spec/replicas","value":2},{"op":"replace","path":"/spec/replicas","value":3}]"#;
    assert_eq!(patch("--type=json", test), "deployment.apps/web patched\n");
    user.fails(&format!("patch deployment web --type=json -p '{test}'"), "");
    user.ok("rollout status deployment/web --timeout=60s");
    // Not of the deployment: its controller may have something to say of pods that are still ending.
    let same = "patch configmap zoo --type=merge -p '{\"data\":{\"a\":\"bear\"}}'";
    assert_eq!(user.ok(same), "configmap/zoo patched (no change)\n");
    let scale = "patch deployment web --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":2}}'";
    assert!(user.ok(scale).contains("/web patched"));
    assert_eq!(user.field("deployment web", ".spec.replicas"), "2");
    // The fourth kind is server-side apply.
    let applied =
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {minReadySeconds: 1}}";
    let said = user.ok_with("apply --server-side --field-manager=fourth -f -", applied);
    assert_eq!(said, "deployment.apps/web serverside-applied\n");
    assert_eq!(user.field("deployment web", ".spec.minReadySeconds"), "1");
}

fn editing(user: &User) {
    user.ok("create configmap edited --from-literal=word=before");
    user.set_editor("s/before/after/");
    user.says(&[("edit configmap edited", "configmap/edited edited\n")]);
    assert_eq!(user.field("configmap edited", ".data.word"), "after");
    let said = user.cluster.run(user.tool, "edit configmap edited", "");
    assert!(said.ok && (said.out + &said.err).contains("Edit cancelled, no changes made."));
}

fn three_propagations(user: &User) {
    let pods = "get pods -l app=web -o name";
    let sets = "get replicasets -l app=web -o name";
    let make = || {
        user.ok_with("apply -f -", WEB);
        user.ok("rollout status deployment/web --timeout=60s");
    };
    user.ok("delete deployment web --cascade=foreground --timeout=60s");
    make();
    user.ok("delete deployment web --cascade=orphan");
    let set = user.ok(sets);
    assert_eq!(set.lines().count(), 1, "an orphan stays: {set}");
    assert_eq!(user.field(set.trim(), ".metadata.ownerReferences"), "");
    assert_eq!(user.ok(pods).lines().count(), 2);
    // The new deployment takes over what the old one left.
    make();
    assert_eq!(user.ok(sets), set);
    assert!(
        user.ok("delete deployment web --cascade=foreground --timeout=60s")
            .starts_with("deployment.apps \"web\" deleted")
    );
    assert_eq!(user.ok(sets), "", "nothing below is left when it is gone");
    make();
    user.ok("delete deployment web --cascade=background");
    user.comes_to_say(sets, "");
    user.comes_to_say(pods, "");
    make();
}

fn rights_and_tokens(user: &User) {
    user.says(&[
        ("auth can-i create pods", "yes\n"),
        ("create serviceaccount machine", "serviceaccount/machine created\n"),
        (
            "create role looker --verb=get,list --resource=configmaps",
            "role.rbac.authorization.k8s.io/looker created\n",
        ),
        (
            "create rolebinding lookers --role=looker --serviceaccount=default:machine",
            "rolebinding.rbac.authorization.k8s.io/lookers created\n",
        ),
    ]);
    let robot = "--as=system:serviceaccount:default:machine";
    user.comes_to_say(&format!("auth can-i get configmaps {robot}"), "yes\n");
    assert_eq!(user.fails(&format!("auth can-i delete configmaps {robot}"), ""), "no\n");
    user.shows(&format!("auth can-i --list {robot}"), &["configmaps [] [] [get list]"]);
    let refused = user.fails(&format!("delete configmap zoo {robot}"), "");
    assert!(refused.contains("Error from server (Forbidden): configmaps \"zoo\" is forbidden: User \"system:serviceaccount:default:machine\" cannot delete resource \"configmaps\""), "{refused}");
    let token = user
        .ok("create token machine --duration=10m --audience=https://kubernetes.default.svc.cluster.local");
    assert_eq!(token.matches('.').count(), 2, "{token}");
    let robot = user.cluster.kubeconfig_of("robot", pki::User::Token(token.trim()));
    user.cluster.write("robot.config", &robot);
    user.shows(
        "--kubeconfig=robot.config auth whoami",
        &["Username system:serviceaccount:default:machine", "system:serviceaccounts:default"],
    );
    user.says(&[("--kubeconfig=robot.config get configmap zoo -o name", "configmap/zoo\n")]);
}

fn certificates(user: &User) {
    let now = jiff::Timestamp::now();
    let pem = pki::certificate_request(&Leaf::client("ann", Some("staff")), now).unwrap().certificate_pem;
    for (name, verb, done) in [("ann", "approve", "approved"), ("eve", "deny", "denied")] {
        let request = format!(
            "{{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {{name: {name}}}, \
             spec: {{signerName: kubernetes.io/kube-apiserver-client, usages: [client auth], request: {}}}}}",
            base64(pem.as_bytes())
        );
        user.ok_with("apply -f -", &request);
        user.shows(
            &format!("get csr {name}"),
            &["NAME AGE SIGNERNAME REQUESTOR", "kubernetes-admin", "Pending"],
        );
        let said = user.ok(&format!("certificate {verb} {name}"));
        assert_eq!(said, format!("certificatesigningrequest.certificates.k8s.io/{name} {done}\n"));
    }
    let issued = eventually("the certificate is issued", || {
        Some(user.field("csr ann", ".status.certificate")).filter(|text| !text.is_empty())
    });
    assert!(issued.starts_with("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS"), "a PEM in base64: {issued}");
    user.shows("get csr", &["Approved,Issued", "Denied"]);
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn rollouts(user: &User) {
    let done = "deployment \"web\" successfully rolled out\n";
    user.ok("set image deployment/web web=nginx:2");
    assert!(user.ok("rollout status deployment/web --timeout=60s").ends_with(done));
    user.shows("rollout history deployment/web", &["REVISION CHANGE-CAUSE 1 <none> 2 <none>"]);
    assert_eq!(user.ok("rollout undo deployment/web"), "deployment.apps/web rolled back\n");
    assert!(user.ok("rollout status deployment/web --timeout=60s").ends_with(done));
    assert_eq!(user.field("deployment web", ".spec.template.spec.containers[0].image"), "nginx:1");
    assert_eq!(user.ok("rollout restart deployment/web"), "deployment.apps/web restarted\n");
    assert!(user.ok("rollout status deployment/web --timeout=60s").ends_with(done));
    user.shows(
        "describe deployment web",
        &["Replicas: 2 desired | 2 updated | 2 total | 2 available | 0 unavailable", "ScalingReplicaSet"],
    );
    user.shows("get events", &["LAST SEEN TYPE REASON OBJECT MESSAGE", "deployment/web"]);
    user.says(&[
        ("cordon hollow-1", "node/hollow-1 cordoned\n"),
        ("uncordon hollow-1", "node/hollow-1 uncordoned\n"),
        ("taint node hollow-1 only=us:NoSchedule", "node/hollow-1 tainted\n"),
        ("taint node hollow-1 only-", "node/hollow-1 untainted\n"),
    ]);
    assert!(user.ok("delete deployment web --timeout=60s").starts_with("deployment.apps \"web\" deleted"));
}

fn custom_kinds(user: &User) {
    user.ok_with("apply -f -", "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: snakes.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Snake, plural: snakes, singular: snake, shortNames: [sn]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Length, type: integer, jsonPath: .spec.length}]
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {length: {type: integer, minimum: 1, description: From end to end}}}}
");
    user.says(&[(
        "wait --for=condition=Established crd/snakes.example.com --timeout=60s",
        "customresourcedefinition.apiextensions.k8s.io/snakes.example.com condition met\n",
    )]);
    let kaa = "{apiVersion: example.com/v1, kind: Snake, metadata: {name: kaa}, spec: {length: 9}}";
    assert_eq!(user.ok_with("apply -f -", kaa), "snake.example.com/kaa created\n");
    user.shows("get sn", &["NAME LENGTH kaa 9"]);
    eventually("the kind is explained", || {
        let said = user.cluster.run(user.tool, "explain snake.spec", "");
        said.out.contains("From end to end").then_some(())
    });
    let refused = user.fails("apply -f -", &kaa.replace('9', "0"));
    assert!(refused.contains("spec.length in body should be greater than or equal to 1"), "{refused}");
    let unknown = user.fails("apply -f -", &kaa.replace("length", "width"));
    assert!(unknown.contains("spec.width"), "{unknown}");
    user.ok("delete crd snakes.example.com");
}

fn a_watch_through_a_restart(cluster: &mut Cluster, tool: &Tool) {
    let user = User { cluster, tool };
    user.ok_with(
        "apply -f -",
        "{apiVersion: v1, kind: LimitRange, metadata: {name: watched, labels: {step: one}}, spec: {limits: []}}",
    );
    let before = watches(cluster);
    let waiting = cluster
        .begin(tool, "wait --for=jsonpath={.metadata.labels.step}=two limitrange/watched --timeout=120s");
    eventually("the watch has begun", || (watches(cluster) > before).then_some(()));
    cluster.restart();
    User { cluster, tool }.ok("label limitrange watched step=two --overwrite");
    let said = Said::of(waiting);
    assert!(said.ok && said.out == "limitrange/watched condition met\n", "{said:?}");
}

/// How many watches of limit ranges the server serves: a kind that nothing else of the test begins or ends to watch.
fn watches(cluster: &Cluster) -> u32 {
    let metrics = cluster.block_on(cluster.test.get("/metrics")).expect(200);
    let name = "apiserver_longrunning_requests{verb=\"WATCH\",resource=\"limitranges\"} ";
    let line = metrics.as_str().unwrap().lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |count| count.parse().unwrap())
}
