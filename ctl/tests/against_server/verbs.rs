//! The verbs, and what they say.

use crate::cluster::Cluster;

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

#[test]
fn an_object_is_made_changed_and_deleted() {
    let cluster = Cluster::start();
    assert_eq!(cluster.ctl_with("apply -f -", WEB), "deployment.apps/web created\n");
    assert_eq!(cluster.ctl_with("apply -f -", WEB), "deployment.apps/web unchanged\n");
    assert_eq!(
        cluster.ctl_with("apply -f -", &WEB.replace("nginx:1", "nginx:2")),
        "deployment.apps/web configured\n"
    );
    let field = |path: &str| cluster.ctl(&format!("get deployment web -o jsonpath={{{path}}}"));
    assert_eq!(field(".spec.template.spec.containers[0].image"), "nginx:2");
    assert_eq!(cluster.ctl("scale deployment/web --replicas=5"), "deployment.apps/web scaled\n");
    assert_eq!(field(".spec.replicas"), "5");
    assert_eq!(cluster.ctl("set image deployment/web web=nginx:3"), "deployment.apps/web image updated\n");
    assert_eq!(field(".spec.template.spec.containers[0].image"), "nginx:3");
    assert_eq!(cluster.ctl("label deployment web tier=front"), "deployment.apps/web labeled\n");
    assert!(cluster.ctl_fails("label deployment web tier=back", "").contains("--overwrite"));
    assert_eq!(cluster.ctl("label deployment web tier-"), "deployment.apps/web unlabeled\n");
    assert_eq!(cluster.ctl("annotate deployment web note=x"), "deployment.apps/web annotated\n");
    assert_eq!(field(".metadata.annotations.note"), "x");
    assert_eq!(
        cluster.ctl("patch deployment web -p '{\"spec\":{\"replicas\":3}}'"),
        "deployment.apps/web patched\n"
    );
    assert_eq!(cluster.ctl("expose deployment web --port=80 --type=NodePort"), "service/web exposed\n");
    assert_eq!(cluster.ctl("get service web -o jsonpath={.spec.type},{.spec.selector.app}"), "NodePort,web");
    assert!(cluster.ctl("describe deployment web").contains("Replicas:               3 desired"));
    assert_eq!(cluster.ctl("rollout pause deployment/web"), "deployment.apps/web paused\n");
    assert_eq!(field(".spec.paused"), "true");
    assert_eq!(cluster.ctl("rollout restart deployment/web"), "deployment.apps/web restarted\n");
    assert_eq!(
        cluster.ctl("delete deployment,service web"),
        "deployment.apps \"web\" deleted from default namespace\nservice \"web\" deleted from default namespace\n"
    );
    let complaint = cluster.ctl_fails("get deployment web", "");
    assert_eq!(complaint, "Error from server (NotFound): deployments.apps \"web\" not found\n");
}

#[test]
fn every_kind_that_create_knows_is_made() {
    let cluster = Cluster::start();
    cluster.write("key", "value\n");
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
        assert_eq!(cluster.ctl(&format!("create {words}")), said);
    }
    let subjects = "get rolebinding readers -o 'jsonpath={range .subjects[*]}{.kind}:{.name} {end}'";
    assert_eq!(cluster.ctl(subjects), "User:ann User:bob Group:staff ServiceAccount:robot ");
    assert_eq!(cluster.ctl("get configmap words -o jsonpath={.data}"), r#"{"a":"on","key":"value\n"}"#);
    assert_eq!(cluster.ctl("auth can-i list pods --as=ann"), "yes\n");
    assert_eq!(cluster.ctl_fails("auth can-i delete pods --as=ann", ""), "");
    assert!(cluster.ctl("explain deployment.spec.replicas").contains("replicas <integer>"));
    assert!(cluster.ctl("api-resources --api-group=apps -o name").contains("deployments.apps\n"));
    assert_eq!(
        cluster.ctl("wait --for=jsonpath={.spec.replicas}=2 deployment/web"),
        "deployment.apps/web condition met\n"
    );
    assert_eq!(cluster.ctl("wait --for=delete deployment/none --timeout=1s"), "");
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
