//! Frames on the wire, read and written one at a time.
//!
//! Data frames may be sixteen megabytes; they are handed over in pieces as they arrive, so that no peer decides how much
//! memory a connection takes. Unknown control frames are skipped, as the protocol asks.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{
    SpdyError,
    header_block::{HeaderDecoder, HeaderEncoder, Headers},
};

const VERSION: u16 = 3;
const FLAG_FIN: u8 = 0x01;
/// Data is handed over in pieces of at most this size.
const DATA_PIECE_BYTES_MAX: usize = 32 * 1024;
/// Control frames above this size are refused.
const CONTROL_BYTES_MAX: usize = 256 * 1024;

/// One frame, or a piece of a data frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    SynStream {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    SynReply {
        stream: u32,
        fin: bool,
    },
    Data {
        stream: u32,
        fin: bool,
        payload: Bytes,
    },
    Reset {
        stream: u32,
        status: u32,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last_stream: u32,
    },
    /// Settings, window updates, late headers and everything unknown: read and passed over. Windows are not kept,
    /// because the implementation that the whole Kubernetes world uses neither sends nor heeds window updates.
    PassedOver,
}

/// Why a stream is reset: the stream identifier is not in use.
pub(super) const RESET_INVALID_STREAM: u32 = 2;

pub(super) struct FrameReader<R> {
    input: R,
    headers: HeaderDecoder,
    /// The data frame being handed over: its stream, whether it ends the stream, and the bytes still to come.
    data: Option<(u32, bool, usize)>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, headers: HeaderDecoder::new(), data: None }
    }

    /// The next frame; nothing at the orderly end of the connection.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        if let Some((stream, fin, left)) = self.data.take() {
            return self.next_data_piece(stream, fin, left).await.map(Some);
        }
        let mut head = [0u8; 8];
        if self.input.read(head.get_mut(..1).unwrap_or_default()).await? == 0 {
            return Ok(None);
        }
        self.input.read_exact(head.get_mut(1..).unwrap_or_default()).await?;
        let mut head = &head[..];
        let first = head.get_u32();
        let flags_and_length = head.get_u32();
        let flags = (flags_and_length >> 24) as u8;
        let length = (flags_and_length & 0x00ff_ffff) as usize;
        if first & 0x8000_0000 == 0 {
            return self.next_data_piece(first, flags & FLAG_FIN != 0, length).await.map(Some);
        }
        let version = ((first >> 16) & 0x7fff) as u16;
        if version != VERSION {
            return Err(SpdyError::Version(version));
        }
        if length > CONTROL_BYTES_MAX {
            return Err(SpdyError::FrameSize(length));
        }
        let mut body = vec![0u8; length];
        self.input.read_exact(&mut body).await?;
        self.control((first & 0xffff) as u16, flags & FLAG_FIN != 0, &body).map(Some)
    }

    async fn next_data_piece(&mut self, stream: u32, fin: bool, left: usize) -> Result<Frame, SpdyError> {
        let take = left.min(DATA_PIECE_BYTES_MAX);
        let mut payload = BytesMut::with_capacity(take).limit(take);
        while payload.has_remaining_mut() {
            if self.input.read_buf(&mut payload).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
        let rest = left - take;
        if rest > 0 {
            self.data = Some((stream, fin, rest));
        }
        Ok(Frame::Data { stream, fin: fin && rest == 0, payload: payload.into_inner().freeze() })
    }

    fn control(&mut self, kind: u16, fin: bool, mut body: &[u8]) -> Result<Frame, SpdyError> {
        let too_short = || SpdyError::FrameSize(0);
        let frame = match kind {
            1 => {
                let stream = body.try_get_u32().map_err(|_| too_short())? & 0x7fff_ffff;
                // The associated stream, the priority and the slot mean nothing here.
                let block = body.get(6..).ok_or_else(too_short)?;
                Frame::SynStream { stream, fin, headers: self.headers.decode(block)? }
            }
            2 => {
                let stream = body.try_get_u32().map_err(|_| too_short())? & 0x7fff_ffff;
                // The contents do not matter, but the compression state does.
                self.headers.decode(body)?;
                Frame::SynReply { stream, fin }
            }
            3 => Frame::Reset {
                stream: body.try_get_u32().map_err(|_| too_short())? & 0x7fff_ffff,
                status: body.try_get_u32().map_err(|_| too_short())?,
            },
            6 => Frame::Ping { id: body.try_get_u32().map_err(|_| too_short())? },
            7 => Frame::GoAway { last_stream: body.try_get_u32().map_err(|_| too_short())? & 0x7fff_ffff },
            8 => {
                let block = body.get(4..).ok_or_else(too_short)?;
                self.headers.decode(block)?;
                Frame::PassedOver
            }
            _ => Frame::PassedOver,
        };
        Ok(frame)
    }
}

/// Turns frames into bytes; one per connection, because header compression has a state.
pub(super) struct FrameWriter {
    headers: HeaderEncoder,
}

impl FrameWriter {
    pub(super) fn new() -> Self {
        Self { headers: HeaderEncoder::new() }
    }

    /// The bytes of a frame: its head, and what follows it without being copied.
    pub(super) fn encode(&mut self, frame: Frame) -> (BytesMut, Bytes) {
        let mut head = BytesMut::with_capacity(32);
        let mut payload = Bytes::new();
        match frame {
            Frame::SynStream { stream, fin, headers } => {
                let block = self.headers.encode(&headers);
                put_control(&mut head, 1, fin, 10 + block.len());
                head.put_u32(stream);
                head.put_u32(0);
                head.put_u16(0);
                payload = block.freeze();
            }
            Frame::SynReply { stream, fin } => {
                let block = self.headers.encode(&Headers::default());
                put_control(&mut head, 2, fin, 4 + block.len());
                head.put_u32(stream);
                payload = block.freeze();
            }
            Frame::Data { stream, fin, payload: data } => {
                head.put_u32(stream);
                put_flags_and_length(&mut head, fin, data.len());
                payload = data;
            }
            Frame::Reset { stream, status } => {
                put_control(&mut head, 3, false, 8);
                head.put_u32(stream);
                head.put_u32(status);
            }
            Frame::Ping { id } => {
                put_control(&mut head, 6, false, 4);
                head.put_u32(id);
            }
            Frame::GoAway { last_stream } => {
                put_control(&mut head, 7, false, 8);
                head.put_u32(last_stream);
                head.put_u32(0);
            }
            Frame::PassedOver => {}
        }
        (head, payload)
    }
}

fn put_control(head: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    head.put_u16(0x8000 | VERSION);
    head.put_u16(kind);
    put_flags_and_length(head, fin, length);
}

fn put_flags_and_length(head: &mut BytesMut, fin: bool, length: usize) {
    let flags = if fin { u32::from(FLAG_FIN) << 24 } else { 0 };
    head.put_u32(flags | (u32::try_from(length).unwrap_or(u32::MAX) & 0x00ff_ffff));
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn round_trip(frames: Vec<Frame>) -> Vec<Frame> {
        let mut writer = FrameWriter::new();
        let mut bytes = Vec::new();
        for frame in frames {
            let (head, payload) = writer.encode(frame);
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(&payload);
        }
        let mut reader = FrameReader::new(&bytes[..]);
        let mut read = Vec::new();
        while let Some(frame) = reader.next().await.unwrap() {
            read.push(frame);
        }
        read
    }

    #[tokio::test]
    async fn control_frames_should_survive_the_wire() {
        let headers = || Headers::default().with("streamtype", "stdout");
        let frames = || {
            vec![
                Frame::SynStream { stream: 1, fin: false, headers: headers() },
                Frame::SynReply { stream: 1, fin: true },
                Frame::SynStream { stream: 3, fin: true, headers: headers() },
                Frame::Reset { stream: 3, status: 5 },
                Frame::Ping { id: 7 },
                Frame::GoAway { last_stream: 3 },
            ]
        };
        assert_eq!(round_trip(frames()).await, frames());
    }

    #[tokio::test]
    async fn a_large_data_frame_should_arrive_in_pieces_that_end_the_stream_once() {
        let payload = Bytes::from(vec![7u8; DATA_PIECE_BYTES_MAX * 2 + 5]);
        let pieces = round_trip(vec![Frame::Data { stream: 1, fin: true, payload }]).await;
        let sizes: Vec<_> = pieces
            .iter()
            .map(|frame| match frame {
                Frame::Data { payload, fin, .. } => (payload.len(), *fin),
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        assert_eq!(sizes, [(DATA_PIECE_BYTES_MAX, false), (DATA_PIECE_BYTES_MAX, false), (5, true)]);
    }
}
