//! Cluster addresses and node ports.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use apiserver::ServiceRange;
use serde_json::{Value, json};
use store::{Action, Precondition, Range, ReadAt, Store, Write};

use crate::server::{Answer, TestServer, name};

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

const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn with(base: Value, more: Value) -> Value {
    let mut service = base;
    service["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service
}

/// The services that the address objects say they are of, by address.
async fn owners(test: &TestServer) -> BTreeMap<String, String> {
    let list = test.get(ADDRESSES).await.expect(200);
    let owner = |item: &Value| item["spec"]["parentRef"]["name"].as_str().unwrap().to_string();
    list["items"].as_array().unwrap().iter().map(|item| (name(item).to_string(), owner(item))).collect()
}

/// The addresses that services have, with their services.
async fn addresses(test: &TestServer) -> BTreeMap<String, String> {
    let list = test.get("/api/v1/services").await.expect(200);
    let mut all = BTreeMap::new();
    for service in list["items"].as_array().unwrap() {
        for ip in service["spec"]["clusterIPs"].as_array().into_iter().flatten() {
            let before = all.insert(ip.as_str().unwrap().to_string(), name(service).to_string());
            assert_eq!(before, None, "{ip} was given twice");
        }
    }
    all
}

/// Asks until the answer is what it should come to be.
async fn eventually<T, F: Future<Output = T>>(
    what: &str,
    mut ask: impl FnMut() -> F,
    is: impl Fn(&T) -> bool,
) {
    for _ in 0..600 {
        if is(&ask().await) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within half a minute: {what}");
}

#[tokio::test]
async fn services_go_from_one_family_to_two_and_back() {
    let single = TestServer::start().await;
    let path = format!("{SERVICES}/a");
    let made = single.post(SERVICES, &service("a", "ClusterIP")).await.expect(201);
    let first = made["spec"]["clusterIP"].as_str().unwrap().to_string();
    single
        .post(SERVICES, &with(service("p", "ClusterIP"), json!({"ipFamilyPolicy": "PreferDualStack"})))
        .await
        .expect(201);
    let required = json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}});
    let refused = single.merge(&path, &required).await.expect(422);
    assert_eq!(
        refused["message"],
        "Service \"a\" is invalid: spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not \
         configured for dual-stack services"
    );

    let mut config = single.config.clone();
    config.service_range = ServiceRange::parse("10.96.0.0/24,fd00:10:96::/112").unwrap();
    let test = single.with(config).await;
    let range = test.get(&format!("{RANGES}/kubernetes")).await.expect(200);
    assert_eq!(range["spec"]["cidrs"], json!(["10.96.0.0/24", "fd00:10:96::/112"]));
    assert_eq!(range["status"]["conditions"][0]["status"], "True");
    let same =
        test.merge(&format!("{SERVICES}/p"), &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    assert_eq!(same["spec"]["ipFamilies"], json!(["IPv4"]), "nothing changes by itself");

    let dual = test.merge(&path, &required).await.expect(200);
    assert_eq!(dual["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(dual["spec"]["clusterIPs"][0], first.as_str());
    let second = dual["spec"]["clusterIPs"][1].as_str().unwrap().to_string();
    assert!(second.starts_with("fd00:10:96::"), "{second}");
    let object = test.get(&format!("{ADDRESSES}/{second}")).await.expect(200);
    assert_eq!(object["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"], "IPv6");
    assert_eq!(
        object["spec"]["parentRef"],
        json!({"group": "", "resource": "services", "namespace": "default", "name": "a"})
    );
    let shorter = json!({"spec": {"clusterIPs": [first]}});
    let refused = test.merge(&path, &shorter).await.expect(422);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("must be 'SingleStack' to release the secondary cluster IP")
    );
    let single = test.merge(&path, &json!({"spec": {"ipFamilyPolicy": "SingleStack"}})).await.expect(200);
    assert_eq!(
        (&single["spec"]["clusterIPs"], &single["spec"]["ipFamilies"]),
        (&json!([first]), &json!(["IPv4"]))
    );
    test.get(&format!("{ADDRESSES}/{second}")).await.expect(404);

    test.merge(&path, &required).await.expect(200);
    let named = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let named = test.merge(&path, &named).await.expect(200);
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert_eq!(named["spec"].get(field), None, "{field}");
    }
    assert_eq!(owners(&test).await, addresses(&test).await);
    let back = json!({"spec": {"type": "ClusterIP", "externalName": null, "ipFamilies": ["IPv6"]}});
    let back = test.merge(&path, &back).await.expect(200);
    assert!(back["spec"]["clusterIP"].as_str().unwrap().starts_with("fd00:10:96::"));
    test.delete(&path).await.expect(200);
    assert_eq!(owners(&test).await, addresses(&test).await);
}

#[tokio::test]
async fn the_samples_of_the_dual_stack_guide_get_what_it_says() {
    let test = dual().await;
    for (more, policy, families) in [
        (json!({}), "SingleStack", json!(["IPv4"])),
        (json!({"ipFamilyPolicy": "PreferDualStack"}), "PreferDualStack", json!(["IPv4", "IPv6"])),
        (
            json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}),
            "PreferDualStack",
            json!(["IPv6", "IPv4"]),
        ),
        (json!({"ipFamilies": ["IPv6"]}), "SingleStack", json!(["IPv6"])),
        (json!({"clusterIP": "None"}), "SingleStack", json!(["IPv4"])),
        (json!({"clusterIP": "None", "selector": null}), "RequireDualStack", json!(["IPv4", "IPv6"])),
    ] {
        let made =
            test.post(SERVICES, &with(service("my-service", "ClusterIP"), more.clone())).await.expect(201);
        assert_eq!(
            (&made["spec"]["ipFamilyPolicy"], &made["spec"]["ipFamilies"]),
            (&json!(policy), &families),
            "{more}"
        );
        let count = if more.get("clusterIP").is_some() { 1 } else { families.as_array().unwrap().len() };
        assert_eq!(made["spec"]["clusterIPs"].as_array().unwrap().len(), count);
        assert_eq!(made["spec"]["clusterIPs"][0], made["spec"]["clusterIP"]);
        test.delete(&format!("{SERVICES}/my-service")).await.expect(200);
    }
    let kubernetes = test.get(&format!("{SERVICES}/kubernetes")).await.expect(200);
    assert_eq!(kubernetes["spec"]["ipFamilyPolicy"], "SingleStack");
}

async fn over(range: &str) -> TestServer {
    TestServer::start_with(|config| config.service_range = ServiceRange::parse(range).unwrap()).await
}

async fn dual() -> TestServer {
    over("10.96.0.0/24,fd00:10:96::/112").await
}

/// The node ports that are reserved.
async fn node_ports(store: &dyn Store) -> Vec<String> {
    let prefix = "/registry/allocations/nodeports/".to_string();
    let all = store.range(Range { prefix, after: None, limit: 0, at: ReadAt::Current }).await.unwrap();
    all.entries.iter().map(|entry| entry.key.rsplit('/').next().unwrap().to_string()).collect()
}

#[tokio::test]
async fn addresses_come_from_every_range_that_is_ready() {
    let test = TestServer::start().await;
    let range = |name: &str, cidr: &str| json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]}});
    let refused = test.post(RANGES, &range("wrong", "10.97.0.1/24")).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("must not have bits set beyond the prefix length"));
    let wanted = with(service("a", "ClusterIP"), json!({"clusterIP": "10.97.0.7"}));
    let refused = test.post(SERVICES, &wanted).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("is not in the valid range"), "{refused:#}");
    test.post(RANGES, &range("more", "10.97.0.0/24")).await.expect(201);
    test.post(SERVICES, &wanted).await.expect(201);
    let changed = test
        .merge(&format!("{RANGES}/more"), &json!({"spec": {"cidrs": ["10.98.0.0/24"]}}))
        .await
        .expect(422);
    assert!(changed["message"].as_str().unwrap().contains("field is immutable"));
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "Terminating",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    test.merge(&format!("{RANGES}/more/status"), &not_ready).await.expect(200);
    let refused = with(service("b", "ClusterIP"), json!({"clusterIP": "10.97.0.8"}));
    test.post(SERVICES, &refused).await.expect(422);
}

#[tokio::test]
async fn a_full_range_is_followed_by_the_next() {
    let test = over("10.96.0.0/28").await;
    // Fourteen in all, two of which the cluster's own services have.
    for index in 0..12 {
        test.post(SERVICES, &service(&format!("s{index}"), "ClusterIP")).await.expect(201);
    }
    let full = test.post(SERVICES, &service("more", "ClusterIP")).await.expect(500);
    assert_eq!(
        full["message"],
        "Internal error occurred: failed to allocate a serviceIP for Service \"more\": range is full"
    );
    let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/28"]}});
    test.post(RANGES, &range).await.expect(201);
    let more = test.post(SERVICES, &service("more", "ClusterIP")).await.expect(201);
    assert!(more["spec"]["clusterIP"].as_str().unwrap().starts_with("10.97.0."));
    assert_eq!(owners(&test).await, addresses(&test).await);
}

#[tokio::test]
async fn nothing_is_given_twice_or_lost_by_two_servers_at_once_and_a_restart() {
    let one = Arc::new(dual().await);
    let other = Arc::new(one.another().await);
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let test = if writer % 2 == 0 { one.clone() } else { other.clone() };
            tokio::spawn(async move {
                for round in 0..6 {
                    let name = format!("s{writer}-{round}");
                    let wanted =
                        with(service(&name, "NodePort"), json!({"ipFamilyPolicy": "PreferDualStack"}));
                    test.post(SERVICES, &wanted).await.expect(201);
                    let path = format!("{SERVICES}/{name}");
                    match round % 3 {
                        0 => drop(test.delete(&path).await.expect(200)),
                        1 => {
                            let single =
                                json!({"spec": {"ipFamilyPolicy": "SingleStack", "type": "ClusterIP"}});
                            test.merge(&path, &single).await.expect(200);
                        }
                        _ => {}
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let restarted = one.another().await;
    let kept = addresses(&restarted).await;
    assert_eq!(
        kept.len(),
        2 + 8 * (2 + 2 * 2),
        "two of the cluster, one each of two and two each of two of six"
    );
    assert_eq!(owners(&restarted).await, kept);
    for service in restarted.get(SERVICES).await.expect(200)["items"].as_array().unwrap() {
        if name(service) != "kubernetes" {
            restarted.delete(&format!("{SERVICES}/{}", name(service))).await.expect(200);
        }
    }
    assert_eq!(owners(&restarted).await, addresses(&restarted).await);
    assert!(node_ports(&*restarted.store).await.is_empty(), "every port is back");
}

#[tokio::test]
async fn what_hands_do_to_addresses_is_put_right() {
    let test = TestServer::start().await;
    let wanted = with(service("a", "ClusterIP"), json!({"clusterIP": "10.96.0.77"}));
    test.post(SERVICES, &wanted).await.expect(201);
    let path = format!("{ADDRESSES}/10.96.0.77");
    let is = |code: u16| move |answer: &Answer| answer.code == code;
    test.delete(&path).await.expect(200);
    eventually("an address in use comes back", || test.get(&path), is(200)).await;
    let object = |name: &str, service: &str, managed: bool| {
        let labels = if managed {
            json!({"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
        } else {
            json!({})
        };
        json!({"metadata": {"name": name, "labels": labels},
            "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": service}}})
    };
    test.post(ADDRESSES, &object("10.96.0.88", "gone", true)).await.expect(201);
    let orphan = format!("{ADDRESSES}/10.96.0.88");
    eventually("an address of no service goes", || test.get(&orphan), is(404)).await;
    test.post(ADDRESSES, &object("10.96.0.99", "gone", false)).await.expect(201);
    let refused = with(service("b", "ClusterIP"), json!({"clusterIP": "10.96.0.99"}));
    let refused = test.post(SERVICES, &refused).await.expect(422);
    assert!(
        refused["message"].as_str().unwrap().contains("already allocated"),
        "somebody's own is respected"
    );
    test.get(&format!("{ADDRESSES}/10.96.0.99")).await.expect(200);
    test.post(ADDRESSES, &object("fd00:0::1", "a", false)).await.expect(422);
}

#[tokio::test]
async fn a_restart_frees_what_belongs_to_nobody_and_reserves_what_is_missing() {
    let test = TestServer::start().await;
    let mut wanted = service("a", "NodePort");
    wanted["spec"]["ports"][0]["nodePort"] = 30033.into();
    let made = test.post(SERVICES, &wanted).await.expect(201);
    let ip = made["spec"]["clusterIP"].as_str().unwrap().to_string();
    let write = |key: &str, action| Write { key: key.into(), precondition: Precondition::None, action };
    let stray = || Action::Put {
        value: r#"{"kind":"NodePortAllocation","metadata":{"name":"30044"}}"#.into(),
        time_to_live: None,
    };
    let store = test.store.clone();
    store
        .commit(vec![
            write("/registry/allocations/nodeports/30033", Action::Delete),
            write("/registry/allocations/nodeports/30044", stray()),
        ])
        .await
        .unwrap();
    let restarted = test.another().await;
    let ports = || node_ports(&*store);
    eventually("the ports are those of services", ports, |ports| *ports == ["30033"]).await;
    assert_eq!(owners(&restarted).await.get(&ip).map(String::as_str), Some("a"));
}

#[tokio::test]
async fn node_ports_follow_their_services_type() {
    let test = TestServer::start().await;
    let path = format!("{SERVICES}/a");
    let balancer = with(
        service("a", "LoadBalancer"),
        json!({"externalTrafficPolicy": "Local", "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]}),
    );
    let made = test.post(SERVICES, &balancer).await.expect(201);
    let port = made["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    let check = made["spec"]["healthCheckNodePort"].as_i64().unwrap();
    assert_eq!(made["spec"]["ports"][1]["nodePort"], port, "two protocols share a number");
    assert_ne!(check, port);
    // Below what is drawn.
    let other = json!({"spec": {"healthCheckNodePort": 30001}});
    let refused = test.merge(&path, &other).await.expect(422);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("spec.healthCheckNodePort: Forbidden: field is immutable")
    );

    let without =
        test.merge(&path, &json!({"spec": {"allocateLoadBalancerNodePorts": false}})).await.expect(200);
    assert_eq!(without["spec"]["ports"][0]["nodePort"], port, "what was given is not taken");
    let dropped = test
        .put(&path, &with(balancer.clone(), json!({"allocateLoadBalancerNodePorts": false})))
        .await
        .expect(200);
    assert_eq!(dropped["spec"]["ports"][0].get("nodePort"), None, "and goes when it is left out");
    assert_eq!(dropped["spec"]["healthCheckNodePort"], check);
    let plain = test.merge(&path, &json!({"spec": {"type": "ClusterIP"}})).await.expect(200);
    for field in ["healthCheckNodePort", "externalTrafficPolicy", "allocateLoadBalancerNodePorts"] {
        assert_eq!(plain["spec"].get(field), None, "{field}");
    }
    assert!(node_ports(&*test.store).await.is_empty(), "every port is back");
    let named = json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 100}});
    let refused = test.merge(&path, &named).await.expect(422);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("failed to allocate requested HealthCheck NodePort 100")
    );
}
