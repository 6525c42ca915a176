//! Questions about the world outside, asked of the host's resolvers.
//!
//! Every question goes out from a socket of its own, connected to the server it is for, so that only that server's answer comes back
//! and it has to know port, id and question. The servers are asked in turn, each with a time limit.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::cache::Cache;
use super::resolv::Upstreams;
use super::wire::{self, Query};

/// How long one server is given, and all of them together: clients give up after five seconds.
const SERVER_TIMEOUT: Duration = Duration::from_millis(1500);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(4);
/// After nobody answered, nobody is asked for so long: a machine without a network should say so at once.
const DOWN_TIME: Duration = Duration::from_secs(2);
/// Questions under way at once; more are refused rather than queued.
const UNDER_WAY_MAX: usize = 512;

/// How the client asked, and so how the answer must come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Datagram,
    Stream,
}

/// Asks other servers.
#[derive(Debug)]
pub(super) struct Forwarder {
    upstreams: Upstreams,
    cache: Mutex<Cache>,
    under_way: Semaphore,
    down_until: Mutex<Option<Instant>>,
}

impl Forwarder {
    pub(super) fn new(upstreams: Upstreams) -> Self {
        Self {
            upstreams,
            cache: Mutex::default(),
            under_way: Semaphore::new(UNDER_WAY_MAX),
            down_until: Mutex::default(),
        }
    }

    /// The reply from the cache.
    pub(super) fn cached(&self, query: &Query) -> Option<Vec<u8>> {
        self.cache.lock().get(query, Instant::now())
    }

    /// The reply of the first server that gives a usable one. Its id is not the client's yet.
    pub(super) async fn ask(&self, query: &Query, transport: Transport) -> Option<Vec<u8>> {
        if let Some(reply) = self.cached(query) {
            return Some(reply);
        }
        if self.down_until.lock().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let _permit = self.under_way.try_acquire().ok()?;
        let reply = timeout(TOTAL_TIMEOUT, self.ask_all(query, transport)).await.ok().flatten();
        *self.down_until.lock() = reply.is_none().then(|| Instant::now() + DOWN_TIME);
        let reply = reply?;
        self.cache.lock().put(query, &reply, Instant::now());
        Some(reply)
    }

    async fn ask_all(&self, query: &Query, transport: Transport) -> Option<Vec<u8>> {
        let servers = self.upstreams.servers();
        let mut failure = None;
        // Twice around: a lost datagram is more likely than a dead server.
        for server in servers.iter().chain(&servers) {
            let reply = match transport {
                Transport::Datagram => timeout(SERVER_TIMEOUT, ask_by_datagram(*server, query)).await,
                Transport::Stream => timeout(SERVER_TIMEOUT, ask_by_stream(*server, query)).await,
            };
            match reply {
                // "Server failure" and "refused" of one may be an answer of another.
                Ok(Ok(reply)) if matches!(wire::code_of(&reply), 2 | 5) => failure = Some(reply),
                Ok(Ok(reply)) => return Some(reply),
                Ok(Err(error)) => tracing::debug!(%server, %error, "resolver does not answer"),
                Err(_) => tracing::debug!(%server, "resolver does not answer in time"),
            }
        }
        failure
    }
}

async fn ask_by_datagram(server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let id = fresh_id();
    socket.send(&query.encode(id)).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if buffer.get(..len).is_some_and(|reply| wire::answers(reply, id, query)) {
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
}

async fn ask_by_stream(server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let id = fresh_id();
    let message = query.encode(id);
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &message].concat()).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    if wire::answers(&reply, id, query) {
        Ok(reply)
    } else {
        Err(io::Error::other("answer to another question"))
    }
}

/// An id that others cannot guess: the standard library's hash keys are random.
fn fresh_id() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    let hash = RandomState::new().hash_one(Instant::now());
    u16::try_from(hash & 0xffff).unwrap_or_default()
}
