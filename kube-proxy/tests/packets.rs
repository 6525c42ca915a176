//! Services with real packets: a node, its pods and hosts outside, all in namespaces that vanish with the test.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail where it stands"
)]

#[path = "../../network/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use kube_proxy::Config;
use netlink::netns;
use network::{AttachRequest, NodeNetwork};
use serde_json::{Value, json};
use support::fake_api::FakeApi;
use support::{Host, Lab, ask, ask_udp, can_run, eventually, path_of, serve};
use tokio_util::sync::CancellationToken;

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 50);

/// A node with a network, a proxy and an API that the test writes to.
struct Node {
    network: NodeNetwork,
    api: FakeApi,
    stop: CancellationToken,
}

impl Node {
    async fn start(host: &Host, directory: &std::path::Path) -> Self {
        let cluster = "10.244.0.0/16".parse().unwrap();
        let mut config = network::Config::new("gt", "n1", host.ip, directory.to_owned(), cluster);
        config.pod_cidr = Some("10.244.1.0/24".parse().unwrap());
        config.service_cidr = Some("10.96.0.0/16".parse().unwrap());
        let network = NodeNetwork::prepare(config).await.unwrap();
        let (api, stop) = (FakeApi::new(), CancellationToken::new());
        let mut config = Config::new("gt", "n1", host.ip);
        config.cluster_cidr = Some(cluster);
        config.service_cidr = Some("10.96.0.0/16".parse().unwrap());
        tokio::spawn(kube_proxy::run(config, api.client(), stop.clone()));
        Self { network, api, stop }
    }

    async fn pod(&self, name: &str) -> (File, Ipv4Addr) {
        let namespace = netns::create().unwrap();
        let request = AttachRequest::new(name, path_of(&namespace), "default", name);
        let addresses = self.network.attach(request).await.unwrap();
        serve(&namespace, 8080, name);
        let IpAddr::V4(ip) = addresses.ips[0] else { panic!("an IPv4 address") };
        (namespace, ip)
    }

    /// The service `web` on port 80 of TCP and UDP, with fields of its spec changed.
    fn service(&self, changes: Value) {
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "type": "NodePort", "clusterIP": SERVICE, "ports": [
                { "name": "tcp", "port": 80, "protocol": "TCP", "nodePort": 30080 },
                { "name": "udp", "port": 80, "protocol": "UDP", "nodePort": 30080 },
            ] },
        });
        for (field, value) in changes.as_object().unwrap() {
            service["spec"][field] = value.clone();
        }
        self.api.put("services", &service);
    }

    /// The same with a load balancer at 192.168.77.201 in front.
    fn balanced_service(&self, changes: Value) {
        let mut service = json!({
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "type": "LoadBalancer", "clusterIP": SERVICE, "ports": [{ "name": "tcp", "port": 80 }] },
            "status": { "loadBalancer": { "ingress": [{ "ip": "192.168.77.201" }] } },
        });
        for (field, value) in changes.as_object().unwrap() {
            service["spec"][field] = value.clone();
        }
        self.api.put("services", &service);
    }

    /// Its endpoints: address, node, conditions.
    fn endpoints(&self, endpoints: &[(Ipv4Addr, &str, Value)]) {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|(ip, node, conditions)| json!({ "addresses": [ip], "nodeName": node, "conditions": conditions }))
            .collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": "web-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4",
            "ports": [{ "name": "tcp", "port": 8080, "protocol": "TCP" }, { "name": "udp", "port": 8080, "protocol": "UDP" }],
            "endpoints": endpoints,
        });
        self.api.put("endpointslices", &slice);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

/// Who answered, without the client's address.
fn who(answer: std::io::Result<String>) -> String {
    answer.map_or_else(|e| format!("{:?}", e.kind()), |a| a.split(' ').next().unwrap_or_default().to_owned())
}

/// The response to `GET /healthz`, or the error. On another thread: the server shares this one's runtime.
async fn http(namespace: &File, to: SocketAddr) -> String {
    use std::io::{Read, Write};
    let namespace = namespace.try_clone().unwrap();
    let get = move || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect_timeout(&to, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response)
    };
    let response = tokio::task::spawn_blocking(move || netns::run_in(&namespace, get).unwrap());
    response.await.unwrap().unwrap_or_else(|e| e.to_string())
}

fn counts(n: usize, mut ask: impl FnMut() -> String) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..n {
        *counts.entry(ask()).or_default() += 1;
    }
    counts
}

fn in_lab<F: Future<Output = ()>>(
    test: impl FnOnce(&'static Lab, &'static Host, &'static std::path::Path) -> F + Send,
) {
    if !can_run() {
        return;
    }
    // They live as long as the test process, which is what its servers need.
    let lab: &'static Lab = Box::leak(Box::new(Lab::new()));
    let host: &'static Host = Box::leak(Box::new(lab.host()));
    let directory = tempfile::tempdir().unwrap();
    let path: &'static std::path::Path = Box::leak(directory.path().to_owned().into_boxed_path());
    host.block_on(|| test(lab, host, path));
}

#[test]
fn a_service_should_answer_at_its_address_and_its_node_port_from_everywhere_and_spread_evenly() {
    in_lab(|lab, host, directory| async {
        let node = Node::start(host, directory).await;
        let outside = lab.host();
        let (a, a_ip) = node.pod("a").await;
        let (_b, b_ip) = node.pod("b").await;
        let (client, _) = node.pod("client").await;
        node.service(json!({}));
        node.endpoints(&[(a_ip, "n1", json!({})), (b_ip, "n1", json!({}))]);
        eventually("the service answers", || ask(&client, at(SERVICE, 80)).is_ok()).await;

        let spread = counts(200, || who(ask(&client, at(SERVICE, 80))));
        assert_eq!(spread.len(), 2, "{spread:?}");
        assert!(spread["a"] > 60 && spread["b"] > 60, "{spread:?}");
        let spread = counts(40, || who(ask_udp(&client, at(SERVICE, 80))));
        assert!(spread.contains_key("a") && spread.contains_key("b") && spread.len() == 2, "{spread:?}");

        // The host itself, which has no default route; another host; 127.0.0.1; a pod by the node's address.
        for (namespace, address) in [
            (&host.namespace, at(SERVICE, 80)),
            (&outside.namespace, at(host.ip, 30080)),
            (&host.namespace, at(host.ip, 30080)),
            (&host.namespace, at(Ipv4Addr::LOCALHOST, 30080)),
            (&client, at(host.ip, 30080)),
        ] {
            let spread = counts(30, || who(ask(namespace, address)));
            assert!(
                spread.contains_key("a") && spread.contains_key("b") && spread.len() == 2,
                "{address}: {spread:?}"
            );
            let spread = counts(30, || who(ask_udp(namespace, address)));
            assert!(
                spread.contains_key("a") && spread.contains_key("b") && spread.len() == 2,
                "{address}: {spread:?}"
            );
        }
        // A pod that is sent to itself.
        let spread = counts(30, || who(ask(&a, at(SERVICE, 80))));
        assert!(spread.contains_key("a") && spread.contains_key("b") && spread.len() == 2, "{spread:?}");
        // Pods are seen with their own address.
        let (_, client_ip) = (&client, ask(&client, at(a_ip, 8080)).unwrap());
        let seen = ask(&client, at(SERVICE, 80)).unwrap();
        assert_eq!(seen.split(' ').nth(1), client_ip.split(' ').nth(1));

        node.endpoints(&[(b_ip, "n1", json!({}))]);
        eventually("only b answers", || !counts(20, || who(ask(&client, at(SERVICE, 80)))).contains_key("a"))
            .await;
    });
}

#[test]
fn nobody_home_should_be_said_at_once() {
    in_lab(|lab, host, directory| async {
        let node = Node::start(host, directory).await;
        let outside = lab.host();
        let (client, _) = node.pod("client").await;
        node.service(json!({}));
        eventually("the service is refused", || who(ask(&client, at(SERVICE, 80))) == "ConnectionRefused")
            .await;
        let start = Instant::now();
        for (namespace, address) in [
            (&client, at(SERVICE, 80)),
            (&host.namespace, at(SERVICE, 80)),
            (&outside.namespace, at(host.ip, 30080)),
            (&host.namespace, at(Ipv4Addr::LOCALHOST, 30080)),
            // An address of the range that is no service, and a port that the service has not.
            (&client, at([10, 96, 7, 7], 80)),
            (&client, at(SERVICE, 81)),
            (&host.namespace, at(SERVICE, 81)),
        ] {
            assert_eq!(who(ask(namespace, address)), "ConnectionRefused", "{address}");
            // The kernel tells a local sender of a datagram that it was not allowed out, before the refusal comes back.
            let refused = who(ask_udp(namespace, address));
            assert!(
                ["ConnectionRefused", "PermissionDenied"].contains(&refused.as_str()),
                "{address}: {refused}"
            );
        }
        assert!(start.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn a_client_with_affinity_should_stay_until_its_endpoint_goes() {
    in_lab(|_, host, directory| async {
        let node = Node::start(host, directory).await;
        let mut pods = Vec::new();
        for name in ["a", "b", "c"] {
            pods.push((name, node.pod(name).await));
        }
        let (client, _) = node.pod("client").await;
        node.service(json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 60 } } }));
        let all: Vec<_> = pods.iter().map(|(_, (_, ip))| (*ip, "n1", json!({}))).collect();
        node.endpoints(&all);
        eventually("the service answers", || ask(&client, at(SERVICE, 80)).is_ok()).await;
        let first = counts(30, || who(ask(&client, at(SERVICE, 80))));
        assert_eq!(first.len(), 1, "{first:?}");
        let favourite = first.into_keys().next().unwrap();
        let rest: Vec<_> = pods
            .iter()
            .filter(|(name, _)| *name != favourite)
            .map(|(_, (_, ip))| (*ip, "n1", json!({})))
            .collect();
        node.endpoints(&rest);
        eventually("the favourite is left", || who(ask(&client, at(SERVICE, 80))) != favourite).await;
        let second = counts(30, || who(ask(&client, at(SERVICE, 80))));
        assert_eq!(second.len(), 1, "{second:?}");
        assert!(!second.contains_key(&favourite));
    });
}

#[test]
fn local_policies_should_keep_to_this_node_and_show_the_clients_address() {
    in_lab(|lab, host, directory| async {
        let node = Node::start(host, directory).await;
        let outside = lab.host();
        let elsewhere = lab.host();
        serve(&elsewhere.namespace, 8080, "elsewhere");
        let (_a, a_ip) = node.pod("a").await;
        let (client, _) = node.pod("client").await;
        node.service(json!({ "externalTrafficPolicy": "Local", "healthCheckNodePort": 32100 }));
        node.endpoints(&[(a_ip, "n1", json!({})), (elsewhere.ip, "n2", json!({}))]);
        eventually("the service answers", || ask(&client, at(SERVICE, 80)).is_ok()).await;
        let from_outside = counts(20, || ask(&outside.namespace, at(host.ip, 30080)).unwrap());
        assert_eq!(from_outside.into_keys().collect::<Vec<_>>(), [format!("a {}", outside.ip)]);
        let health = || http(&outside.namespace, at(host.ip, 32100));
        let healthy = health().await;
        assert!(
            healthy.starts_with("HTTP/1.1 200 ") && healthy.contains(r#""localEndpoints":1"#),
            "{healthy}"
        );
        let inside = counts(40, || who(ask(&client, at(SERVICE, 80))));
        assert_eq!(inside.len(), 2, "{inside:?}");
        let from_host = counts(40, || who(ask(&host.namespace, at(Ipv4Addr::LOCALHOST, 30080))));
        assert_eq!(from_host.len(), 2, "{from_host:?}");

        assert!(http(&host.namespace, at(Ipv4Addr::LOCALHOST, 10256)).await.starts_with("HTTP/1.1 200 "));
        node.endpoints(&[(elsewhere.ip, "n2", json!({}))]);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let unhealthy = health().await;
        assert!(unhealthy.starts_with("HTTP/1.1 503 "), "{unhealthy}");
        assert_eq!(who(ask(&outside.namespace, at(host.ip, 30080))), "TimedOut");
        node.endpoints(&[(a_ip, "n1", json!({})), (elsewhere.ip, "n2", json!({}))]);

        node.service(json!({ "internalTrafficPolicy": "Local" }));
        eventually("inside keeps to the node", || {
            counts(20, || who(ask(&client, at(SERVICE, 80)))).len() == 1
        })
        .await;
        node.endpoints(&[(elsewhere.ip, "n2", json!({}))]);
        eventually("nobody here is silence", || who(ask(&client, at(SERVICE, 80))) == "TimedOut").await;

        // An endpoint about to end is better than none.
        let ending = json!({ "ready": false, "serving": true, "terminating": true });
        node.endpoints(&[(a_ip, "n1", ending)]);
        eventually("the ending endpoint answers", || who(ask(&client, at(SERVICE, 80))) == "a").await;
    });
}

#[test]
fn external_addresses_should_answer_those_who_may_ask() {
    in_lab(|lab, host, directory| async {
        let node = Node::start(host, directory).await;
        let (friend, stranger) = (lab.host(), lab.host());
        let (_a, a_ip) = node.pod("a").await;
        let external = at([203, 0, 113, 5], 80);
        let balancer = at([192, 168, 77, 201], 80);
        for outside in [&friend, &stranger] {
            outside.default_route_by(host.ip);
            outside.host_route_by([192, 168, 77, 201].into(), host.ip);
        }
        node.service(json!({ "externalIPs": ["203.0.113.5"] }));
        node.endpoints(&[(a_ip, "n1", json!({}))]);
        eventually("the external address answers", || who(ask(&stranger.namespace, external)) == "a").await;
        let ranges = json!({ "loadBalancerSourceRanges": [format!("{}/32", friend.ip)] });
        node.balanced_service(ranges);
        eventually("the balancer answers a friend", || who(ask(&friend.namespace, balancer)) == "a").await;
        assert_eq!(who(ask(&stranger.namespace, balancer)), "TimedOut");
        node.balanced_service(json!({}));
        eventually("the balancer answers anybody", || who(ask(&stranger.namespace, balancer)) == "a").await;
    });
}

#[test]
fn a_udp_client_should_move_on_when_its_endpoint_goes() {
    in_lab(|_, host, directory| async {
        let node = Node::start(host, directory).await;
        let (_a, a_ip) = node.pod("a").await;
        let (_b, b_ip) = node.pod("b").await;
        let (client, _) = node.pod("client").await;
        node.service(json!({}));
        node.endpoints(&[(a_ip, "n1", json!({}))]);
        eventually("the service answers", || ask_udp(&client, at(SERVICE, 80)).is_ok()).await;
        // One socket, one tracked connection.
        let socket = netns::run_in(&client, || UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket.connect(at(SERVICE, 80)).unwrap();
        let ask = || {
            let mut buffer = [0; 64];
            socket.send(b"?").ok()?;
            let len = socket.recv(&mut buffer).ok()?;
            String::from_utf8(buffer[..len].to_vec()).ok()
        };
        assert!(ask().unwrap().starts_with("a "));
        node.endpoints(&[(b_ip, "n1", json!({}))]);
        eventually("the same socket reaches b", || ask().is_some_and(|a| a.starts_with("b "))).await;
    });
}

#[test]
fn an_endpoint_on_another_node_should_answer_through_the_overlay() {
    if !can_run() {
        return;
    }
    let lab = Lab::new();
    let (hosts, outside) = ([lab.host(), lab.host()], lab.host());
    let api = FakeApi::new();
    for (n, host) in hosts.iter().enumerate() {
        let pods = format!("10.244.{n}.0/24");
        api.put(
            "nodes",
            &json!({
                "metadata": { "name": format!("n{n}") }, "spec": { "podCIDR": pods },
                "status": { "addresses": [{ "type": "InternalIP", "address": host.ip }] },
            }),
        );
    }
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let pods = [netns::create().unwrap(), netns::create().unwrap()];
    let (done, stop) = (std::sync::Barrier::new(3), CancellationToken::new());
    std::thread::scope(|scope| {
        for n in 0..2 {
            let (host, api, directory, pod, done, stop) =
                (&hosts[n], &api, &directories[n], &pods[n], &done, &stop);
            scope.spawn(move || {
                host.block_on(|| async {
                    let cluster = "10.244.0.0/16".parse().unwrap();
                    let name = format!("n{n}");
                    let mut config =
                        network::Config::new("gt", &name, host.ip, directory.path().to_owned(), cluster);
                    config.mode = network::Mode::Vxlan;
                    config.service_cidr = Some("10.96.0.0/16".parse().unwrap());
                    let network = NodeNetwork::start(config, api.client(), stop.clone()).await.unwrap();
                    network.wait_ready().await;
                    network.attach(AttachRequest::new("p", path_of(pod), "default", "p")).await.unwrap();
                    serve(pod, 8080, &name);
                    let mut config = Config::new("gt", &name, host.ip);
                    config.cluster_cidr = Some(cluster);
                    let proxy = tokio::spawn(kube_proxy::run(config, api.client(), stop.clone()));
                    stop.cancelled().await;
                    proxy.await.unwrap().unwrap();
                });
                done.wait();
            });
        }
        api.put("services", &json!({
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "type": "NodePort", "clusterIP": SERVICE, "ports": [{ "port": 80, "nodePort": 30080 }] },
        }));
        api.put("endpointslices", &json!({
            "metadata": { "name": "web-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4", "ports": [{ "port": 8080 }],
            "endpoints": [{ "addresses": ["10.244.1.2"], "nodeName": "n1" }],
        }));
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut answers = Vec::new();
        for (namespace, address) in [
            (&pods[0], at(SERVICE, 80)),
            (&outside.namespace, at(hosts[0].ip, 30080)),
            (&outside.namespace, at(hosts[1].ip, 30080)),
            (&hosts[0].namespace, at(SERVICE, 80)),
            (&hosts[0].namespace, at(Ipv4Addr::LOCALHOST, 30080)),
            (&hosts[0].namespace, at([10, 244, 1, 2], 8080)),
            (&pods[0], at(hosts[1].ip, 30080)),
            (&pods[1], at(hosts[0].ip, 30080)),
        ] {
            let mut answer = ask(namespace, address);
            while answer.is_err() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
                answer = ask(namespace, address);
            }
            answers.push((address, who(answer)));
        }
        // Before any assertion: a panic here would leave the nodes running for ever.
        stop.cancel();
        done.wait();
        assert!(answers.iter().all(|(_, who)| who == "n1"), "{answers:?}");
    });
}

#[test]
fn a_thousand_services_should_be_installed_quickly_and_a_change_should_be_small() {
    in_lab(|_, host, directory| async {
        let node = Node::start(host, directory).await;
        let (_a, a_ip) = node.pod("a").await;
        let (client, _) = node.pod("client").await;
        for n in 0..1000_u32 {
            let name = format!("s{n}");
            let ip = Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 10, 0).to_bits() + n);
            node.api.put("services", &json!({
                "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "default" },
                "spec": { "clusterIP": ip, "ports": [{ "port": 80, "nodePort": 31000 + n }] },
            }));
            let endpoints: Vec<_> = (0..3)
                .map(|e| json!({ "addresses": [format!("10.244.9.{}", e + 2)], "nodeName": "n2" }))
                .collect();
            node.api.put("endpointslices", &json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": { "name": name, "namespace": "default", "labels": { "kubernetes.io/service-name": name } },
                "addressType": "IPv4", "ports": [{ "port": 8080 }], "endpoints": endpoints,
            }));
        }
        let start = Instant::now();
        node.service(json!({}));
        node.endpoints(&[(a_ip, "n1", json!({}))]);
        eventually("the last service answers", || ask(&client, at(SERVICE, 80)).is_ok()).await;
        eprintln!("the last of a thousand services answered after {:?}", start.elapsed());
        node.endpoints(&[]);
        eventually("refused", || who(ask(&client, at(SERVICE, 80))) == "ConnectionRefused").await;
        let start = Instant::now();
        node.endpoints(&[(a_ip, "n1", json!({}))]);
        eventually("answered again", || ask(&client, at(SERVICE, 80)).is_ok()).await;
        eprintln!("a change among a thousand services took {:?}", start.elapsed());
        assert!(who(ask(&host.namespace, at(SERVICE, 80))) == "a");
        kube_proxy::cleanup("gt").unwrap();
        assert!(!netlink::nft::table_exists(netlink::nft::Family::Ipv4, "gt-proxy").unwrap());
        kube_proxy::cleanup("gt").unwrap();
    });
}
