//! The session over a WebSocket: one channel for each of its ends.

use http::{Request, Response, header};
use tokio::{
    io::{AsyncWriteExt, DuplexStream, WriteHalf},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

use super::{
    CommandOptions, CommandSession, Outcome, PendingSession, STREAM_BUFFER_BYTES, SizeParser, TerminalSize,
    status,
};
use crate::{
    upgrade::{self, HandshakeError, UpgradeBody},
    websocket::{self, ChannelReader, ChannelWriter, Encoding},
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// From version 5 on, a message on this channel names a channel that its sender has closed.
const CLOSE: u8 = 255;

const PROTOCOLS: &[&str] = &[
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
];

pub(super) fn accept<B>(
    request: &mut Request<B>,
    options: CommandOptions,
) -> Result<(Response<UpgradeBody>, PendingSession), HandshakeError> {
    let protocol = upgrade::negotiate(request.headers(), header::SEC_WEBSOCKET_PROTOCOL.as_str(), PROTOCOLS)?;
    let response = upgrade::websocket_response(request.method(), request.headers(), protocol)?;
    let upgraded = hyper::upgrade::on(request);
    let session = Box::pin(async move {
        let socket = websocket::accept(upgraded).await?;
        let encoding = if protocol.contains("base64") { Encoding::Base64 } else { Encoding::Binary };
        let (reader, writer) = websocket::channels(socket, encoding);
        Ok(establish(reader, writer, protocol, options).await)
    });
    Ok((response, session))
}

async fn establish(
    reader: ChannelReader,
    writer: ChannelWriter,
    protocol: &'static str,
    options: CommandOptions,
) -> CommandSession {
    // Some clients take the first message, empty as it is, for the sign that the command runs.
    let first = [(options.stdout, STDOUT), (options.stderr, STDERR), (true, ERROR)];
    if let Some((_, channel)) = first.iter().find(|(wanted, _)| *wanted) {
        writer.send(*channel, &[]).await;
    }
    let pipe = |wanted: bool| wanted.then(|| tokio::io::duplex(STREAM_BUFFER_BYTES)).unzip();
    let (stdin, stdin_source) = pipe(options.stdin);
    let (stdout, stdout_sink) = pipe(options.stdout);
    let (stderr, stderr_sink) = pipe(options.stderr);
    let (sizes, resize) = options.tty.then(|| mpsc::channel(4)).unzip();
    let gone = CancellationToken::new();
    let stdin_source = stdin_source.map(|source| tokio::io::split(source).1);
    let input = Input { stdin: stdin_source, sizes, parser: SizeParser::default() };
    let (outcome, awaited) = oneshot::channel();
    let driver = tokio::spawn(drive(
        reader,
        writer,
        input,
        Output { stdout: stdout_sink, stderr: stderr_sink, has_status: protocol.starts_with('v') },
        awaited,
        gone.clone(),
    ));
    CommandSession { stdin, stdout, stderr, resize, gone, outcome, driver }
}

struct Output {
    stdout: Option<DuplexStream>,
    stderr: Option<DuplexStream>,
    /// Whether the protocol knows `Status` objects.
    has_status: bool,
}

async fn drive(
    mut reader: ChannelReader,
    writer: ChannelWriter,
    mut input: Input,
    output: Output,
    outcome: oneshot::Receiver<Outcome>,
    gone: CancellationToken,
) {
    let send = async {
        let sent = tokio::join!(
            send_output(&writer, STDOUT, output.stdout),
            send_output(&writer, STDERR, output.stderr)
        );
        let outcome = outcome.await.unwrap_or_else(|_| Outcome::Failed("the session was abandoned".into()));
        sent.0 && sent.1 && tell(&writer, &outcome, output.has_status).await
    };
    let read = async {
        while let Some((channel, payload)) = reader.next().await {
            input.take(channel, &payload).await;
        }
    };
    let finished = tokio::select! {
        told = send => told,
        () = read => false,
    };
    // Before the wait for the client's own close: its input ends here, whatever it still sends.
    drop(input);
    if finished {
        writer.close().await;
        reader.drain().await;
    }
    gone.cancel();
}

async fn send_output(writer: &ChannelWriter, channel: u8, source: Option<DuplexStream>) -> bool {
    match source {
        Some(source) => writer.send_all(channel, source).await,
        None => true,
    }
}

async fn tell(writer: &ChannelWriter, outcome: &Outcome, has_status: bool) -> bool {
    if has_status {
        writer.send(ERROR, &status::status_object(outcome)).await
    } else if let Some(message) = status::plain_message(outcome) {
        writer.send(ERROR, message.as_bytes()).await
    } else {
        true
    }
}

/// What the client sends, on its way to the command.
struct Input {
    stdin: Option<WriteHalf<DuplexStream>>,
    sizes: Option<mpsc::Sender<TerminalSize>>,
    parser: SizeParser,
}

impl Input {
    async fn take(&mut self, channel: u8, payload: &[u8]) {
        match channel {
            STDIN => {
                if let Some(stdin) = &mut self.stdin
                    && stdin.write_all(payload).await.is_err()
                {
                    // The command does not read any more; it may still write.
                    self.stdin = None;
                }
            }
            RESIZE => {
                for size in self.parser.push(payload) {
                    if let Some(sizes) = &self.sizes
                        && sizes.send(size).await.is_err()
                    {
                        self.sizes = None;
                    }
                }
            }
            CLOSE if payload.first() == Some(&STDIN) => {
                if let Some(mut stdin) = self.stdin.take()
                    && let Err(error) = stdin.shutdown().await
                {
                    tracing::trace!(%error, "the command had closed its input already");
                }
            }
            other => {
                tracing::trace!(other, "passed over a message on a channel that clients do not write to")
            }
        }
    }
}
