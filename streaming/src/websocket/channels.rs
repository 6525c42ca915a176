//! Numbered channels: the first byte of each message says which channel the rest belongs to; in the base64 variant the
//! message is text, the first character the channel's digit, and the rest base64.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt, stream::SplitStream};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};
use tokio_util::sync::CancellationToken;

use super::{LINGER, Socket};

/// About what one message carries at most.
const PAYLOAD_BYTES_MAX: usize = 32 * 1024;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Binary,
    Base64,
}

/// The receiving half.
pub(crate) struct ChannelReader {
    messages: SplitStream<Socket>,
    encoding: Encoding,
}

/// The sending half; clones send on the same socket.
#[derive(Clone)]
pub(crate) struct ChannelWriter {
    outgoing: mpsc::Sender<Message>,
    encoding: Encoding,
    /// Fires when nothing can be sent any more.
    closed: CancellationToken,
}

/// Splits a socket into its channels' two directions.
pub(crate) fn channels(socket: Socket, encoding: Encoding) -> (ChannelReader, ChannelWriter) {
    let (mut sink, messages) = socket.split();
    let (outgoing, mut queue) = mpsc::channel::<Message>(8);
    let closed = CancellationToken::new();
    let written = closed.clone();
    tokio::spawn(async move {
        while let Some(message) = queue.recv().await {
            let last = message.is_close();
            if let Err(error) = sink.send(message).await {
                tracing::debug!(%error, "WebSocket: writing failed");
                break;
            }
            if last {
                break;
            }
        }
        written.cancel();
    });
    (ChannelReader { messages, encoding }, ChannelWriter { outgoing, encoding, closed })
}

impl ChannelReader {
    /// The next channel and payload; nothing once the client has closed or gone.
    pub(crate) async fn next(&mut self) -> Option<(u8, Bytes)> {
        loop {
            let payload = match self.messages.next().await? {
                Ok(Message::Binary(payload)) => payload,
                Ok(Message::Text(text)) => Bytes::from(text),
                Ok(Message::Close(_)) => return None,
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
                Err(error) => {
                    tracing::debug!(%error, "WebSocket ended");
                    return None;
                }
            };
            match decode(self.encoding, payload) {
                Some(message) => return Some(message),
                None => tracing::debug!("passed over a WebSocket message that names no channel"),
            }
        }
    }

    /// Reads on until the client has closed too, within a moment.
    pub(crate) async fn drain(mut self) {
        let drained = tokio::time::timeout(LINGER, async { while self.next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::debug!("the client of a finished session did not close its WebSocket in time");
        }
    }
}

impl ChannelWriter {
    /// Sends a payload on a channel; false when the socket is gone.
    pub(crate) async fn send(&self, channel: u8, payload: &[u8]) -> bool {
        let mut message = BytesMut::with_capacity(payload.len() + 1);
        message.put_u8(channel);
        message.put_slice(payload);
        self.send_message(message).await
    }

    /// Sends everything that can be read, until its end; false when the socket is gone.
    pub(crate) async fn send_all(&self, channel: u8, mut source: impl AsyncRead + Unpin) -> bool {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PAYLOAD_BYTES_MAX / 2);
            buffer.put_u8(channel);
            let read = tokio::select! {
                // One read takes at most what was reserved.
                read = source.read_buf(&mut buffer) => read,
                () = self.closed.cancelled() => return false,
            };
            match read {
                Ok(count) if count > 0 => {
                    if !self.send_message(buffer.split()).await {
                        return false;
                    }
                }
                _ => return true,
            }
        }
    }

    /// Says goodbye, and waits until it has been sent.
    pub(crate) async fn close(&self) {
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        if self.outgoing.send(Message::Close(Some(normal))).await.is_ok() {
            self.closed.cancelled().await;
        }
    }

    async fn send_message(&self, message: BytesMut) -> bool {
        let message = match self.encoding {
            Encoding::Binary => Message::Binary(message.freeze()),
            Encoding::Base64 => {
                let (channel, payload) =
                    message.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest));
                let mut text = String::with_capacity(payload.len() * 4 / 3 + 5);
                text.push(char::from(b'0' + channel));
                STANDARD.encode_string(payload, &mut text);
                Message::Text(text.into())
            }
        };
        self.outgoing.send(message).await.is_ok()
    }
}

fn decode(encoding: Encoding, mut payload: Bytes) -> Option<(u8, Bytes)> {
    let first = payload.try_get_u8().ok()?;
    match encoding {
        Encoding::Binary => Some((first, payload)),
        Encoding::Base64 => {
            let channel = first.checked_sub(b'0')?;
            Some((channel, STANDARD.decode(&payload).ok()?.into()))
        }
    }
}
