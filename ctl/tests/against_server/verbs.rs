//! The verbs, and what they say.

use crate::cluster::{Cluster, Said, Tool};
use crate::user::User;

pub const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: \"nginx:1\", ports: [{containerPort: 80}]}]}
";

pub fn made_changed_and_deleted(user: &User) {
    assert_eq!(user.ok_with("apply -f -", WEB), "deployment.apps/web created\n");
    user.ok("rollout status deployment/web --timeout=60s");
    assert_eq!(user.ok_with("apply -f -", WEB), "deployment.apps/web unchanged\n");
    assert_eq!(
        user.ok_with("apply -f -", &WEB.replace("nginx:1", "nginx:2")),
        "deployment.apps/web configured\n"
    );
    let field = |path: &str| user.ok(&format!("get deployment web -o jsonpath={{{path}}}"));
    assert_eq!(field(".spec.template.spec.containers[0].image"), "nginx:2");
    assert_eq!(user.ok("scale deployment/web --replicas=5"), "deployment.apps/web scaled\n");
    assert_eq!(field(".spec.replicas"), "5");
    assert_eq!(user.ok("set image deployment/web web=nginx:3"), "deployment.apps/web image updated\n");
    assert_eq!(field(".spec.template.spec.containers[0].image"), "nginx:3");
    assert_eq!(user.ok("label deployment web tier=front"), "deployment.apps/web labeled\n");
    assert!(user.fails("label deployment web tier=back", "").contains("--overwrite"));
    assert_eq!(user.ok("label deployment web tier-"), "deployment.apps/web unlabeled\n");
    assert_eq!(user.ok("annotate deployment web note=x"), "deployment.apps/web annotated\n");
    assert_eq!(field(".metadata.annotations.note"), "x");
    assert_eq!(
        user.ok("patch deployment web -p '{\"spec\":{\"replicas\":3}}'"),
        "deployment.apps/web patched\n"
    );
    assert_eq!(user.ok("expose deployment web --port=80 --type=NodePort"), "service/web exposed\n");
    assert_eq!(user.ok("get service web -o jsonpath={.spec.type},{.spec.selector.app}"), "NodePort,web");
    assert!(user.ok("describe deployment web").contains("Replicas:               3 desired"));
    assert_eq!(user.ok("rollout pause deployment/web"), "deployment.apps/web paused\n");
    assert_eq!(field(".spec.paused"), "true");
    assert!(user.fails("rollout restart deployment/web", "").contains("can't restart paused deployment"));
    assert_eq!(user.ok("rollout resume deployment/web"), "deployment.apps/web resumed\n");
    assert_eq!(user.ok("rollout restart deployment/web"), "deployment.apps/web restarted\n");
    // Newer ones than 1.32 name the namespace, too.
    let said = user.ok("delete deployment,service web").replace(" from default namespace", "");
    assert_eq!(said, "deployment.apps \"web\" deleted\nservice \"web\" deleted\n");
    let complaint = user.fails("get deployment web", "");
    assert_eq!(complaint, "Error from server (NotFound): deployments.apps \"web\" not found\n");
}

pub fn every_kind_that_create_knows(user: &User) {
    user.cluster.write("key", "value\n");
    for (words, said) in [
        ("namespace other", "namespace/other created\n"),
        ("configmap words --from-literal=a=on --from-file=key", "configmap/words created\n"),
        ("secret generic hidden --from-literal=k=v", "secret/hidden created\n"),
        ("serviceaccount robot", "serviceaccount/robot created\n"),
        ("deployment web --image=nginx --replicas=2", "deployment.apps/web created\n"),
        ("service clusterip web --tcp=80:8080", "service/web created\n"),
        ("job once --image=busybox", "job.batch/once created\n"),
        ("cronjob nightly --image=busybox '--schedule=0 3 * * *'", "cronjob.batch/nightly created\n"),
        (
            "role reader --verb=get,list --resource=pods,deployments.apps",
            "role.rbac.authorization.k8s.io/reader created\n",
        ),
        (
            "clusterrole viewer --verb=get --resource=nodes",
            "clusterrole.rbac.authorization.k8s.io/viewer created\n",
        ),
        (
            "rolebinding readers --role=reader --user=ann --user bob --group=staff --serviceaccount=default:robot",
            "rolebinding.rbac.authorization.k8s.io/readers created\n",
        ),
        (
            "clusterrolebinding viewers --clusterrole=viewer --user=ann",
            "clusterrolebinding.rbac.authorization.k8s.io/viewers created\n",
        ),
        ("quota small --hard=pods=3", "resourcequota/small created\n"),
        (
            "poddisruptionbudget calm --selector=app=web --min-available=1",
            "poddisruptionbudget.policy/calm created\n",
        ),
        ("priorityclass high --value=1000", "priorityclass.scheduling.k8s.io/high created\n"),
        ("ingress front --rule=example.com/=web:80", "ingress.networking.k8s.io/front created\n"),
    ] {
        assert_eq!(user.ok(&format!("create {words}")), said);
    }
    let subjects = "get rolebinding readers -o 'jsonpath={range .subjects[*]}{.kind}:{.name} {end}'";
    assert_eq!(user.ok(subjects), "User:ann User:bob Group:staff ServiceAccount:robot ");
    assert_eq!(user.ok("get configmap words -o jsonpath={.data}"), r#"{"a":"on","key":"value\n"}"#);
    assert_eq!(user.ok("auth can-i list pods --as=ann"), "yes\n");
    assert_eq!(user.fails("auth can-i delete pods --as=ann", ""), "no\n");
    assert!(user.ok("explain deployment.spec.replicas").contains("replicas <integer>"));
    assert!(user.ok("api-resources --api-group=apps -o name").contains("deployments.apps\n"));
    assert_eq!(
        user.ok("wait --for=jsonpath={.spec.replicas}=2 deployment/web"),
        "deployment.apps/web condition met\n"
    );
    assert_eq!(user.ok("wait --for=delete deployment/none --timeout=1s"), "");
}

#[test]
fn a_fault_is_told_with_its_place_and_changes_nothing() {
    let cluster = Cluster::start();
    let wrong = WEB.replace("replicas: 2", "replicas: two");
    let complaint = cluster.ctl_fails("apply -f -", &wrong);
    assert!(complaint.contains("STDIN:6"), "the line of spec.replicas: {complaint}");
    let unknown = WEB.replace("replicas: 2", "replica: 2");
    let complaint = cluster.ctl_fails("apply -f -", &unknown);
    assert!(complaint.contains("STDIN:6") && complaint.contains("spec.replica"), "{complaint}");
    assert_eq!(cluster.ctl("get deployments"), "");
    assert!(cluster.ctl_fails("get deploymnet", "").contains("did you mean deployment"));
    assert!(cluster.ctl_fails("rollout status deployment/none", "").contains("not found"));
}

#[test]
fn who_waits_for_what_goes_away_is_told() {
    let cluster = Cluster::start();
    cluster.ctl("create configmap doomed");
    let waiting = cluster.begin(&Tool::Ctl, "wait --for=jsonpath={.data.x}=y configmap/doomed --timeout=60s");
    // Whether it looks before or after, it is told the same.
    cluster.ctl("delete configmap doomed");
    let said = Said::of(waiting);
    assert!(!said.ok && said.err.ends_with("configmaps \"doomed\" not found\n"), "{said:?}");
    // Another object of the same name is not the one that was waited for.
    cluster.ctl("create configmap doomed");
    let waiting = cluster.begin(&Tool::Ctl, "wait --for=delete configmap/doomed --timeout=60s");
    cluster.ctl("delete configmap doomed");
    cluster.ctl("create configmap doomed");
    cluster.ctl("delete configmap doomed --wait=false");
    assert!(Said::of(waiting).ok);
}

#[test]
fn of_several_kubeconfigs_each_says_what_the_ones_before_do_not() {
    let cluster = Cluster::start();
    let of = |name: &str| {
        let entry = |kind: &str, body: &str| format!("{kind}s: [{{name: {name}, {kind}: {body}}}]\n");
        let context = format!("{{cluster: {name}, user: kubernetes-admin}}");
        let server = format!("{{server: \"https://{name}.invalid\"}}");
        entry("context", &context) + &entry("cluster", &server) + "kind: Config\napiVersion: v1\n"
    };
    cluster.write("one", &(of("one") + "current-context: \"\"\n"));
    cluster.write("two", &(of("two") + "current-context: two\n"));
    let all = ["one", "missing", "two", "kubeconfig"].map(|name| cluster.path(name));
    let list = std::env::join_paths(all).unwrap();
    let ctl = |words: &str| {
        let said = cluster.run_with(&Tool::Ctl, words, &[("KUBECONFIG", list.as_os_str())]);
        assert!(said.ok, "{words}: {said:?}");
        said.out
    };
    assert_eq!(ctl("config get-contexts -o name"), "gantry\none\ntwo\n");
    assert_eq!(ctl("config current-context"), "two\n");
    assert_eq!(ctl("config view -o 'jsonpath={.clusters[*].name}'"), "one two gantry");
    assert_eq!(ctl("get namespace default -o name --context=gantry"), "namespace/default\n");
    assert_eq!(ctl("config use-context gantry"), "Switched to context \"gantry\".\n");
    assert_eq!(ctl("get namespace default -o name"), "namespace/default\n");
    assert_eq!(ctl("config set-context two --namespace=far"), "Context \"two\" modified.\n");
    let text = |name: &str| std::fs::read_to_string(cluster.path(name)).unwrap();
    assert!(text("two").contains("namespace: far") && !text("one").contains("far"));
    assert!(text("one").contains("current-context: gantry"), "{}", text("one"));
}

#[test]
fn a_context_is_made_used_and_deleted() {
    let cluster = Cluster::start();
    let before = cluster.ctl("config current-context");
    assert_eq!(
        cluster.ctl("config set-context --current --namespace=other"),
        format!("Context \"{}\" modified.\n", before.trim())
    );
    assert!(cluster.ctl_fails("get pod p", "").contains("not found"));
    assert!(cluster.ctl("config view --minify").contains("namespace: other"));
    assert_eq!(cluster.ctl("config set-context new --cluster=c --user=u"), "Context \"new\" created.\n");
    assert_eq!(cluster.ctl("config use-context new"), "Switched to context \"new\".\n");
    assert_eq!(cluster.ctl("config current-context"), "new\n");
    assert!(cluster.ctl("config delete-context new").contains("deleted context new from "));
}
