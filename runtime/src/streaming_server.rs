//! The server behind the URLs that `Exec`, `Attach` and `PortForward` answer with.
//!
//! It listens on loopback. Each URL carries a random token that works once and for one minute: whoever has the URL has
//! asked the runtime for it.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use streaming::{
    UpgradeBody,
    command::{self, CommandOptions, CommandSession, Outcome},
    port_forward::{self, ForwardedConnection},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::TcpListener,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    engine::{self, Engine, ExecStreams},
    error::Error,
    netns,
    terminal::Terminal,
};

const TOKEN_LIFETIME: Duration = Duration::from_secs(60);
/// More unused tokens than this are somebody's mistake.
const TOKENS_MAX: usize = 1000;

/// What a token stands for.
#[derive(Clone, Debug)]
pub(crate) enum Ticket {
    Exec { container: String, args: Vec<String>, options: CommandOptions },
    Attach { container: String, options: CommandOptions },
    PortForward { sandbox: String },
}

pub(crate) struct StreamingServer {
    engine: Arc<Engine>,
    address: SocketAddr,
    tickets: Mutex<HashMap<String, (Ticket, Instant)>>,
}

impl StreamingServer {
    /// Starts serving until `shutdown` fires.
    pub(crate) async fn start(engine: Arc<Engine>, shutdown: CancellationToken) -> Result<Arc<Self>, Error> {
        let wanted = engine.config.streaming_address;
        let fail = || Error::io(format!("listening on {wanted} for streams"));
        let listener = TcpListener::bind(wanted).await.map_err(fail())?;
        let address = listener.local_addr().map_err(fail())?;
        let server = Arc::new(Self { engine, address, tickets: Mutex::default() });
        tokio::spawn(Arc::clone(&server).serve(listener, shutdown));
        Ok(server)
    }

    /// A URL that works once.
    pub(crate) fn url(&self, ticket: Ticket) -> Result<String, Error> {
        let kind = match ticket {
            Ticket::Exec { .. } => "exec",
            Ticket::Attach { .. } => "attach",
            Ticket::PortForward { .. } => "portforward",
        };
        let token = hex::encode(rand::random::<[u8; 16]>());
        let mut tickets = self.tickets.lock();
        tickets.retain(|_, (_, expires)| *expires > Instant::now());
        if tickets.len() >= TOKENS_MAX {
            return Err(Error::State("too many streams are asked for and not used".into()));
        }
        let url = format!("http://{}/{kind}/{token}", self.address);
        tickets.insert(token, (ticket, Instant::now() + TOKEN_LIFETIME));
        Ok(url)
    }

    async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: give others time to return some.
                    tracing::warn!(%error, "accepting a stream");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY");
            }
            let server = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let server = Arc::clone(&server);
                    async move { Ok::<_, Infallible>(server.answer(request)) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                if let Err(error) =
                    connection.serve_connection(TokioIo::new(stream), service).with_upgrades().await
                {
                    tracing::debug!(%error, "stream connection");
                }
            });
        }
    }

    fn answer(self: &Arc<Self>, mut request: Request<Incoming>) -> Response<UpgradeBody> {
        let token = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let ticket = self.tickets.lock().remove(&token);
        let Some((ticket, _)) = ticket.filter(|(_, expires)| *expires > Instant::now()) else {
            return refusal(StatusCode::NOT_FOUND, "the URL has been used or has expired");
        };
        let engine = Arc::clone(&self.engine);
        match ticket {
            Ticket::Exec { container, args, options } => {
                command_session(&mut request, options, move |session| async move {
                    exec(&engine, &container, args, options, session).await;
                })
            }
            Ticket::Attach { container, options } => {
                command_session(&mut request, options, move |session| async move {
                    attach(&engine, &container, options, session).await;
                })
            }
            Ticket::PortForward { sandbox } => match port_forward::accept(&mut request) {
                Ok((response, pending)) => {
                    tokio::spawn(async move {
                        match pending.await {
                            Ok(mut session) => {
                                while let Some(connection) = session.accept().await {
                                    tokio::spawn(forward(Arc::clone(&engine), sandbox.clone(), connection));
                                }
                            }
                            Err(error) => tracing::debug!(%error, "port-forward session"),
                        }
                    });
                    response
                }
                Err(error) => error.into_response(),
            },
        }
    }
}

fn refusal(status: StatusCode, text: &'static str) -> Response<UpgradeBody> {
    let body = Full::new(bytes::Bytes::from_static(text.as_bytes())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}

fn command_session<F, S>(
    request: &mut Request<Incoming>,
    options: CommandOptions,
    run: F,
) -> Response<UpgradeBody>
where
    F: FnOnce(CommandSession) -> S + Send + 'static,
    S: Future<Output = ()> + Send,
{
    match command::accept(request, options) {
        Ok((response, pending)) => {
            tokio::spawn(async move {
                match pending.await {
                    Ok(session) => run(session).await,
                    Err(error) => tracing::debug!(%error, "command session"),
                }
            });
            response
        }
        Err(error) => error.into_response(),
    }
}

async fn exec(
    engine: &Engine,
    container: &str,
    args: Vec<String>,
    options: CommandOptions,
    mut session: CommandSession,
) {
    let CommandOptions { stdin, stdout, stderr, tty } = options;
    let process = match engine.exec(container, args, ExecStreams { stdin, stdout, stderr, tty }).await {
        Ok(process) => process,
        Err(error) => return session.finish(Outcome::Failed(error.to_string())).await,
    };
    let mut process = process;
    let output = match process.terminal.take().map(Terminal::new).transpose() {
        Ok(Some(terminal)) => {
            let _input = copy_in_background(session.stdin.take(), Some(terminal.clone()));
            let _sizes = follow_sizes(&mut session, terminal.clone());
            let to_out = session.stdout.take();
            run_to_end(&process, copy(Some(terminal), to_out), &session).await
        }
        Ok(None) => {
            let _input = copy_in_background(session.stdin.take(), process.stdin.take());
            let (out, err) = (process.stdout.take(), process.stderr.take());
            let (to_out, to_err) = (session.stdout.take(), session.stderr.take());
            let output = async {
                tokio::join!(copy(out, to_out), copy(err, to_err));
            };
            run_to_end(&process, output, &session).await
        }
        Err(error) => Err(Error::Io("using the terminal".into(), error)),
    };
    let outcome = match output {
        Ok(code) => Outcome::Exited(code),
        Err(error) => Outcome::Failed(error.to_string()),
    };
    session.finish(outcome).await;
}

/// Waits for the program and its output, as long as the client is there. Without a client the streams are closed, which
/// hangs a terminal up and ends most other programs.
async fn run_to_end(
    process: &engine::ExecProcess,
    output: impl Future<Output = ()>,
    session: &CommandSession,
) -> Result<i32, Error> {
    tokio::pin!(output);
    let ended = async {
        tokio::select! {
            code = process.wait() => {
                let code = code?;
                output.await;
                Ok(code)
            }
            () = &mut output => process.wait().await,
        }
    };
    tokio::select! {
        code = ended => code,
        () = session.gone.cancelled() => Err(Error::State("the client has gone".into())),
    }
}

async fn attach(engine: &Engine, container: &str, options: CommandOptions, mut session: CommandSession) {
    let CommandOptions { stdin, stdout, stderr, tty } = options;
    let attached = engine.attach(container, ExecStreams { stdin: stdin || tty, stdout, stderr, tty }).await;
    let attachment = match attached {
        Ok(attachment) => attachment,
        Err(error) => return session.finish(Outcome::Failed(error.to_string())).await,
    };
    let (mut background, mut failure) = (Vec::new(), None);
    match attachment.input {
        Some(input) if tty => match Terminal::new(input) {
            Ok(terminal) => {
                background.push(copy_in_background(session.stdin.take(), Some(terminal.clone())));
                background.push(follow_sizes(&mut session, terminal));
            }
            Err(error) => failure = Some(error.to_string()),
        },
        Some(input) => match engine::sender(input) {
            Ok(input) => background.push(copy_in_background(session.stdin.take(), Some(input))),
            Err(error) => failure = Some(error.to_string()),
        },
        None => {}
    }
    if failure.is_none() {
        let (to_out, to_err) = (session.stdout.take(), session.stderr.take());
        let output = async { tokio::join!(copy(attachment.stdout, to_out), copy(attachment.stderr, to_err)) };
        let gone = session.gone.clone();
        tokio::select! {
            _ = output => {}
            () = gone.cancelled() => {}
        }
    }
    session.finish(failure.map_or(Outcome::Exited(0), Outcome::Failed)).await;
}

/// Copies until either side ends, and passes the end on.
async fn copy<R, W>(from: Option<R>, to: Option<W>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    if let Err(error) = tokio::io::copy(&mut from, &mut to).await {
        tracing::trace!(%error, "stream broke off");
    }
    if let Err(error) = to.shutdown().await {
        tracing::trace!(%error, "stream had ended already");
    }
}

fn copy_in_background<W>(from: Option<DuplexStream>, to: Option<W>) -> AbortOnDropHandle<()>
where
    W: AsyncWrite + Unpin + Send + 'static,
{
    AbortOnDropHandle::new(tokio::spawn(copy(from, to)))
}

fn follow_sizes(session: &mut CommandSession, terminal: Terminal) -> AbortOnDropHandle<()> {
    let sizes = session.resize.take();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let Some(mut sizes) = sizes else { return };
        while let Some(size) = sizes.recv().await {
            if let Err(error) = terminal.resize(size.width, size.height) {
                tracing::debug!(%error, "resizing a terminal");
            }
        }
    }))
}

async fn forward(engine: Arc<Engine>, sandbox: String, connection: ForwardedConnection) {
    let port = connection.port;
    let mut stream = match connect(&engine, &sandbox, port).await {
        Ok(stream) => stream,
        Err(error) => {
            return connection.fail(&format!("connecting to port {port} of the pod: {error}")).await;
        }
    };
    let (_, mut data, _error) = connection.into_parts();
    if let Err(error) = tokio::io::copy_bidirectional(&mut data, &mut stream).await {
        tracing::debug!(%error, port, "forwarded connection broke off");
    }
}

async fn connect(engine: &Engine, sandbox: &str, port: u16) -> Result<tokio::net::TcpStream, Error> {
    let sandbox = engine.sandbox(sandbox)?;
    let netns = sandbox.record.read().netns.clone();
    let addresses =
        [SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port))];
    let mut failure = None;
    for address in addresses {
        let connected = match &netns {
            Some(netns) => netns::connect(netns, address).await,
            None => tokio::net::TcpStream::connect(address).await,
        };
        match connected {
            Ok(stream) => return Ok(stream),
            // The first refusal is the one that tells: many programs do not listen on IPv6.
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(Error::Io("dial".into(), failure.unwrap_or_else(|| std::io::ErrorKind::NotConnected.into())))
}
