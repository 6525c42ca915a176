//! Port forwarding over a WebSocket: SPDY tunnelled inside, or two channels for each port of the query.

use std::collections::HashMap;

use http::{Request, Response, header};
use tokio::{
    io::{AsyncWriteExt, DuplexStream, WriteHalf},
    sync::mpsc,
};
use tokio_util::task::TaskTracker;

use super::{ForwardedConnection, PendingSession, PortForwardSession, TUNNEL_PROTOCOL, spdy};
use crate::{
    spdy::{Connection, Side},
    upgrade::{self, HandshakeError, UpgradeBody},
    websocket::{self, ChannelReader, ChannelWriter, Encoding},
};

const PROTOCOLS: &[&str] = &[
    TUNNEL_PROTOCOL,
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "portforward.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
];
/// Channels are numbered in one byte, two for each port.
const PORTS_MAX: usize = 100;
const STREAM_BUFFER_BYTES: usize = 64 * 1024;

pub(super) fn accept<B>(
    request: &mut Request<B>,
) -> Result<(Response<UpgradeBody>, PendingSession), HandshakeError> {
    let protocol = upgrade::negotiate(request.headers(), header::SEC_WEBSOCKET_PROTOCOL.as_str(), PROTOCOLS)?;
    let ports = if protocol == TUNNEL_PROTOCOL { Vec::new() } else { ports(request.uri().query())? };
    let response = upgrade::websocket_response(request.method(), request.headers(), protocol)?;
    let upgraded = hyper::upgrade::on(request);
    let session = Box::pin(async move {
        let socket = websocket::accept(upgraded).await?;
        if protocol == TUNNEL_PROTOCOL {
            return Ok(spdy::session(Connection::start(websocket::tunnel(socket), Side::Server)));
        }
        let encoding = if protocol.contains("base64") { Encoding::Base64 } else { Encoding::Binary };
        let (reader, writer) = websocket::channels(socket, encoding);
        Ok(channel_session(reader, writer, ports).await)
    });
    Ok((response, session))
}

fn ports(query: Option<&str>) -> Result<Vec<u16>, HandshakeError> {
    let mut ports = Vec::new();
    for name in ["ports", "port"] {
        for value in upgrade::query_values(query, name) {
            for port in value.split(',') {
                let port = port.parse().ok().filter(|port| *port != 0);
                ports.push(port.ok_or(HandshakeError::Malformed("query parameter \"ports\" is not a port"))?);
            }
        }
    }
    if ports.is_empty() || ports.len() > PORTS_MAX {
        return Err(HandshakeError::Malformed("query parameter \"ports\" must name 1 to 100 ports"));
    }
    Ok(ports)
}

async fn channel_session(
    reader: ChannelReader,
    writer: ChannelWriter,
    ports: Vec<u16>,
) -> PortForwardSession {
    let (sender, connections) = mpsc::channel(PORTS_MAX);
    let outputs = TaskTracker::new();
    let mut inputs = HashMap::new();
    for (number, port) in (0u8..).zip(ports) {
        let (data_channel, error_channel) = (number * 2, number * 2 + 1);
        // The first message of each channel says which port it belongs to.
        for channel in [data_channel, error_channel] {
            writer.send(channel, &port.to_le_bytes()).await;
        }
        let (data, data_ours) = tokio::io::duplex(STREAM_BUFFER_BYTES);
        let (error, error_ours) = tokio::io::duplex(STREAM_BUFFER_BYTES);
        let (output, input) = tokio::io::split(data_ours);
        inputs.insert(data_channel, input);
        let data_writer = writer.clone();
        outputs.spawn(async move { data_writer.send_all(data_channel, output).await });
        let error_writer = writer.clone();
        outputs.spawn(async move { error_writer.send_all(error_channel, error_ours).await });
        if sender.send(ForwardedConnection { port, data, error }).await.is_err() {
            break;
        }
    }
    outputs.close();
    let driver = tokio::spawn(drive(reader, writer, inputs, outputs, sender));
    PortForwardSession { connections, driver }
}

async fn drive(
    mut reader: ChannelReader,
    writer: ChannelWriter,
    mut inputs: HashMap<u8, WriteHalf<DuplexStream>>,
    outputs: TaskTracker,
    sender: mpsc::Sender<ForwardedConnection>,
) {
    let read = async {
        while let Some((channel, payload)) = reader.next().await {
            if let Some(input) = inputs.get_mut(&channel)
                && input.write_all(&payload).await.is_err()
            {
                inputs.remove(&channel);
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = outputs.wait() => {
            writer.close().await;
            drop(inputs);
            reader.drain().await;
        }
    }
    // Held until here, so that the session lasts as long as the client.
    drop(sender);
}
