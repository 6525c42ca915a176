//! Cluster DNS asked by a pod, over UDP and TCP, with an upstream resolver on another host.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail where it stands"
)]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use netlink::netns;
use network::{AttachRequest, NodeNetwork, dns};
use serde_json::json;
use support::fake_api::FakeApi;
use support::{Lab, can_run, eventually, path_of};
use tokio_util::sync::CancellationToken;

const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn by_udp(pod: &File, name: &str, kind: RecordType) -> std::io::Result<Message> {
    by_udp_within(pod, name, kind, Duration::from_secs(2))
}

fn by_udp_within(pod: &File, name: &str, kind: RecordType, limit: Duration) -> std::io::Result<Message> {
    let bytes = question(name, kind).to_vec().unwrap();
    netns::run_in(pod, || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(limit))?;
        socket.connect((DNS, 53))?;
        socket.send(&bytes)?;
        let mut buffer = [0; 2048];
        let len = socket.recv(&mut buffer)?;
        Ok(Message::from_vec(&buffer[..len]).unwrap())
    })
    .unwrap()
}

fn by_tcp(pod: &File, name: &str, kind: RecordType) -> Message {
    let bytes = question(name, kind).to_vec().unwrap();
    netns::run_in(pod, || {
        let mut stream = TcpStream::connect((DNS, 53)).unwrap();
        stream.write_all(&(bytes.len() as u16).to_be_bytes()).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply).unwrap();
        Message::from_vec(&reply).unwrap()
    })
    .unwrap()
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

/// A resolver that says 192.0.2.7 to everything, except that names with `missing` do not exist; counts what it is asked.
fn upstream(host: &support::Host) -> Arc<AtomicUsize> {
    let socket = host.run(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((len, client)) = socket.recv_from(&mut buffer) {
            count.fetch_add(1, Ordering::SeqCst);
            let mut reply = Message::from_vec(&buffer[..len]).unwrap();
            reply.metadata.message_type = MessageType::Response;
            let name = reply.queries[0].name().clone();
            if name.to_ascii().contains("missing") {
                reply.metadata.response_code = ResponseCode::NXDomain;
            } else {
                reply.add_answer(Record::from_rdata(name, 20, RData::A(A::new(192, 0, 2, 7))));
            }
            let _lost = socket.send_to(&reply.to_vec().unwrap(), client);
        }
    });
    asked
}

fn fill(api: &FakeApi) {
    let service = |name: &str, spec: serde_json::Value| {
        api.put("services", &json!({ "metadata": { "name": name, "namespace": "default" }, "spec": spec }));
    };
    service(
        "web",
        json!({ "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": [{ "name": "http", "port": 80 }] }),
    );
    service("many", json!({ "clusterIP": "None", "ports": [{ "name": "http", "port": 80 }] }));
    service("out", json!({ "type": "ExternalName", "externalName": "example.com" }));
    let endpoints: Vec<_> = (0..200).map(|n| json!({ "addresses": [format!("10.244.1.{n}")] })).collect();
    api.put("endpointslices", &json!({
        "metadata": { "name": "many-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "many" } },
        "addressType": "IPv4", "ports": [{ "name": "http", "port": 80 }], "endpoints": endpoints,
    }));
}

#[test]
fn a_pod_should_resolve_the_cluster_and_the_world() {
    if !can_run() {
        return;
    }
    let (lab, directory) = (Lab::new(), tempfile::tempdir().unwrap());
    let (host, outside) = (lab.host(), lab.host());
    let asked = upstream(&outside);
    let api = FakeApi::new();
    fill(&api);
    host.block_on(|| async {
        let cluster = "10.244.0.0/16".parse().unwrap();
        let mut config = network::Config::new("gt", "n1", host.ip, directory.path().to_owned(), cluster);
        config.pod_cidr = Some("10.244.1.0/24".parse().unwrap());
        let network = NodeNetwork::prepare(config).await.unwrap();
        let pod = netns::create().unwrap();
        network.attach(AttachRequest::new("p", path_of(&pod), "default", "p")).await.unwrap();
        let mut config = dns::Config::new("gt", "cluster.local", DNS);
        config.upstreams = vec![SocketAddr::from((outside.ip, 53))];
        let (stop, start) = (CancellationToken::new(), Instant::now());
        let server = tokio::spawn(dns::run(config, api.client(), stop.clone()));
        // The questions below block their thread, so they must not be on the server's.
        let asking = tokio::task::spawn_blocking(move || {
            // A question that comes before the server is simply lost.
            let ask = || {
                by_udp_within(
                    &pod,
                    "web.default.svc.cluster.local.",
                    RecordType::A,
                    Duration::from_millis(50),
                )
            };
            while let Err(error) = ask() {
                assert!(start.elapsed() < Duration::from_secs(5), "{error}");
            }
            eprintln!("first answer after {:?}", start.elapsed());
            let started = Instant::now();
            for _ in 0..500 {
                by_udp(&pod, "web.default.svc.cluster.local.", RecordType::A).unwrap();
            }
            eprintln!("an answer takes {:?}, making a thread and a socket included", started.elapsed() / 500);
            questions(&pod, &asked);
        });
        asking.await.unwrap();
        stop.cancel();
        server.await.unwrap().unwrap();
        assert!(network::leftovers("gt").unwrap().iter().any(|l| l.contains("10.96.0.10")));
        network::cleanup("gt").unwrap();
        eventually("nothing is left", || network::leftovers("gt").unwrap().is_empty()).await;
    });
}

fn questions(pod: &File, asked: &AtomicUsize) {
    let web = by_udp(pod, "WEB.default.svc.cluster.local.", RecordType::A).unwrap();
    assert_eq!(addresses(&web), ["10.96.0.7"]);
    assert!(web.metadata.authoritative);
    assert_eq!(addresses(&by_tcp(pod, "web.default.svc.cluster.local.", RecordType::A)), ["10.96.0.7"]);
    let none = by_udp(pod, "web.default.svc.cluster.local.", RecordType::AAAA).unwrap();
    assert_eq!((none.metadata.response_code, none.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(none.authorities[0].record_type(), RecordType::SOA);
    let missing = by_udp(pod, "nope.default.svc.cluster.local.", RecordType::A).unwrap();
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
    let pointer = by_udp(pod, "7.0.96.10.in-addr.arpa.", RecordType::PTR).unwrap();
    assert_eq!(addresses(&pointer), ["web.default.svc.cluster.local."]);

    let cut = by_udp(pod, "many.default.svc.cluster.local.", RecordType::A).unwrap();
    assert!(cut.metadata.truncation);
    assert_eq!(by_tcp(pod, "many.default.svc.cluster.local.", RecordType::A).answers.len(), 200);
    assert_eq!(asked.load(Ordering::SeqCst), 0, "the cluster's names stay in the cluster");

    assert_eq!(addresses(&by_udp(pod, "Example.com.", RecordType::A).unwrap()), ["192.0.2.7"]);
    let again = by_udp(pod, "eXample.com.", RecordType::A).unwrap();
    assert_eq!(again.queries[0].name().to_ascii(), "eXample.com.");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the second time from the cache");
    let missing = by_udp(pod, "missing.example.com.", RecordType::A).unwrap();
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    let alias = by_udp(pod, "out.default.svc.cluster.local.", RecordType::A).unwrap();
    assert_eq!(addresses(&alias), ["example.com.", "192.0.2.7"]);
}
