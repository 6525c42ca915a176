//! Sessions over real sockets: each protocol of the clients against the one server side, through the proxy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response, Uri};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use streaming::{
    UpgradeBody,
    command::{self, CommandOptions, Outcome},
    port_forward,
    spdy::Headers,
    translate::{Purpose, translate},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest, http::HeaderValue};

const ALL: CommandOptions = CommandOptions { stdin: true, stdout: true, stderr: true, tty: false };

/// Serves requests with `answer` on a loopback port until the test ends.
async fn serve<F, A>(answer: F) -> Uri
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<UpgradeBody>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, std::convert::Infallible>(answer.await) }
            });
            tokio::spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new();
                drop(connection.serve_connection(TokioIo::new(stream), service).with_upgrades().await);
            });
        }
    });
    format!("http://127.0.0.1:{port}/exec?ports=80").parse().unwrap()
}

/// A command that copies its input to its output, complains once, and exits with 3 at the end of its input.
async fn upper_case_command(mut request: Request<Incoming>) -> Response<UpgradeBody> {
    let (response, pending) = match command::accept(&mut request, ALL) {
        Ok(accepted) => accepted,
        Err(error) => return error.into_response(),
    };
    tokio::spawn(async move {
        let mut session = pending.await.unwrap();
        let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
        session.stderr.take().unwrap().write_all(b"warning").await.unwrap();
        let mut text = String::new();
        stdin.read_to_string(&mut text).await.unwrap();
        stdout.write_all(text.to_uppercase().as_bytes()).await.unwrap();
        drop(stdout);
        session.finish(Outcome::Exited(3)).await;
    });
    response
}

/// Connections that answer with their port and then echo.
async fn echo_ports(mut request: Request<Incoming>) -> Response<UpgradeBody> {
    let (response, pending) = match port_forward::accept(&mut request) {
        Ok(accepted) => accepted,
        Err(error) => return error.into_response(),
    };
    tokio::spawn(async move {
        let mut session = pending.await.unwrap();
        while let Some(connection) = session.accept().await {
            tokio::spawn(async move {
                if connection.port == 1 {
                    return connection.fail("nothing listens on port 1").await;
                }
                let (port, data, _error) = connection.into_parts();
                let (mut read, mut write) = tokio::io::split(data);
                write.write_all(format!("{port}:").as_bytes()).await.unwrap();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
            });
        }
    });
    response
}

async fn through_proxy(backend: Uri) -> Uri {
    serve(move |request| {
        let backend = backend.clone();
        async move { streaming::proxy_to(request, &backend).await.unwrap() }
    })
    .await
}

async fn through_translation(backend: Uri, purpose: Purpose) -> Uri {
    serve(move |request| {
        let backend = backend.clone();
        async move { translate(request, &backend, purpose).await }
    })
    .await
}

async fn spdy_command(url: &Uri) {
    let connection = streaming::client::connect(url, &["v4.channel.k8s.io"]).await.unwrap();
    let open =
        async |kind: &str| connection.open(Headers::default().with("streamType", kind)).await.unwrap().io;
    let (mut error, mut stdin, mut stdout, mut stderr) =
        (open("error").await, open("stdin").await, open("stdout").await, open("stderr").await);
    stdin.write_all(b"hello").await.unwrap();
    stdin.shutdown().await.unwrap();
    let (mut status, mut out, mut err) = (String::new(), String::new(), String::new());
    stdout.read_to_string(&mut out).await.unwrap();
    stderr.read_to_string(&mut err).await.unwrap();
    error.read_to_string(&mut status).await.unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("HELLO", "warning"));
    assert!(status.contains(r#""reason":"ExitCode""#) && status.contains(r#""message":"3""#), "{status}");
}

async fn websocket(url: &Uri, protocol: &'static str) -> tokio_tungstenite::WebSocketStream<TcpStream> {
    let transport = TcpStream::connect(url.authority().unwrap().as_str()).await.unwrap();
    let mut request = url.to_string().replace("http", "ws").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(protocol));
    let (socket, response) = tokio_tungstenite::client_async(request, transport).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    socket
}

/// All that arrives, by channel.
async fn collect(mut socket: tokio_tungstenite::WebSocketStream<TcpStream>) -> [Vec<u8>; 5] {
    let mut channels: [Vec<u8>; 5] = Default::default();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(payload) = message {
            channels[usize::from(payload[0])].extend_from_slice(&payload[1..]);
        }
    }
    channels
}

async fn websocket_command(url: &Uri) {
    let mut socket = websocket(url, "v5.channel.k8s.io").await;
    socket.send(Message::Binary(Bytes::from_static(b"\0hello"))).await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(&[255, 0]))).await.unwrap();
    let [_, out, err, status, _] = collect(socket).await;
    assert_eq!((out.as_slice(), err.as_slice()), (&b"HELLO"[..], &b"warning"[..]));
    let status = String::from_utf8(status).unwrap();
    assert!(status.contains("NonZeroExitCode"), "{status}");
}

async fn spdy_ports(url: &Uri) {
    let connection = streaming::client::connect(url, &["portforward.k8s.io"]).await.unwrap();
    let open = async |kind: &str, port: &str, request: &str| {
        let headers =
            Headers::default().with("streamType", kind).with("port", port).with("requestID", request);
        connection.open(headers).await.unwrap().io
    };
    let (mut failure, _unused) = (open("error", "1", "0").await, open("data", "1", "0").await);
    let (_error, mut data) = (open("error", "80", "1").await, open("data", "80", "1").await);
    data.write_all(b"ping").await.unwrap();
    data.shutdown().await.unwrap();
    let (mut answer, mut reason) = (String::new(), String::new());
    data.read_to_string(&mut answer).await.unwrap();
    failure.read_to_string(&mut reason).await.unwrap();
    assert_eq!((answer.as_str(), reason.as_str()), ("80:ping", "nothing listens on port 1"));
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("took longer than 20 s")
}

#[tokio::test]
async fn a_command_should_run_over_every_protocol_directly_and_through_the_proxy() {
    within(async {
        let direct = serve(upper_case_command).await;
        let proxied = through_proxy(direct.clone()).await;
        let twice = through_proxy(proxied.clone()).await;
        for url in [direct, proxied, twice] {
            spdy_command(&url).await;
            websocket_command(&url).await;
        }
    })
    .await;
}

#[tokio::test]
async fn websocket_clients_should_be_served_by_a_server_that_knows_only_spdy() {
    within(async {
        let spdy_only = serve(|request: Request<Incoming>| async {
            assert!(streaming::is_spdy(request.headers()));
            upper_case_command(request).await
        });
        let translated = through_translation(spdy_only.await, Purpose::Command(ALL)).await;
        websocket_command(&translated).await;
        spdy_command(&translated).await;
    })
    .await;
}

#[tokio::test]
async fn ports_should_be_forwarded_over_spdy_and_over_channels() {
    within(async {
        let direct = serve(echo_ports).await;
        let translated = through_translation(direct.clone(), Purpose::PortForward).await;
        for url in [direct, translated] {
            spdy_ports(&url).await;
            let mut socket = websocket(&url, "v4.channel.k8s.io").await;
            socket.send(Message::Binary(Bytes::from_static(b"\0ping"))).await.unwrap();
            let mut data = Vec::new();
            while data.len() < 9 {
                if let Message::Binary(payload) = socket.next().await.unwrap().unwrap()
                    && payload[0] == 0
                {
                    data.extend_from_slice(&payload[1..]);
                }
            }
            assert_eq!(data, b"\x50\x0080:ping");
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_that_asks_for_no_upgrade_should_be_refused() {
    within(async {
        let url = serve(upper_case_command).await;
        let mut transport = TcpStream::connect(url.authority().unwrap().as_str()).await.unwrap();
        transport.write_all(b"GET /exec HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        transport.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    })
    .await;
}

/// Two lines, and the end.
async fn two_lines(mut request: Request<Incoming>) -> Response<UpgradeBody> {
    let lines =
        ["one\n", "two\n"].map(|line| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(line))));
    let content = http_body_util::StreamBody::new(futures::stream::iter(lines));
    match streaming::reading::accept(&mut request) {
        Ok(reader) => reader.respond(content),
        Err(error) => error.into_response(),
    }
}

#[tokio::test]
async fn a_reader_should_get_everything_in_messages_and_a_normal_end() {
    within(async {
        let server = serve(two_lines).await;
        for (protocol, expected) in [
            ("binary.k8s.io", ["", "one\n", "two\n"]),
            ("base64.binary.k8s.io", ["", "b25lCg==", "dHdvCg=="]),
        ] {
            let mut socket = websocket(&server, protocol).await;
            for part in expected {
                let message = socket.next().await.unwrap().unwrap();
                assert_eq!(message.is_text(), protocol.starts_with("base64"));
                assert_eq!(message.into_data(), part.as_bytes(), "{protocol}");
            }
            let Message::Close(Some(close)) = socket.next().await.unwrap().unwrap() else {
                panic!("no close")
            };
            assert_eq!(u16::from(close.code), 1000);
        }
        let mut request = server.to_string().replace("http", "ws").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("v4.channel.k8s.io"));
        let transport =
            TcpStream::connect((server.host().unwrap(), server.port_u16().unwrap())).await.unwrap();
        assert!(
            tokio_tungstenite::client_async(request, transport).await.is_err(),
            "not a protocol to read by"
        );
    })
    .await;
}
