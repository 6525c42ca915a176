//! Over real sockets: TLS, client certificates, streams through to an agent, and the end.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use pki::{Authority, CertificateAndKey, Leaf, Usage};
use serde_json::json;
use testbed::Listening;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::{CONFIG_MAPS, TestServer};

/// A server that is reached over TLS.
struct Running {
    test: TestServer,
    listening: Listening,
}

async fn run() -> Running {
    let test = TestServer::start().await;
    let listening = test.listen().await;
    Running { test, listening }
}

impl Running {
    /// A client that shows this certificate.
    fn client(&self, pair: &CertificateAndKey) -> kube::Client {
        self.test.certificate(&self.listening, pair).client
    }

    fn issue(&self, user: &str, group: &str) -> CertificateAndKey {
        self.test.issue(user, Some(group))
    }
}

async fn get(client: &kube::Client, path: &str) -> (u16, String) {
    let request = http::Request::get(path).body(kube::client::Body::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn a_certificate_should_say_who_asks() {
    let running = run().await;
    let admin = running.client(&running.issue("ann", "system:masters"));
    assert_eq!(get(&admin, CONFIG_MAPS).await.0, 200);
    let joe = running.client(&running.issue("joe", "dev"));
    let (code, text) = get(&joe, CONFIG_MAPS).await;
    assert_eq!(code, 403);
    assert!(text.contains("User \\\"joe\\\" cannot list"), "{text}");
    assert_eq!(get(&joe, "/readyz").await, (200, "ok".to_string()));
    let stranger = Authority::create("somebody else", jiff::Timestamp::now()).unwrap();
    let forged =
        stranger.issue(&Leaf::client("ann", Some("system:masters")), jiff::Timestamp::now()).unwrap();
    let forger = running.client(&forged);
    let request = http::Request::get(CONFIG_MAPS).body(kube::client::Body::empty()).unwrap();
    match forger.send(request).await {
        // The handshake fails, or the certificate is known for what it is.
        Err(_) => {}
        Ok(response) => assert_eq!(response.status(), 401),
    }
}

#[tokio::test]
async fn a_stopping_server_should_end_its_watches_and_return() {
    let running = run().await;
    let admin = running.client(&running.issue("ann", "system:masters"));
    let request =
        http::Request::get(format!("{CONFIG_MAPS}?watch=1")).body(kube::client::Body::empty()).unwrap();
    let watch = admin.send(request).await.unwrap();
    let address = running.listening.address;
    let stopping = running.listening.stop();
    let ended = tokio::time::timeout(Duration::from_secs(5), watch.into_body().collect()).await.unwrap();
    assert!(ended.unwrap().to_bytes().is_empty());
    drop(admin);
    tokio::time::timeout(Duration::from_secs(5), stopping).await.unwrap().unwrap().unwrap();
    assert!(std::net::TcpListener::bind(address).is_ok(), "the port is free again");
}

/// An agent that answers with fixed bytes, one piece after the other as it is told to.
async fn agent(running: &Running, pieces: Vec<&'static str>, go_on: Arc<tokio::sync::Semaphore>) -> u16 {
    let mut leaf = Leaf::client("system:node:n1", None);
    leaf.usage = Usage::Server;
    leaf.addresses = vec!["127.0.0.1".parse().unwrap()];
    let pair = running.test.pki.authority.issue(&leaf, jiff::Timestamp::now()).unwrap();
    use rustls::pki_types::pem::PemObject;
    let chain = rustls::pki_types::CertificateDer::pem_slice_iter(pair.certificate_pem.as_bytes());
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
        let mut head = vec![0; 4096];
        let length = stream.read(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head[..length]).to_lowercase();
        assert!(!head.contains("authorization"), "no credentials travel: {head}");
        for piece in pieces {
            go_on.acquire().await.unwrap().forget();
            stream.write_all(piece.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
        stream.shutdown().await.unwrap();
    });
    port
}

async fn pod_on_node(running: &Running, port: u16) {
    let test = &running.test;
    test.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    test.post("/api/v1/namespaces/default/pods", &pod).await.expect(201);
    test.post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await.expect(201);
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    test.merge("/api/v1/nodes/n1/status", &status).await.expect(200);
}

const LOG: &str = "/api/v1/namespaces/default/pods/p/log?follow=true";

#[tokio::test]
async fn logs_should_pass_through_as_they_are_written() {
    let running = run().await;
    let go_on = Arc::new(tokio::sync::Semaphore::new(1));
    let pieces =
        vec!["HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nfirst\n", "second\n"];
    let port = agent(&running, pieces, go_on.clone()).await;
    pod_on_node(&running, port).await;
    let admin = running.client(&running.issue("ann", "system:masters"));
    let request = http::Request::get(LOG)
        .header("authorization", "Bearer secret")
        .body(kube::client::Body::empty())
        .unwrap();
    // The certificate is asked before the token, so that the request is still ann's.
    let response = admin.send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut log = response.into_body();
    let first = log.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "first\n", "before there is a second");
    go_on.add_permits(1);
    assert_eq!(log.frame().await.unwrap().unwrap().into_data().unwrap(), "second\n");
    assert!(log.frame().await.is_none());
}

#[tokio::test]
async fn an_agents_refusal_should_become_a_status() {
    let running = run().await;
    let refusal = "HTTP/1.1 400 Bad Request\r\ncontent-length: 21\r\n\r\ncontainer is waiting\n";
    let port = agent(&running, vec![refusal], Arc::new(tokio::sync::Semaphore::new(1))).await;
    pod_on_node(&running, port).await;
    let refused = running.test.get(LOG).await.expect(400);
    assert_eq!(refused["message"], "container is waiting");
    let unreachable = running.test.get(LOG).await.expect(503);
    assert!(unreachable["message"].as_str().unwrap().starts_with("error dialing backend"), "{unreachable}");
}

#[tokio::test]
async fn a_server_on_any_port_should_serve_and_promise_nothing() {
    let test = TestServer::start_with(|config| config.bind_address.set_port(0)).await;
    let listener = test.server.bind().await.unwrap();
    assert_ne!(listener.local_addr().unwrap().port(), 0);
    let endpoints = test.get("/api/v1/namespaces/default/endpoints/kubernetes").await.expect(200);
    assert!(endpoints["subsets"].as_array().is_none_or(Vec::is_empty), "{endpoints:#}");
}
