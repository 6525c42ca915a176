//! One connection: a task that reads frames, a task that writes them, and one small task per stream that carries what
//! the user of the stream writes.
//!
//! Guarantees: what was written to a stream before it was dropped reaches the peer before [`Connection::close`] returns,
//! unless the transport fails; every stream ends when the connection does.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf},
    sync::{mpsc, oneshot},
    task::AbortHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    SpdyError,
    frame::{Frame, FrameReader, FrameWriter, RESET_INVALID_STREAM},
    header_block::Headers,
};

/// What a stream buffers in each direction before it holds back the other end.
const STREAM_BUFFER_BYTES: usize = 256 * 1024;
/// What one data frame carries at most.
const DATA_BYTES_MAX: usize = 32 * 1024;
/// How long the peer may take to answer a new stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the peer may take to close after us, so that nothing in flight to it is lost.
const LINGER: Duration = Duration::from_secs(5);

/// Which end of the connection this is; it decides the numbers of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Opened the connection; its streams are odd.
    Client,
    /// Accepted the connection; its streams are even.
    Server,
}

/// One stream of a connection. Reading ends where the peer half-closed; shutting down or dropping `io` half-closes.
#[derive(Debug)]
pub struct Stream {
    /// The number of the stream on its connection.
    pub id: u32,
    /// The headers that it was opened with.
    pub headers: Headers,
    /// Its two directions of bytes.
    pub io: DuplexStream,
}

/// A connection. Dropping it ends it at once; [`Connection::close`] ends it in order.
#[derive(Debug)]
pub struct Connection {
    shared: Arc<Shared>,
    incoming: mpsc::Receiver<Stream>,
}

/// Opens streams on a connection whose acceptor is in use elsewhere.
#[derive(Clone, Debug)]
pub struct Opener {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    side: Side,
    outgoing: mpsc::Sender<Frame>,
    streams: Mutex<Streams>,
    senders: TaskTracker,
    /// Fires when nothing more can be read: the peer closed, or the connection failed.
    ended: CancellationToken,
    /// Fires when the writer has written all and shut its direction down.
    flushed: CancellationToken,
    /// Stops both tasks.
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Streams {
    next_id: u32,
    highest_remote: u32,
    open: HashMap<u32, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Where the peer's data goes; absent while it is being written, and after the peer half-closed.
    inbound: Option<WriteHalf<DuplexStream>>,
    remote_closed: bool,
    local_closed: bool,
    sender: AbortHandle,
    opened: Option<oneshot::Sender<bool>>,
}

impl Connection {
    /// Starts the connection over a transport on which the upgrade is done.
    pub fn start<T>(transport: T, side: Side) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (input, output) = tokio::io::split(transport);
        let (outgoing, frames) = mpsc::channel(16);
        let (accepted, incoming) = mpsc::channel(16);
        let first = if side == Side::Client { 1 } else { 2 };
        let shared = Arc::new(Shared {
            side,
            outgoing,
            streams: Mutex::new(Streams { next_id: first, ..Streams::default() }),
            senders: TaskTracker::new(),
            ended: CancellationToken::new(),
            flushed: CancellationToken::new(),
            stop: CancellationToken::new(),
        });
        tokio::spawn(write_frames(output, frames, shared.stop.clone(), shared.flushed.clone()));
        tokio::spawn(Arc::clone(&shared).read_frames(input, accepted));
        Self { shared, incoming }
    }

    /// The next stream that the peer opens; nothing once the connection has ended.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.incoming.recv().await
    }

    /// A handle that opens streams.
    pub fn opener(&self) -> Opener {
        Opener { shared: Arc::clone(&self.shared) }
    }

    /// Opens a stream and waits for the peer to agree.
    pub async fn open(&self, headers: Headers) -> Result<Stream, SpdyError> {
        self.opener().open(headers).await
    }

    /// Fires when the peer has gone.
    pub fn ended(&self) -> CancellationToken {
        self.shared.ended.clone()
    }

    /// Ends the connection in order: waits until everything written to streams that were dropped has been sent, says
    /// goodbye, and gives the peer a moment to close first. Streams that are still held keep this waiting.
    pub async fn close(self) {
        self.shared.senders.close();
        let shared = &self.shared;
        tokio::select! {
            () = shared.senders.wait() => {}
            () = shared.flushed.cancelled() => {}
        }
        let last_stream = shared.streams.lock().highest_remote;
        // Without a receiver the writer has ended already, and there is nobody to say goodbye to.
        if shared.outgoing.send(Frame::GoAway { last_stream }).await.is_ok()
            && shared.outgoing.send(Frame::PassedOver).await.is_ok()
        {
            shared.flushed.cancelled().await;
        }
        if tokio::time::timeout(LINGER, shared.ended.cancelled()).await.is_err() {
            tracing::debug!("the peer of a finished SPDY connection did not close it in time");
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Opener {
    /// Opens a stream and waits for the peer to agree.
    pub async fn open(&self, headers: Headers) -> Result<Stream, SpdyError> {
        let (answer, opened) = oneshot::channel();
        let id = {
            let mut streams = self.shared.streams.lock();
            let id = streams.next_id;
            streams.next_id += 2;
            id
        };
        let io = self.shared.register(id, false, Some(answer));
        let frame = Frame::SynStream { stream: id, fin: false, headers: headers.clone() };
        self.shared.outgoing.send(frame).await.map_err(|_| SpdyError::Closed)?;
        match tokio::time::timeout(OPEN_TIMEOUT, opened).await {
            Ok(Ok(true)) => Ok(Stream { id, headers, io }),
            Ok(Ok(false)) | Err(_) => Err(SpdyError::Refused),
            Ok(Err(_)) => Err(SpdyError::Closed),
        }
    }
}

impl Shared {
    /// Makes the two ends of a stream and starts the task that sends what its user writes.
    fn register(
        self: &Arc<Self>,
        id: u32,
        remote_closed: bool,
        opened: Option<oneshot::Sender<bool>>,
    ) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(STREAM_BUFFER_BYTES);
        let (from_user, to_user) = tokio::io::split(ours);
        // The entry is there before the task can look for it.
        let mut streams = self.streams.lock();
        let sender = self.senders.spawn(Arc::clone(self).send_stream(id, from_user)).abort_handle();
        let inbound = (!remote_closed).then_some(to_user);
        streams.open.insert(id, Entry { inbound, remote_closed, local_closed: false, sender, opened });
        theirs
    }

    /// Sends what the user of a stream writes until it is shut down or dropped, and then the end of the stream.
    async fn send_stream(self: Arc<Self>, stream: u32, mut from_user: ReadHalf<DuplexStream>) {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(DATA_BYTES_MAX / 4);
            let ended = !matches!(from_user.read_buf(&mut buffer).await, Ok(count) if count > 0);
            while buffer.has_remaining() {
                let payload = buffer.split_to(buffer.len().min(DATA_BYTES_MAX)).freeze();
                if self.outgoing.send(Frame::Data { stream, fin: false, payload }).await.is_err() {
                    return;
                }
            }
            if ended {
                break;
            }
        }
        // A failed send means that the connection is gone, and with it the stream.
        let sent = self.outgoing.send(Frame::Data { stream, fin: true, payload: Bytes::new() }).await;
        tracing::trace!(stream, sent = sent.is_ok(), "stream half-closed");
        let mut streams = self.streams.lock();
        if let Some(entry) = streams.open.get_mut(&stream) {
            entry.local_closed = true;
            if entry.remote_closed {
                streams.open.remove(&stream);
            }
        }
    }

    async fn read_frames<R: AsyncRead + Send>(
        self: Arc<Self>,
        input: ReadHalf<R>,
        accepted: mpsc::Sender<Stream>,
    ) {
        let mut frames = FrameReader::new(tokio::io::BufReader::with_capacity(16 * 1024, input));
        loop {
            let next = tokio::select! {
                next = frames.next() => next,
                () = self.stop.cancelled() => break,
            };
            match next {
                Ok(Some(frame)) => {
                    let handled = tokio::select! {
                        handled = self.handle(frame, &accepted) => handled,
                        () = self.stop.cancelled() => break,
                    };
                    if handled.is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "SPDY connection ended");
                    break;
                }
            }
        }
        // Streams end with their connection: users read the end, and their writes fail.
        for (_, entry) in self.streams.lock().open.drain() {
            entry.sender.abort();
        }
        self.ended.cancel();
    }

    async fn handle(
        self: &Arc<Self>,
        frame: Frame,
        accepted: &mpsc::Sender<Stream>,
    ) -> Result<(), SpdyError> {
        match frame {
            Frame::SynStream { stream, fin, headers } => {
                self.streams.lock().highest_remote = stream;
                let io = self.register(stream, fin, None);
                self.send(Frame::SynReply { stream, fin: false }).await?;
                if accepted.send(Stream { id: stream, headers, io }).await.is_err() {
                    // Nobody accepts any more.
                    self.send(Frame::Reset { stream, status: RESET_INVALID_STREAM }).await?;
                }
            }
            Frame::SynReply { stream, fin } => {
                if let Some(entry) = self.streams.lock().open.get_mut(&stream)
                    && let Some(opened) = entry.opened.take()
                {
                    // The opener may have given up waiting.
                    opened.send(true).ok();
                }
                if fin {
                    self.remote_closed(stream);
                }
            }
            Frame::Data { stream, fin, payload } => {
                self.deliver(stream, &payload).await;
                if fin {
                    self.remote_closed(stream);
                }
            }
            Frame::Reset { stream, status } => {
                tracing::trace!(stream, status, "stream reset");
                if let Some(entry) = self.streams.lock().open.remove(&stream) {
                    entry.sender.abort();
                    if let Some(opened) = entry.opened {
                        opened.send(false).ok();
                    }
                }
            }
            Frame::Ping { id } => {
                let ours = (id % 2 == 1) == (self.side == Side::Client);
                if !ours {
                    self.send(Frame::Ping { id }).await?;
                }
            }
            Frame::GoAway { .. } | Frame::PassedOver => {}
        }
        Ok(())
    }

    async fn send(&self, frame: Frame) -> Result<(), SpdyError> {
        self.outgoing.send(frame).await.map_err(|_| SpdyError::Closed)
    }

    /// Hands data to the user of a stream, waiting while its buffer is full. Data nobody reads is dropped.
    async fn deliver(&self, stream: u32, payload: &[u8]) {
        if payload.is_empty() {
            return;
        }
        let inbound = self.streams.lock().open.get_mut(&stream).and_then(|entry| entry.inbound.take());
        let Some(mut inbound) = inbound else { return };
        if inbound.write_all(payload).await.is_ok()
            && let Some(entry) = self.streams.lock().open.get_mut(&stream)
        {
            entry.inbound = Some(inbound);
        }
    }

    fn remote_closed(&self, stream: u32) {
        let mut streams = self.streams.lock();
        let Some(entry) = streams.open.get_mut(&stream) else { return };
        entry.remote_closed = true;
        let inbound = entry.inbound.take();
        if entry.local_closed {
            streams.open.remove(&stream);
        }
        drop(streams);
        if let Some(mut inbound) = inbound {
            // Shutting down the in-memory pipe never waits: it only marks the end.
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let done = std::pin::Pin::new(&mut inbound).poll_shutdown(&mut context);
            tracing::trace!(stream, done = done.is_ready(), "stream half-closed by the peer");
        }
    }
}

async fn write_frames<W: AsyncWrite>(
    mut output: WriteHalf<W>,
    mut frames: mpsc::Receiver<Frame>,
    stop: CancellationToken,
    flushed: CancellationToken,
) {
    let mut writer = FrameWriter::new();
    let work = async {
        while let Some(frame) = frames.recv().await {
            let last = frame == Frame::PassedOver;
            let (head, payload) = writer.encode(frame);
            output.write_all_buf(&mut head.chain(payload)).await?;
            if frames.is_empty() {
                output.flush().await?;
            }
            if last {
                break;
            }
        }
        output.shutdown().await
    };
    let result = tokio::select! {
        result = work => result,
        () = stop.cancelled() => Ok(()),
    };
    if let Err(error) = result {
        tracing::debug!(%error, "SPDY connection: writing failed");
        stop.cancel();
    }
    flushed.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Connection, Connection) {
        let (client, server) = tokio::io::duplex(4096);
        (Connection::start(client, Side::Client), Connection::start(server, Side::Server))
    }

    #[tokio::test]
    async fn half_close_should_travel_while_the_other_direction_goes_on() {
        let (client, mut server) = pair();
        let mut ours = client.open(Headers::default().with("streamType", "data")).await.unwrap();
        let mut theirs = server.accept().await.unwrap();
        assert_eq!(theirs.headers.get("streamtype"), Some("data"));
        ours.io.write_all(b"question").await.unwrap();
        ours.io.shutdown().await.unwrap();
        let mut read = Vec::new();
        theirs.io.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"question");
        let answer = vec![9u8; 1_000_000];
        let sent = answer.clone();
        let writer = tokio::spawn(async move {
            theirs.io.write_all(&sent).await.unwrap();
            drop(theirs);
            server.close().await;
        });
        let mut read = Vec::new();
        ours.io.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, answer);
        client.close().await;
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn streams_should_end_when_the_connection_is_dropped() {
        let (client, mut server) = pair();
        let mut ours = client.open(Headers::default()).await.unwrap();
        let theirs = server.accept().await.unwrap();
        drop(theirs);
        drop(server);
        let mut read = Vec::new();
        ours.io.read_to_end(&mut read).await.unwrap();
        assert!(read.is_empty());
        tokio::time::timeout(Duration::from_secs(5), client.ended().cancelled()).await.unwrap();
    }
}
