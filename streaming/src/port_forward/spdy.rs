//! Port forwarding over SPDY: for each connection the client opens an error stream and a data stream with the same
//! request number.

use std::collections::HashMap;

use http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use super::{ForwardedConnection, PROTOCOL, PendingSession, PortForwardSession};
use crate::{
    spdy::{Connection, Side, Stream},
    upgrade::{self, HandshakeError, UpgradeBody},
};

/// Streams that wait for their other half; more than this and the client is not one of ours.
const UNPAIRED_MAX: usize = 1024;

pub(super) fn accept<B>(
    request: &mut Request<B>,
) -> Result<(Response<UpgradeBody>, PendingSession), HandshakeError> {
    let protocol = upgrade::negotiate(request.headers(), upgrade::STREAM_PROTOCOL, &[PROTOCOL, ""])?;
    let upgraded = hyper::upgrade::on(request);
    let session = Box::pin(async move {
        let connection = Connection::start(TokioIo::new(upgraded.await?), Side::Server);
        Ok(session(connection))
    });
    Ok((upgrade::spdy_response(protocol), session))
}

/// The session on a connection that is already there.
pub(super) fn session(connection: Connection) -> PortForwardSession {
    let (sender, connections) = mpsc::channel(16);
    let driver = tokio::spawn(pair_streams(connection, sender));
    PortForwardSession { connections, driver }
}

#[derive(Default)]
struct Pair {
    data: Option<Stream>,
    error: Option<Stream>,
}

async fn pair_streams(mut connection: Connection, sender: mpsc::Sender<ForwardedConnection>) {
    let mut waiting: HashMap<String, Pair> = HashMap::new();
    while let Some(stream) = connection.accept().await {
        let is_error = stream.headers.get("streamtype") == Some("error");
        let request = match stream.headers.get("requestid") {
            Some(request) => request.to_owned(),
            // Very old clients send no number, but open the error stream right before the data stream.
            None if is_error => stream.id.to_string(),
            None => stream.id.saturating_sub(2).to_string(),
        };
        let pair = waiting.entry(request.clone()).or_default();
        if is_error {
            pair.error = Some(stream);
        } else {
            pair.data = Some(stream);
        }
        if let Some(Pair { data: Some(_), error: Some(_) }) = waiting.get(&request)
            && let Some(Pair { data: Some(data), error: Some(error) }) = waiting.remove(&request)
        {
            let Some(port) = data.headers.get("port").and_then(|port| port.parse().ok()) else {
                tracing::debug!("a port-forward stream names no port");
                continue;
            };
            let forwarded = ForwardedConnection { port, data: data.io, error: error.io };
            if sender.send(forwarded).await.is_err() {
                break;
            }
        }
        if waiting.len() > UNPAIRED_MAX {
            tracing::warn!("a port-forward client opens streams without their other half; closing");
            break;
        }
    }
}
