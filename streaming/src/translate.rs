//! Serving WebSocket clients from a streaming server that knows only SPDY (containerd before 2.0, CRI-O).
//!
//! SPDY clients are passed through untouched; WebSocket sessions end here and go on as SPDY sessions.

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
};

use crate::{
    client::{self, ClientError},
    command::{self, CommandOptions, CommandSession, Outcome, TerminalSize},
    port_forward::{self, ForwardedConnection, PortForwardSession},
    proxy,
    spdy::{Connection, Headers, Opener, SpdyError},
    upgrade::{self, UpgradeBody},
};

/// What the stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `exec` or `attach`, with these streams.
    Command(CommandOptions),
    /// `port-forward`.
    PortForward,
}

/// Answers a client's upgrade request from the SPDY-only server at `backend`. Failures are answered as HTTP.
pub async fn translate<B>(mut request: Request<B>, backend: &Uri, purpose: Purpose) -> Response<UpgradeBody> {
    if !upgrade::is_websocket(request.headers()) {
        return proxy::proxy_to(request, backend)
            .await
            .unwrap_or_else(|error| bad_gateway(&error.to_string()));
    }
    let protocols: &[&str] = match purpose {
        Purpose::Command(_) => &["v4.channel.k8s.io"],
        Purpose::PortForward => &[port_forward::PROTOCOL],
    };
    let connection = match client::connect(backend, protocols).await {
        Ok(connection) => connection,
        Err(ClientError::Refused { status, message }) => return upgrade::text_response(status, message),
        Err(error) => return bad_gateway(&error.to_string()),
    };
    match purpose {
        Purpose::Command(options) => match command::accept(&mut request, options) {
            Ok((response, session)) => {
                tokio::spawn(async move {
                    match session.await {
                        Ok(session) => relay_command(session, connection, options).await,
                        Err(error) => tracing::debug!(%error, "session not established"),
                    }
                });
                response
            }
            Err(error) => error.into_response(),
        },
        Purpose::PortForward => match port_forward::accept(&mut request) {
            Ok((response, session)) => {
                tokio::spawn(async move {
                    match session.await {
                        Ok(session) => relay_connections(session, connection).await,
                        Err(error) => tracing::debug!(%error, "session not established"),
                    }
                });
                response
            }
            Err(error) => error.into_response(),
        },
    }
}

fn bad_gateway(reason: &str) -> Response<UpgradeBody> {
    upgrade::text_response(StatusCode::BAD_GATEWAY, format!("unable to upgrade: {reason}"))
}

/// The backend's ends of a command session.
struct BackendStreams {
    error: DuplexStream,
    stdin: Option<DuplexStream>,
    stdout: Option<DuplexStream>,
    stderr: Option<DuplexStream>,
    resize: Option<DuplexStream>,
}

async fn open_streams(connection: &Connection, options: CommandOptions) -> Result<BackendStreams, SpdyError> {
    let open = async |wanted: bool, kind: &str| {
        if !wanted {
            return Ok::<_, SpdyError>(None);
        }
        Ok(Some(connection.open(Headers::default().with("streamType", kind)).await?.io))
    };
    Ok(BackendStreams {
        error: open(true, "error").await?.ok_or(SpdyError::Refused)?,
        stdin: open(options.stdin, "stdin").await?,
        stdout: open(options.stdout, "stdout").await?,
        stderr: open(options.stderr, "stderr").await?,
        resize: open(options.tty, "resize").await?,
    })
}

async fn relay_command(mut session: CommandSession, connection: Connection, options: CommandOptions) {
    let streams = match open_streams(&connection, options).await {
        Ok(streams) => streams,
        Err(error) => return session.finish(Outcome::Failed(error.to_string())).await,
    };
    // Input has its own task: its end is not the end of the session, and the session's end does not wait for it.
    let input = tokio::spawn(copy(session.stdin.take(), streams.stdin));
    let sizes = tokio::spawn(send_sizes(session.resize.take(), streams.resize));
    let output = async {
        tokio::join!(
            copy(streams.stdout, session.stdout.take()),
            copy(streams.stderr, session.stderr.take()),
            read_status(streams.error)
        )
        .2
    };
    let gone = session.gone.clone();
    let outcome = tokio::select! {
        outcome = output => Some(outcome),
        () = gone.cancelled() => None,
    };
    input.abort();
    sizes.abort();
    if let Some(outcome) = outcome {
        session.finish(outcome).await;
    }
}

/// Copies until the end, and passes the end on.
async fn copy(from: Option<DuplexStream>, to: Option<DuplexStream>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    if let Err(error) = tokio::io::copy(&mut from, &mut to).await {
        tracing::debug!(%error, "stream broke off");
    }
    if let Err(error) = to.shutdown().await {
        tracing::trace!(%error, "stream had ended already");
    }
}

async fn send_sizes(sizes: Option<mpsc::Receiver<TerminalSize>>, to: Option<DuplexStream>) {
    let (Some(mut sizes), Some(mut to)) = (sizes, to) else { return };
    while let Some(size) = sizes.recv().await {
        let Ok(json) = serde_json::to_vec(&size) else { continue };
        if to.write_all(&json).await.is_err() {
            return;
        }
    }
}

async fn read_status(mut error: DuplexStream) -> Outcome {
    let mut status = Vec::new();
    match error.read_to_end(&mut status).await {
        Ok(_) if status.is_empty() => {
            Outcome::Failed("the runtime ended the session without a status".into())
        }
        Ok(_) => Outcome::Status(Bytes::from(status)),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

async fn relay_connections(mut session: PortForwardSession, connection: Connection) {
    let mut request = 0u64;
    let ended = connection.ended();
    loop {
        let forwarded = tokio::select! {
            forwarded = session.accept() => forwarded,
            () = ended.cancelled() => None,
        };
        let Some(forwarded) = forwarded else { break };
        tokio::spawn(relay_connection(forwarded, connection.opener(), request));
        request += 1;
    }
}

async fn relay_connection(forwarded: ForwardedConnection, opener: Opener, request: u64) {
    let headers = |kind: &str| {
        Headers::default()
            .with("streamType", kind)
            .with("port", forwarded.port.to_string())
            .with("requestID", request.to_string())
    };
    let streams = async {
        Ok::<_, SpdyError>((opener.open(headers("error")).await?, opener.open(headers("data")).await?))
    };
    let (error, mut data) = match streams.await {
        Ok((error, data)) => (error.io, data.io),
        Err(error) => return forwarded.fail(&error.to_string()).await,
    };
    let (_, mut client_data, client_error) = forwarded.into_parts();
    let copied = tokio::join!(
        tokio::io::copy_bidirectional(&mut client_data, &mut data),
        copy(Some(error), Some(client_error))
    );
    if let (Err(error), ()) = copied {
        tracing::debug!(%error, "forwarded connection broke off");
    }
}
