//! Something to read, in the messages of a WebSocket: how browsers follow a log.
//!
//! Guarantees: an empty message as soon as the socket is open, then what there is to read as it comes, then a normal
//! close. What the client sends is not looked at, but a client that leaves ends the reading.

use std::fmt::Display;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

use crate::upgrade::{HandshakeError, UpgradeBody, negotiate, websocket_response};
use crate::websocket::{self, Socket};

const BASE64: &str = "base64.binary.k8s.io";
const PROTOCOLS: [&str; 3] = ["", "binary.k8s.io", BASE64];

/// A WebSocket that has been agreed on, and waits for what there is to read.
pub struct Reader {
    upgrade: hyper::upgrade::OnUpgrade,
    response: Response<UpgradeBody>,
    in_base64: bool,
}

/// Agrees on a WebSocket to read from.
pub fn accept<B>(request: &mut Request<B>) -> Result<Reader, HandshakeError> {
    let protocol = negotiate(request.headers(), header::SEC_WEBSOCKET_PROTOCOL.as_str(), &PROTOCOLS)?;
    let response = websocket_response(request.method(), request.headers(), protocol)?;
    Ok(Reader { upgrade: hyper::upgrade::on(request), response, in_base64: protocol == BASE64 })
}

/// Takes out of a request what asks for a WebSocket: whoever is asked next is asked for the bytes alone.
pub fn strip(headers: &mut HeaderMap) {
    let names = [
        header::CONNECTION,
        header::UPGRADE,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_VERSION,
        header::SEC_WEBSOCKET_PROTOCOL,
        header::SEC_WEBSOCKET_EXTENSIONS,
    ];
    for name in names {
        headers.remove(name);
    }
}

impl Reader {
    /// The answer to give; what `content` holds follows in the socket.
    pub fn respond<C>(self, content: C) -> Response<UpgradeBody>
    where
        C: Body<Data = Bytes> + Send + Unpin + 'static,
        C::Error: Display + Send,
    {
        let (upgrade, in_base64) = (self.upgrade, self.in_base64);
        tokio::spawn(async move {
            match websocket::accept(upgrade).await {
                Ok(socket) => send(socket, content, in_base64).await,
                Err(error) => tracing::debug!(%error, "a WebSocket to read from did not come about"),
            }
        });
        self.response
    }
}

async fn send<C>(socket: Socket, mut content: C, in_base64: bool)
where
    C: Body<Data = Bytes> + Send + Unpin,
    C::Error: Display + Send,
{
    let (mut outgoing, mut incoming) = socket.split();
    let message = |bytes: Bytes| match in_base64 {
        true => Message::Text(STANDARD.encode(bytes).into()),
        false => Message::Binary(bytes),
    };
    let sending = async {
        outgoing.send(message(Bytes::new())).await?;
        while let Some(frame) = content.frame().await {
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => outgoing.send(message(data)).await?,
                Ok(Err(_trailers)) => {}
                Err(error) => {
                    tracing::debug!(%error, "what a WebSocket was to read from broke off");
                    let broken = CloseFrame { code: CloseCode::Error, reason: "the stream broke off".into() };
                    return outgoing.send(Message::Close(Some(broken))).await;
                }
            }
        }
        let done = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        outgoing.send(Message::Close(Some(done))).await
    };
    let client_leaves = async { while let Some(Ok(_)) = incoming.next().await {} };
    tokio::select! {
        sent = sending => {
            if let Err(error) = sent {
                tracing::debug!(%error, "the reader of a WebSocket is gone");
                return;
            }
        }
        () = client_leaves => return,
    }
    // Its goodbye, so that ours is not lost behind a reset.
    let goodbye = async { while let Some(Ok(_)) = incoming.next().await {} };
    let _in_time = tokio::time::timeout(websocket::LINGER, goodbye).await;
}
