//! WebSockets as carriers: numbered channels in messages, and a plain byte stream in messages.

mod channels;
mod tunnel;

pub(crate) use channels::{ChannelReader, ChannelWriter, Encoding, channels};
pub(crate) use tunnel::tunnel;

use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};

/// Larger messages than any client sends are refused.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long the peer may take to answer our close.
pub(crate) const LINGER: Duration = Duration::from_secs(5);

pub(crate) type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Completes the upgrade on the server's side.
pub(crate) async fn accept(upgrade: OnUpgrade) -> Result<Socket, hyper::Error> {
    let upgraded = TokioIo::new(upgrade.await?);
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    Ok(WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await)
}
