//! Sockets, and what is done with a question that arrives.
//!
//! Questions about the cluster are answered within the receiving task; those that have to be forwarded get a task each.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::directory::InformerDirectory;
use super::forward::{Forwarder, Transport};
use super::resolv::Upstreams;
use super::wire::{self, Code, NotAQuery, Query, Record, Reply};
use super::zone::{Outcome, Zone};
use super::{Config, Error};

/// A TCP client may be silent for so long.
const STREAM_IDLE: Duration = Duration::from_secs(10);
const STREAMS_MAX: usize = 256;
/// A question about the cluster that comes before its services are known waits this long.
const FIRST_LIST_TIMEOUT: Duration = Duration::from_secs(2);
const ALIASES_MAX: usize = 4;
const MESSAGE_MAX: usize = 65535;

/// The sockets on the DNS address.
pub(super) struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    pub(super) async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error::Listen { address, source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let udp = UdpSocket::bind(address).await.map_err(failed)?;
        Ok(Self { udp, tcp })
    }
}

struct Server {
    zone: Zone,
    directory: InformerDirectory,
    forwarder: Forwarder,
    /// Turns the order of answers, so that clients which take the first spread.
    turn: AtomicUsize,
}

/// Answers until `shutdown`.
pub(super) async fn serve(
    config: Config,
    sockets: Sockets,
    directory: InformerDirectory,
    shutdown: CancellationToken,
) {
    let serial =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| u32::try_from(d.as_secs()).unwrap_or(1));
    let upstreams = Upstreams::new(config.upstreams, config.resolv_conf, config.address);
    let (domain, networks) = (config.cluster_domain, config.cluster_networks);
    let server = Arc::new(Server {
        zone: Zone { domain, address: config.address, networks, serial },
        directory,
        forwarder: Forwarder::new(upstreams),
        turn: AtomicUsize::new(0),
    });
    let udp = serve_datagrams(server.clone(), Arc::new(sockets.udp));
    let tcp = serve_streams(server, sockets.tcp);
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = udp => {}
        () = tcp => {}
    }
}

async fn serve_datagrams(server: Arc<Server>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; 4096];
    loop {
        let (len, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An earlier answer could not be delivered; that is the client's affair.
            Err(error) => {
                tracing::debug!(%error, "receiving a DNS question");
                continue;
            }
        };
        let query = match Query::parse(buffer.get(..len).unwrap_or_default()) {
            Ok(query) => query,
            Err(NotAQuery::Ignore) => continue,
            Err(NotAQuery::Reply(reply)) => {
                send(&socket, &reply, client).await;
                continue;
            }
        };
        match server.answer_at_once(&query, query.datagram_max()) {
            Some(reply) => send(&socket, &reply, client).await,
            None => {
                let (server, socket) = (server.clone(), socket.clone());
                tokio::spawn(async move {
                    let reply = server.answer(&query, query.datagram_max(), Transport::Datagram).await;
                    send(&socket, &reply, client).await;
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%client, %error, "sending a DNS answer");
    }
}

async fn serve_streams(server: Arc<Server>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(STREAMS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let server = server.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve_stream(&server, stream).await {
                        tracing::debug!(%client, %error, "DNS over TCP");
                    }
                    drop(place);
                });
            }
            // Out of descriptors, most likely: give others time to close some.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve_stream(server: &Server, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let length = match timeout(STREAM_IDLE, stream.read_u16()).await {
            Ok(Ok(length)) => length,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        let mut message = vec![0; usize::from(length)];
        timeout(STREAM_IDLE, stream.read_exact(&mut message)).await.map_err(io::Error::other)??;
        let reply = match Query::parse(&message) {
            Ok(query) => match server.answer_at_once(&query, MESSAGE_MAX) {
                Some(reply) => reply,
                None => server.answer(&query, MESSAGE_MAX, Transport::Stream).await,
            },
            Err(NotAQuery::Ignore) => return Ok(()),
            Err(NotAQuery::Reply(reply)) => reply,
        };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &reply].concat()).await?;
    }
}

impl Server {
    /// The answer, if nobody has to be asked or waited for.
    fn answer_at_once(&self, query: &Query, max: usize) -> Option<Vec<u8>> {
        if !query.is_internet() {
            return Some(Reply::new(Code::NotImplemented).encode(query, max));
        }
        let ours =
            self.directory.is_synced().then(|| self.zone.resolve(&self.directory, &query.name, query.kind));
        match ours? {
            Outcome::NotOurs => self.forwarder.cached(query).map(|reply| wire::adapt(reply, query, max)),
            Outcome::Alias(..) => None,
            outcome => Some(self.local_reply(outcome, Vec::new()).encode(query, max)),
        }
    }

    /// The answer, with all the time it takes.
    async fn answer(&self, query: &Query, max: usize, transport: Transport) -> Vec<u8> {
        if !self.directory.is_synced() && self.may_be_ours(&query.name) {
            let waited = timeout(FIRST_LIST_TIMEOUT, self.directory.synced()).await;
            if !waited.unwrap_or(false) {
                return Reply::new(Code::ServerFailure).encode(query, max);
            }
        }
        match self.zone.resolve(&self.directory, &query.name, query.kind) {
            Outcome::NotOurs => match self.forwarder.ask(query, transport).await {
                Some(reply) => wire::adapt(reply, query, max),
                None => failure().encode(query, max),
            },
            Outcome::Alias(record, target) => self.follow(query, record, target).await.encode(query, max),
            outcome => self.local_reply(outcome, Vec::new()).encode(query, max),
        }
    }

    /// Names that only the cluster can know; others need not wait for it.
    fn may_be_ours(&self, name: &str) -> bool {
        !matches!(self.zone.resolve(&NoDirectory, name, 0), Outcome::NotOurs)
    }

    /// Follows an alias to its end, which may be ours or not.
    async fn follow(&self, query: &Query, record: Record, mut target: String) -> Reply {
        let mut chain = vec![record];
        for _ in 0..ALIASES_MAX {
            match self.zone.resolve(&self.directory, &target, query.kind) {
                Outcome::NotOurs => {
                    let question = query.for_name(&target);
                    let reply = self.forwarder.ask(&question, Transport::Datagram).await;
                    let Some(reply) = reply else { return failure() };
                    let mut whole =
                        Reply::new(if wire::code_of(&reply) == 3 { Code::NoSuchName } else { Code::Ok });
                    whole.answers = chain;
                    whole.answers.extend(wire::read_answers(&reply).unwrap_or_default());
                    return whole;
                }
                Outcome::Alias(record, next) => {
                    chain.push(record);
                    target = next;
                }
                outcome => return self.local_reply(outcome, chain),
            }
        }
        failure()
    }

    fn local_reply(&self, outcome: Outcome, before: Vec<Record>) -> Reply {
        let mut reply = Reply::new(if outcome == Outcome::NoSuchName { Code::NoSuchName } else { Code::Ok });
        reply.answers = before;
        match outcome {
            Outcome::Records { mut answers, additional } => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % answers.len().max(1);
                answers.rotate_left(turn);
                reply.answers.extend(answers);
                reply.additional = additional;
            }
            _ => reply.authority.push(self.zone.soa()),
        }
        reply
    }
}

fn failure() -> Reply {
    Reply { authoritative: false, ..Reply::new(Code::ServerFailure) }
}

/// A cluster without anything: what its zone does not claim cannot be the cluster's.
struct NoDirectory;

impl super::directory::Directory for NoDirectory {
    fn service(&self, _: &str, _: &str) -> Option<Arc<k8s_openapi::api::core::v1::Service>> {
        None
    }

    fn slices(&self, _: &str, _: &str) -> Vec<Arc<k8s_openapi::api::discovery::v1::EndpointSlice>> {
        Vec::new()
    }

    fn has_services(&self, _: &str) -> bool {
        false
    }

    fn services_at(&self, _: &str) -> Vec<Arc<k8s_openapi::api::core::v1::Service>> {
        Vec::new()
    }

    fn slices_at(&self, _: &str) -> Vec<Arc<k8s_openapi::api::discovery::v1::EndpointSlice>> {
        Vec::new()
    }
}
