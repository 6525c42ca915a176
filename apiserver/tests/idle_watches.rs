//! Five thousand watches whose clients do not read: what they take, that they hold up nobody, and that they are ended.
//!
//! In a process of its own, whose memory is theirs, and their clients'.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is test"
)]

use std::time::{Duration, Instant};

use apiserver::Patience;
use futures::{StreamExt, stream};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use testbed::{Caller, Listening, TestServer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// As many as one connection may carry.
const STREAMS: usize = 250;
const OVER_HTTP2: usize = 4000;
const OVER_HTTP1: usize = 1000;
/// What a watch may take that has nothing to send: where others share its connection, and where it has its own, whose
/// other end in this process is counted as well.
const SHARING_BYTES_MAX: usize = 16 << 10;
const ALONE_BYTES_MAX: usize = 160 << 10;
/// What it may take beside that while it has something to send that nobody reads.
const UNREAD_BYTES_MAX: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(120);

struct Ground {
    test: TestServer,
    listening: Listening,
    connector: TlsConnector,
}

impl Ground {
    /// A connection that takes next to nothing before somebody reads it.
    async fn connect(&self) -> TlsStream<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect(self.listening.address).await.unwrap();
        self.connector.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await.unwrap()
    }

    /// A connection with one watch.
    async fn alone(&self) -> TlsStream<TcpStream> {
        let mut stream = self.connect().await;
        let request = format!("GET {MAPS}?watch=true HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// A connection with as many as it may carry.
    async fn shared(&self) -> TlsStream<TcpStream> {
        let mut stream = self.connect().await;
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        sent.extend(frame(4, 0, 0, &[]));
        let path = format!("{MAPS}?watch=true");
        // GET and https from the static table, then path and authority as they are.
        let mut head = vec![0x82, 0x87, 4, u8::try_from(path.len()).unwrap()];
        head.extend(path.bytes().chain([1, 1, b'x']));
        for number in 0..STREAMS {
            sent.extend(frame(1, 5, 2 * u32::try_from(number).unwrap() + 1, &head));
        }
        stream.write_all(&sent).await.unwrap();
        stream
    }

    /// Waits until so many watches are under way.
    async fn watches(&self, wanted: usize) {
        let counted = async {
            loop {
                let metrics = self.test.get("/metrics").await.expect(200);
                let name = "apiserver_longrunning_requests{verb=\"WATCH\",resource=\"configmaps\"} ";
                let line = metrics.as_str().unwrap().lines().find_map(|line| line.strip_prefix(name));
                if line.is_some_and(|count| count == wanted.to_string()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(LONG, counted)
            .await
            .unwrap_or_else(|_| panic!("there are never {wanted} watches"));
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// How much memory this process takes.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Changes an object often: first a little, which waits in pieces of each watch's own, then by more than is remembered.
async fn write(test: &TestServer) {
    let map = |size: usize, round: usize| -> Value {
        json!({"metadata": {"name": "map"}, "data": {"filler": "x".repeat(size), "round": round.to_string()}})
    };
    test.post(MAPS, &map(1000, 0)).await.expect(201);
    for round in 1..200 {
        let size = if round < 50 { 1000 } else { 150_000 };
        test.put(&format!("{MAPS}/map"), &map(size, round)).await.expect(200);
    }
}

/// Reads until told to stop, and answers how long each read took.
async fn read(caller: Caller, stop: tokio_util::sync::CancellationToken) -> Vec<Duration> {
    let mut taken = Vec::new();
    while !stop.is_cancelled() {
        let begun = Instant::now();
        let answer = tokio::time::timeout(LONG, caller.get("/api/v1/namespaces/default")).await;
        answer.expect("others are served").expect(200);
        taken.push(begun.elapsed());
    }
    taken.sort();
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_nobody_reads_take_little_hold_up_nobody_and_are_ended() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let patience = Patience { stalled: PATIENCE, ..Patience::default() };
    let test = TestServer::start_with(|config| config.security.patience = patience).await;
    let connector = test.connector(&test.issue("admin", Some("system:masters")));
    let ground = Ground { listening: test.listen().await, connector, test };
    let others = ground.test.certificate(&ground.listening, &ground.test.pki.admin);
    others.get("/version").await.expect(200);

    let at_first = resident_bytes();
    let shared = stream::repeat_with(|| ground.shared()).take(OVER_HTTP2 / STREAMS);
    let shared: Vec<_> = shared.buffer_unordered(8).collect().await;
    ground.watches(OVER_HTTP2).await;
    let with_shared = resident_bytes();
    let alone: Vec<_> =
        stream::repeat_with(|| ground.alone()).take(OVER_HTTP1).buffer_unordered(8).collect().await;
    ground.watches(OVER_HTTP2 + OVER_HTTP1).await;
    let with_all = resident_bytes();
    let (sharing, each) = ((with_shared - at_first) / OVER_HTTP2, (with_all - with_shared) / OVER_HTTP1);
    println!("{sharing} bytes per idle watch over HTTP/2, {each} over HTTP/1.1 with its client");
    assert!(sharing < SHARING_BYTES_MAX && each < ALONE_BYTES_MAX);

    let stop = tokio_util::sync::CancellationToken::new();
    let reads = tokio::spawn(read(others, stop.clone()));
    write(&ground.test).await;
    stop.cancel();
    let taken = reads.await.unwrap();
    let unread = resident_bytes().saturating_sub(with_all) / (OVER_HTTP2 + OVER_HTTP1);
    println!("{unread} bytes more per watch that is not read");
    let at = |part: usize| taken[(taken.len() * part / 100).min(taken.len() - 1)];
    println!("{} gets meanwhile, p50 {:?}, p99 {:?}", taken.len(), at(50), at(99));
    assert!(unread < UNREAD_BYTES_MAX);

    // Who does not read is let go, and what was kept for them with them.
    ground.watches(0).await;
    println!(
        "{} MB at first, {} MB with all, {} MB when they are gone",
        at_first >> 20,
        with_all >> 20,
        resident_bytes() >> 20
    );
    drop((shared, alone));
}
