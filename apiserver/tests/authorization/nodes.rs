//! What a node's agent may do, and everything by which one that was taken over would reach further.

use serde_json::{Value, json};

use crate::cluster::{Caller, Cluster};

/// Two nodes with a pod each: `p1` on `n1` uses the secret `s1`, and so on; and a pod that is nowhere yet.
async fn two_nodes() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.account("default", "default").await;
    let admin = cluster.admin();
    for number in ["1", "2", "3"] {
        let meta = |letter: &str| json!({"name": format!("{letter}{number}")});
        cluster.account("default", &format!("a{number}")).await;
        let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": meta("s")});
        admin.post("/api/v1/namespaces/default/secrets", &secret).await.expect(201);
        let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": meta("c")});
        admin.post("/api/v1/namespaces/default/configmaps", &map).await.expect(201);
        let node = if number == "3" { String::new() } else { format!("n{number}") };
        if !node.is_empty() {
            cluster.make_node(&node).await;
        }
        let spec = json!({"serviceAccountName": format!("a{number}"), "volumes": [
            {"name": "s", "secret": {"secretName": format!("s{number}")}},
            {"name": "c", "configMap": {"name": format!("c{number}")}}]});
        cluster.pod("default", &format!("p{number}"), &node, spec).await;
    }
    cluster
}

async fn codes(caller: &Caller, paths: &[&str], code: u16) {
    for path in paths {
        let answer = caller.get(path).await;
        assert_eq!(answer.code, code, "{path}: {:#}", answer.body);
    }
}

const DEFAULT: &str = "/api/v1/namespaces/default";

#[tokio::test]
async fn a_node_reads_what_its_pods_name_and_nothing_else() {
    let cluster = two_nodes().await;
    let n1 = cluster.node("n1");
    let by_name = |kind: &str, name: &str| format!("{DEFAULT}/{kind}?fieldSelector=metadata.name%3D{name}");
    for (kind, letter) in [("secrets", "s"), ("configmaps", "c")] {
        let (own, other, unused) = (format!("{letter}1"), format!("{letter}2"), format!("{letter}3"));
        codes(&n1, &[&format!("{DEFAULT}/{kind}/{own}"), &by_name(kind, &own)], 200).await;
        codes(&n1, &[&format!("{}&watch=true&timeoutSeconds=1", by_name(kind, &own))], 200).await;
        for name in [&other, &unused] {
            codes(&n1, &[&format!("{DEFAULT}/{kind}/{name}"), &by_name(kind, name)], 403).await;
        }
        codes(
            &n1,
            &[
                &format!("{DEFAULT}/{kind}"),
                &format!("/api/v1/{kind}"),
                &format!("/api/v1/{kind}?fieldSelector=metadata.name%3D{own}"),
            ],
            403,
        )
        .await;
        n1.delete(&format!("{DEFAULT}/{kind}/{own}")).await.refused();
        n1.merge(&format!("{DEFAULT}/{kind}/{own}"), &json!({"data": {}})).await.refused();
    }
    // A pod comes to the node, and goes again.
    let binding = json!({"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "p3"}, "target": {"kind": "Node", "name": "n1"}});
    cluster.admin().post(&format!("{DEFAULT}/pods/p3/binding"), &binding).await.expect(201);
    codes(&n1, &[&format!("{DEFAULT}/secrets/s3")], 200).await;
    cluster.admin().delete(&format!("{DEFAULT}/pods/p3?gracePeriodSeconds=0")).await.expect(200);
    cluster.server.objects().catch_up().await;
    codes(&n1, &[&format!("{DEFAULT}/secrets/s3")], 403).await;
}

#[tokio::test]
async fn a_node_sees_its_own_pods_and_itself() {
    let cluster = two_nodes().await;
    let n1 = cluster.node("n1");
    let mine = n1.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.expect(200);
    assert_eq!(mine["items"].as_array().unwrap().len(), 1);
    codes(&n1, &[&format!("{DEFAULT}/pods/p1"), "/api/v1/nodes/n1", "/api/v1/services"], 200).await;
    codes(
        &n1,
        &[
            "/api/v1/pods",
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2",
            "/api/v1/pods?fieldSelector=spec.nodeName!%3Dn1",
            &format!("{DEFAULT}/pods/p2"),
            &format!("{DEFAULT}/pods/p3"),
            &format!("{DEFAULT}/pods"),
        ],
        403,
    )
    .await;
    codes(
        &n1,
        &[
            "/apis/apps/v1/deployments",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            "/api/v1/namespaces/kube-system/secrets",
        ],
        403,
    )
    .await;
}

#[tokio::test]
async fn a_node_has_tokens_only_for_the_pods_that_it_runs() {
    let cluster = two_nodes().await;
    let n1 = cluster.node("n1");
    let pod = async |name: &str| {
        cluster.admin().get(&format!("{DEFAULT}/pods/{name}")).await.expect(200)["metadata"]["uid"].clone()
    };
    let ask = |pod: &str, uid: Value, audiences: Value| {
        json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"audiences": audiences,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}}})
    };
    let token = |account: &str| format!("{DEFAULT}/serviceaccounts/{account}/token");
    let uid = pod("p1").await;
    n1.post(&token("a1"), &ask("p1", uid.clone(), json!([]))).await.expect(201);
    n1.post(&token("a2"), &ask("p2", pod("p2").await, json!([]))).await.refused();
    n1.post(&token("a3"), &ask("p3", pod("p3").await, json!([]))).await.refused();
    let unbound = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}});
    assert!(
        n1.post(&token("a1"), &unbound).await.refused().contains("node requested token not bound to a pod")
    );
    assert!(
        n1.post(&token("a1"), &ask("p1", Value::Null, json!([]))).await.refused().contains("without a uid")
    );
    n1.post(&token("a1"), &ask("p1", json!("another"), json!([]))).await.refused();
    let message = n1.post(&token("a1"), &ask("p1", uid, json!(["vault"]))).await.refused();
    assert!(message.contains("audience \"vault\" not found in pod spec volume"), "{message}");
}

#[tokio::test]
async fn a_node_writes_only_its_own_node_pods_and_lease() {
    let cluster = two_nodes().await;
    let n1 = cluster.node("n1");
    let ready = json!({"status": {"phase": "Running"}});
    n1.merge(&format!("{DEFAULT}/pods/p1/status"), &ready).await.expect(200);
    n1.merge(&format!("{DEFAULT}/pods/p2/status"), &ready).await.refused();
    n1.merge("/api/v1/nodes/n1/status", &json!({"status": {"nodeInfo": {"kernelVersion": "6"}}}))
        .await
        .expect(200);
    n1.merge("/api/v1/nodes/n2/status", &json!({"status": {"nodeInfo": {"kernelVersion": "6"}}}))
        .await
        .refused();
    n1.merge("/api/v1/nodes/n2", &json!({"metadata": {"labels": {"disk": "ssd"}}})).await.refused();
    n1.delete("/api/v1/nodes/n1").await.refused();
    n1.delete(&format!("{DEFAULT}/pods/p2")).await.refused();
    n1.merge(&format!("{DEFAULT}/pods/p1"), &json!({"metadata": {"labels": {"a": "b"}}})).await.refused();
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = |name: &str| json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {"name": name}});
    n1.post(leases, &lease("n1")).await.expect(201);
    n1.post(leases, &lease("n2")).await.refused();
    cluster.node("n2").post(leases, &lease("n2")).await.expect(201);
    n1.get(&format!("{leases}/n1")).await.expect(200);
    n1.merge(&format!("{leases}/n2"), &json!({"spec": {"holderIdentity": "n1"}})).await.refused();
    n1.post(&leases.replace("kube-node-lease", "default"), &lease("n1")).await.refused();
    let eviction =
        |pod: &str| json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": pod}});
    n1.post(&format!("{DEFAULT}/pods/p2/eviction"), &eviction("p2")).await.refused();
    n1.post(&format!("{DEFAULT}/pods/p1/eviction"), &eviction("p1")).await.expect(201);
}

#[tokio::test]
async fn a_node_draws_no_pods_by_labels_or_taints() {
    let cluster = two_nodes().await;
    let n1 = cluster.node("n1");
    let label = |name: &str| json!({"metadata": {"labels": {name: "x"}}});
    for good in
        ["disk", "topology.kubernetes.io/zone", "kubernetes.io/arch", "node.kubernetes.io/instance-type"]
    {
        assert_eq!(n1.merge("/api/v1/nodes/n1", &label(good)).await.code, 200, "{good}");
    }
    for bad in ["node-restriction.kubernetes.io/fips", "node-role.kubernetes.io/control-plane", "x.k8s.io/y"]
    {
        let message = n1.merge("/api/v1/nodes/n1", &label(bad)).await.refused();
        assert!(message.ends_with(&format!("is not allowed to modify labels: {bad}")), "{message}");
    }
    let taint = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    n1.merge("/api/v1/nodes/n1", &taint).await.refused();
    n1.merge("/api/v1/nodes/n1", &json!({"spec": {"taints": null}})).await.refused();
    let n3 = cluster.node("n3");
    let mut fresh = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n3", "labels": {"node-restriction.kubernetes.io/fips": "true"}}});
    n3.post("/api/v1/nodes", &fresh).await.refused();
    fresh["metadata"]["labels"] = json!({"kubernetes.io/hostname": "n3"});
    n1.post("/api/v1/nodes", &fresh).await.refused();
    n3.post("/api/v1/nodes", &fresh).await.expect(201);
}

#[tokio::test]
async fn a_node_makes_only_mirror_pods_that_name_nothing() {
    let cluster = two_nodes().await;
    let n1 = cluster.node("n1");
    let uid = cluster.admin().get("/api/v1/nodes/n1").await.expect(200)["metadata"]["uid"].clone();
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": true}]);
    let mirror = json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "static", "annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": owner},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    let with = |pointer: &str, value: Value| {
        let mut pod = mirror.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[field] = value;
        pod
    };
    let pods = format!("{DEFAULT}/pods");
    let bad = [
        with("/metadata/annotations", json!({})),
        with("/spec/nodeName", "n2".into()),
        with("/metadata/ownerReferences", json!([])),
        with("/spec/volumes", json!([{"name": "s", "secret": {"secretName": "s2"}}])),
        with("/spec/serviceAccountName", "a2".into()),
        with("/spec/serviceAccount", "a2".into()),
        with("/spec/resourceClaims", json!([{"name": "r", "resourceClaimName": "r2"}])),
        with(
            "/spec/initContainers",
            json!([{"name": "i", "image": "i", "envFrom": [{"configMapRef": {"name": "c2"}}]}]),
        ),
        with("/spec/imagePullSecrets", json!([{"name": "s2"}])),
    ];
    for pod in bad {
        assert_eq!(n1.post(&pods, &pod).await.code, 403, "{pod:#}");
    }
    n1.post(&pods, &mirror).await.expect(201);
    let unmarked = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": null}}});
    let refused = n1.merge(&format!("{pods}/static/status"), &unmarked).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("may not remove or update mirror pod annotation"));
    let marked = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}});
    cluster.pod("default", "plain", "n1", json!({})).await;
    let refused = cluster.admin().merge(&format!("{pods}/plain"), &marked).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("may not add mirror pod annotation"));
}

#[tokio::test]
async fn only_members_of_the_nodes_group_are_nodes() {
    let cluster = two_nodes().await;
    cluster.user("system:node:n1", &[]).get(&format!("{DEFAULT}/secrets/s1")).await.refused();
    cluster.user("n1", &["system:nodes"]).get(&format!("{DEFAULT}/secrets/s1")).await.refused();
    cluster.user("system:node:", &["system:nodes"]).get(&format!("{DEFAULT}/secrets/s1")).await.refused();
}
