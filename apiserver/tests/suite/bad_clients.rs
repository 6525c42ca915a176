//! Clients that dawdle, send without end or do not read: each gets a clear answer or a closed connection, and others notice
//! nothing. Over real TLS.

use std::time::Duration;

use apiserver::Patience;
use rustls::pki_types::ServerName;
use testbed::Listening;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::server::{CONFIG_MAPS, TestServer, config_map};

/// A server that listens, and whoever connects to it as an administrator.
struct Front {
    test: TestServer,
    connector: TlsConnector,
    listening: Listening,
}

const SOON: Duration = Duration::from_secs(60);

impl Front {
    async fn new(patience: Patience) -> Self {
        let test = TestServer::start_with(|config| config.security.patience = patience).await;
        let connector = test.connector(&test.issue("admin", Some("system:masters")));
        let listening = test.listen().await;
        Self { test, connector, listening }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.listening.address).await.unwrap();
        self.connector.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await.unwrap()
    }

    /// Sends bytes, and reads until the server closes the connection.
    async fn exchange(&self, sent: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may close before it has read everything.
        let _cut = stream.write_all(sent).await;
        read_to_end(&mut stream).await
    }

    async fn others_are_served(&self) {
        let mut stream = self.connect().await;
        stream.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

async fn read_to_end(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut answer = Vec::new();
    // A reset instead of an orderly end is an end too.
    let _cut =
        tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn who_never_shakes_hands_is_let_go() {
    let front = Front::new(Patience { handshake: SECOND, ..Patience::default() }).await;
    let mut silent = TcpStream::connect(front.listening.address).await.unwrap();
    assert_eq!(read_to_end(&mut silent).await, "");
}

#[tokio::test]
async fn who_holds_a_connection_and_asks_nothing_is_let_go() {
    let front = Front::new(Patience { head: SECOND * 3, ..Patience::default() }).await;
    let silent = front.exchange(b"");
    let half_a_preface = front.exchange(b"PRI * HTTP/2");
    let mut settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    settings.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let only_settings = front.exchange(&settings);
    let answers = tokio::join!(silent, half_a_preface, only_settings);
    assert!(answers.0.is_empty() && answers.1.is_empty(), "{answers:?}");
}

#[tokio::test]
async fn who_is_told_something_all_the_time_is_not_let_go() {
    let front = Front::new(Patience { head: SECOND * 3, ..Patience::default() }).await;
    let admin = front.test.certificate(&front.listening, &front.test.pki.admin);
    let mut watch = admin.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    // Longer than anybody may be silent.
    tokio::time::sleep(SECOND * 7).await;
    front.test.post(CONFIG_MAPS, &config_map("late")).await.expect(201);
    assert_eq!(watch.next_name().await.1, "late");
}

#[tokio::test]
async fn who_never_ends_a_head_is_let_go() {
    let front = Front::new(Patience { head: SECOND, ..Patience::default() }).await;
    front.exchange(b"GET /version HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let front = Front::new(Patience::default()).await;
    let mut head = b"GET /version HTTP/1.1\r\nhost: x\r\n".to_vec();
    for number in 0..90 {
        head.extend(format!("x-{number}: {}\r\n", "a".repeat(4000)).bytes());
    }
    let answer = front.exchange(&head).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    front.others_are_served().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let front = Front::new(Patience { body: SECOND, ..Patience::default() }).await;
    let head = format!(
        "POST {CONFIG_MAPS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{{\"kind\""
    );
    let answer = front.exchange(head.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("did not come whole within 1s"),
        "{answer}"
    );
    front.others_are_served().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_answered_and_not_kept() {
    let front = Front::new(Patience::default()).await;
    let length = 4 * 1024 * 1024;
    let mut request = format!("POST {CONFIG_MAPS} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    request.resize(request.len() + length, b' ');
    let answer = front.exchange(&request).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("RequestEntityTooLarge"), "{answer}");
}

#[tokio::test]
async fn what_numbers_and_names_say_twice_or_too_large_is_refused_by_name() {
    let test = TestServer::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let with_replicas =
        |replicas: &str| format!("{{\"metadata\":{{\"name\":\"d\"}},\"spec\":{{\"replicas\":{replicas}}}}}");
    for replicas in ["1e400", "99999999999999999999", "1.5", "-0.1"] {
        let answer = test.send("POST", deployments, "application/json", with_replicas(replicas)).await;
        assert_eq!(answer.code, 400, "{replicas}: {}", answer.body);
        assert_eq!(answer.body["kind"], "Status");
    }
    let twice = "{\"metadata\":{\"name\":\"m\"},\"data\":{\"a\":\"1\",\"a\":\"2\"}}";
    let strict = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    let answer = test.send("POST", &strict, "application/json", twice).await.expect(400);
    assert!(answer["message"].as_str().unwrap().contains("duplicate field"), "{answer}");
}
