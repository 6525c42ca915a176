//! A byte stream in binary messages: how SPDY passes through what lets only WebSockets through.

use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::tungstenite::Message;

use super::Socket;

const BUFFER_BYTES: usize = 64 * 1024;

/// The bytes inside a socket's messages, as one stream. Message boundaries mean nothing.
pub(crate) fn tunnel(socket: Socket) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    let (mut from_user, mut to_user) = tokio::io::split(ours);
    let (mut sink, mut messages) = socket.split();
    tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            let payload = match message {
                Ok(Message::Binary(payload)) => payload,
                Ok(Message::Close(_)) => break,
                Ok(_) => continue,
                Err(error) => {
                    tracing::debug!(%error, "tunnel ended");
                    break;
                }
            };
            if to_user.write_all(&payload).await.is_err() {
                break;
            }
        }
        if let Err(error) = to_user.shutdown().await {
            tracing::trace!(%error, "tunnel: its user had gone already");
        }
    });
    tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(8 * 1024);
            let message = match from_user.read_buf(&mut buffer).await {
                Ok(count) if count > 0 => Message::Binary(buffer.split().freeze()),
                _ => Message::Close(None),
            };
            let last = message.is_close();
            if let Err(error) = sink.send(message).await {
                tracing::debug!(%error, "tunnel: writing failed");
                break;
            }
            if last {
                break;
            }
        }
    });
    theirs
}
