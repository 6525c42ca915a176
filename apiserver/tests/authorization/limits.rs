//! What admission fills in and refuses for pods and claims: limit ranges, storage classes, runtime classes.

use serde_json::{Value, json};

use crate::cluster::Cluster;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str, resources: Value) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

async fn with_range(item: Value) -> Cluster {
    let cluster = Cluster::start().await;
    cluster.account("default", "default").await;
    let range = json!({"kind": "LimitRange", "apiVersion": "v1", "metadata": {"name": "r"}, "spec": {"limits": [item]}});
    cluster.admin().post("/api/v1/namespaces/default/limitranges", &range).await.expect(201);
    cluster.server.objects().catch_up().await;
    cluster
}

#[tokio::test]
async fn a_container_that_says_nothing_gets_the_ranges_defaults() {
    let cluster = with_range(json!({"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "250m", "memory": "64Mi"}})).await;
    let made = cluster.admin().post(PODS, &pod("a", json!({}))).await.expect(201);
    let resources = &made["spec"]["containers"][0]["resources"];
    assert_eq!(resources, &json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "250m", "memory": "64Mi"}}));
    let said = made["metadata"]["annotations"]["kubernetes.io/limit-ranger"].as_str().unwrap();
    assert_eq!(
        said,
        "LimitRanger plugin set: cpu, memory request for container c; cpu limit for container c"
    );
    assert_eq!(made["status"]["qosClass"], "Burstable");
    let own = pod("b", json!({"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "2"}}));
    let made = cluster.admin().post(PODS, &own).await.expect(201);
    assert_eq!(made["spec"]["containers"][0]["resources"]["limits"]["cpu"], "2");
}

#[tokio::test]
async fn what_is_out_of_range_is_refused() {
    let cluster =
        with_range(json!({"type": "Container", "max": {"memory": "1Gi"}, "min": {"memory": "16Mi"}})).await;
    let ask = |name: &str, memory: &str| {
        pod(name, json!({"requests": {"memory": memory}, "limits": {"memory": memory}}))
    };
    let message = cluster.admin().post(PODS, &ask("a", "2Gi")).await.refused();
    let expected = "pods \"a\" is forbidden: [maximum memory usage per Container is 1Gi, but limit is 2Gi]";
    assert_eq!(message.replace(['[', ']'], ""), expected.replace(['[', ']'], ""));
    cluster.admin().post(PODS, &ask("b", "8Mi")).await.refused();
    cluster.admin().post(PODS, &ask("c", "512Mi")).await.expect(201);
}

#[tokio::test]
async fn a_resize_keeps_within_the_range_and_the_node() {
    let cluster = with_range(json!({"type": "Container", "max": {"cpu": "3"}, "min": {"cpu": "100m"}})).await;
    let admin = cluster.admin();
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n"}});
    admin.post("/api/v1/nodes", &node).await.expect(201);
    let capacity = json!({"status": {"allocatable": {"cpu": "2", "memory": "4Gi"}}});
    admin.merge("/api/v1/nodes/n/status", &capacity).await.expect(200);
    let mut made = pod("p", json!({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}}));
    made["spec"]["nodeName"] = json!("n");
    admin.post(PODS, &made).await.expect(201);
    cluster.server.objects().catch_up().await;
    let path = format!("{PODS}/p/resize");
    let ask = |cpu: &str| {
        json!({"spec": {"containers": [{"name": "c", "image": "i",
            "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": "3"}}}]}})
    };
    let told = admin.merge(&path, &ask("50m")).await.refused();
    assert!(told.contains("minimum cpu usage per Container is 100m, but request is 50m"), "{told}");
    let told = admin.merge(&path, &ask("2500m")).await.refused();
    let expected = "pods \"p\" is forbidden: node didn't have enough allocatable resources: cpu, requested: 2500, allocatable: 2000";
    assert_eq!(told, expected);
    admin.merge(&path, &ask("2")).await.expect(200);
}

#[tokio::test]
async fn a_claim_gets_the_default_class_and_a_pod_the_cost_of_its_runtime() {
    let cluster = Cluster::start().await;
    cluster.account("default", "default").await;
    let admin = cluster.admin();
    let class = json!({"kind": "StorageClass", "apiVersion": "storage.k8s.io/v1", "provisioner": "example.com/p",
        "metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    admin.post("/apis/storage.k8s.io/v1/storageclasses", &class).await.expect(201);
    let runtime = json!({"kind": "RuntimeClass", "apiVersion": "node.k8s.io/v1", "metadata": {"name": "vm"}, "handler": "vm",
        "overhead": {"podFixed": {"memory": "64Mi"}}, "scheduling": {"nodeSelector": {"vm": "yes"}}});
    admin.post("/apis/node.k8s.io/v1/runtimeclasses", &runtime).await.expect(201);
    cluster.server.objects().catch_up().await;
    let claim = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let made = admin.post("/api/v1/namespaces/default/persistentvolumeclaims", &claim).await.expect(201);
    assert_eq!(made["spec"]["storageClassName"], "fast");
    let mut asked = pod("p", json!({}));
    asked["spec"]["runtimeClassName"] = "vm".into();
    let made = admin.post(PODS, &asked).await.expect(201);
    assert_eq!(made["spec"]["overhead"], json!({"memory": "64Mi"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"vm": "yes"}));
    asked["spec"]["runtimeClassName"] = "none".into();
    assert!(admin.post(PODS, &asked).await.refused().contains("RuntimeClass \"none\" not found"));
}

#[tokio::test]
async fn to_run_something_in_a_pod_needs_create_whatever_the_method() {
    let cluster = Cluster::start().await;
    let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods/exec", "pods/attach", "pods/portforward"]}]);
    cluster.cluster_role("peek", json!({}), rules).await;
    cluster.bind("default", "peek", "user:ada").await;
    for way in ["exec", "attach", "portforward"] {
        let message = cluster.user("ada", &[]).get(&format!("{PODS}/p/{way}")).await.refused();
        assert!(message.contains(&format!("cannot create resource \"pods/{way}\"")), "{message}");
    }
}

#[tokio::test]
async fn there_is_one_default_priority_and_pods_get_it() {
    let cluster = Cluster::start().await;
    cluster.account("default", "default").await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class = |name: &str| {
        json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": name},
            "value": 100, "globalDefault": true})
    };
    cluster.admin().post(classes, &class("normal")).await.expect(201);
    let message = cluster.admin().post(classes, &class("other")).await.refused();
    assert!(
        message.ends_with("PriorityClass normal is already marked as default. Only one default can exist")
    );
    cluster.admin().merge(&format!("{classes}/normal"), &json!({"description": "x"})).await.expect(200);
    let made = cluster.admin().post(PODS, &pod("p", json!({}))).await.expect(201);
    assert_eq!(
        (&made["spec"]["priority"], &made["spec"]["priorityClassName"]),
        (&json!(100), &json!("normal"))
    );
    // Who replaces it need not repeat what was filled in.
    let mut plain = made.clone();
    plain["metadata"]["labels"] = json!({"a": "b"});
    let spec = plain["spec"].as_object_mut().unwrap();
    for filled in ["priority", "preemptionPolicy", "tolerations"] {
        assert!(spec.remove(filled).is_some(), "{filled}");
    }
    let replaced = cluster.admin().put(&format!("{PODS}/p"), &plain).await.expect(200);
    assert_eq!(replaced["spec"], made["spec"]);
    assert_eq!(replaced["metadata"]["labels"]["a"], "b");
}
