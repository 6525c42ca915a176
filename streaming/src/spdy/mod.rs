//! SPDY/3.1 as remote command and port-forward sessions use it: framing, header compression and a connection that
//! carries many streams, on either side.
//!
//! Flow control is that of the implementation everybody talks to (Docker's spdystream): there are no windows, a slow
//! reader of one stream holds back the connection, and TCP holds back the peer.

mod connection;
mod dictionary;
mod frame;
mod header_block;

pub use connection::{Connection, Opener, Side, Stream};
pub use header_block::Headers;

/// Why a SPDY connection ended. None of these is worth a retry on the same connection.
#[derive(Debug, thiserror::Error)]
pub enum SpdyError {
    /// The transport failed or ended in the middle of a frame.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    /// A header block that does not inflate or does not parse.
    #[error("malformed header block")]
    HeaderBlock,
    /// A frame of another protocol version.
    #[error("unsupported SPDY version {0}")]
    Version(u16),
    /// A control frame too short for its type, or too long for any.
    #[error("frame of unacceptable size {0}")]
    FrameSize(usize),
    /// The peer refused to open a stream, or did not answer in time.
    #[error("the peer did not open the stream")]
    Refused,
    /// The connection has ended.
    #[error("the connection is closed")]
    Closed,
}
