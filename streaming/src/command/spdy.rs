//! The session over SPDY: the client opens one stream for each of its ends and names it in a header.

use std::time::Duration;

use http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::{mpsc, oneshot},
};

use super::{
    CommandOptions, CommandSession, Outcome, PendingSession, SessionError, SizeParser, TerminalSize, status,
};
use crate::{
    spdy::{Connection, Side, Stream},
    upgrade::{self, HandshakeError, UpgradeBody},
};

const PROTOCOLS: &[&str] =
    &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io", ""];
/// How long the client may take to open its streams.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn accept<B>(
    request: &mut Request<B>,
    options: CommandOptions,
) -> Result<(Response<UpgradeBody>, PendingSession), HandshakeError> {
    let protocol = upgrade::negotiate(request.headers(), upgrade::STREAM_PROTOCOL, PROTOCOLS)?;
    let upgraded = hyper::upgrade::on(request);
    let session = Box::pin(async move {
        let connection = Connection::start(TokioIo::new(upgraded.await?), Side::Server);
        establish(connection, protocol, options).await
    });
    Ok((upgrade::spdy_response(protocol), session))
}

#[derive(Default)]
struct Streams {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

impl Streams {
    fn add(&mut self, stream: Stream) {
        let slot = match stream.headers.get("streamtype") {
            Some("error") => &mut self.error,
            Some("stdin") => &mut self.stdin,
            Some("stdout") => &mut self.stdout,
            Some("stderr") => &mut self.stderr,
            Some("resize") => &mut self.resize,
            other => {
                tracing::debug!(?other, "passed over a stream of unknown type");
                return;
            }
        };
        *slot = Some(stream);
    }

    fn is_complete(&self, options: CommandOptions, has_resize: bool) -> bool {
        self.error.is_some()
            && (self.stdin.is_some() || !options.stdin)
            && (self.stdout.is_some() || !options.stdout)
            && (self.stderr.is_some() || !options.stderr)
            && (self.resize.is_some() || !options.tty || !has_resize)
    }
}

async fn establish(
    mut connection: Connection,
    protocol: &'static str,
    options: CommandOptions,
) -> Result<CommandSession, SessionError> {
    let sends_size = matches!(protocol, "v4.channel.k8s.io" | "v3.channel.k8s.io");
    let mut streams = Streams::default();
    let collected = tokio::time::timeout(STREAMS_TIMEOUT, async {
        while !streams.is_complete(options, sends_size) {
            streams.add(connection.accept().await?);
        }
        Some(())
    });
    if !matches!(collected.await, Ok(Some(()))) {
        return Err(SessionError::Streams);
    }
    let error = streams.error.ok_or(SessionError::Streams)?.io;
    let resize = options.tty.then(|| read_sizes(streams.resize.map(|stream| stream.io)));
    let (outcome, awaited) = oneshot::channel();
    let gone = connection.ended();
    let driver = tokio::spawn(drive(connection, protocol, error, awaited));
    Ok(CommandSession {
        stdin: streams.stdin.map(|stream| stream.io),
        stdout: streams.stdout.map(|stream| stream.io),
        stderr: streams.stderr.map(|stream| stream.io),
        resize,
        gone,
        outcome,
        driver,
    })
}

async fn drive(
    connection: Connection,
    protocol: &'static str,
    mut error: DuplexStream,
    outcome: oneshot::Receiver<Outcome>,
) {
    let outcome = outcome.await.unwrap_or_else(|_| Outcome::Failed("the session was abandoned".into()));
    let told = if protocol == "v4.channel.k8s.io" {
        error.write_all(&status::status_object(&outcome)).await
    } else if let Some(message) = status::plain_message(&outcome) {
        error.write_all(message.as_bytes()).await
    } else {
        Ok(())
    };
    if let Err(error) = told {
        tracing::debug!(%error, "the client went away before it learned the exit status");
    }
    drop(error);
    connection.close().await;
}

fn read_sizes(stream: Option<DuplexStream>) -> mpsc::Receiver<TerminalSize> {
    let (sender, receiver) = mpsc::channel(4);
    if let Some(mut stream) = stream {
        tokio::spawn(async move {
            let mut parser = SizeParser::default();
            let mut buffer = [0u8; 256];
            while let Ok(count) = stream.read(&mut buffer).await
                && count > 0
            {
                for size in parser.push(buffer.get(..count).unwrap_or_default()) {
                    if sender.send(size).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
    receiver
}
