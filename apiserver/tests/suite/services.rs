//! Cluster addresses and node ports.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::server::TestServer;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, kind: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"type": kind, "selector": {"a": "b"}, "ports": [{"port": 80}]}})
}

#[tokio::test]
async fn no_address_and_no_port_should_be_given_twice() {
    let test = Arc::new(TestServer::start().await);
    let creations: Vec<_> = (0..60)
        .map(|index| {
            let test = test.clone();
            tokio::spawn(async move {
                test.post(SERVICES, &service(&format!("s{index}"), "NodePort")).await.expect(201)
            })
        })
        .collect();
    let (mut addresses, mut ports) = (HashSet::new(), HashSet::new());
    for creation in creations {
        let created = creation.await.unwrap();
        assert!(addresses.insert(created["spec"]["clusterIP"].as_str().unwrap().to_string()));
        assert!(ports.insert(created["spec"]["ports"][0]["nodePort"].as_i64().unwrap()));
    }
    let kept = test.get("/apis/networking.k8s.io/v1/ipaddresses").await.expect(200);
    assert_eq!(kept["items"].as_array().unwrap().len(), 62, "with those of kubernetes and kube-dns");
}

#[tokio::test]
async fn what_is_given_back_should_be_free_again() {
    let test = TestServer::start().await;
    let mut wanted = service("a", "NodePort");
    wanted["spec"]["clusterIP"] = "10.96.0.77".into();
    wanted["spec"]["ports"][0]["nodePort"] = 30033.into();
    test.post(SERVICES, &wanted).await.expect(201);
    let mut other = wanted.clone();
    other["metadata"]["name"] = "b".into();
    let refused = test.post(SERVICES, &other).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("provided IP is already allocated"));
    test.delete(&format!("{SERVICES}/a")).await.expect(200);
    test.post(SERVICES, &other).await.expect(201);
    let changed =
        test.merge(&format!("{SERVICES}/b"), &json!({"spec": {"type": "ClusterIP"}})).await.expect(200);
    assert_eq!(changed["spec"]["ports"][0].get("nodePort"), None);
    let mut third = service("c", "NodePort");
    third["spec"]["ports"][0]["nodePort"] = 30033.into();
    test.post(SERVICES, &third).await.expect(201);
}

#[tokio::test]
async fn the_first_services_should_be_where_everybody_expects_them() {
    let test = TestServer::start().await;
    let kubernetes = test.get(&format!("{SERVICES}/kubernetes")).await.expect(200);
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.96.0.1");
    let dns = test.get("/api/v1/namespaces/kube-system/services/kube-dns").await.expect(200);
    assert_eq!(dns["spec"]["clusterIP"], "10.96.0.10");
    let endpoints = test.get("/api/v1/namespaces/default/endpoints/kubernetes").await.expect(200);
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "192.0.2.1");
}
