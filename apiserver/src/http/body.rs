//! Bodies: reading requests within a limit, and building answers.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use api::{ApiError, Reason};
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::time::Sleep;

use super::{BoxError, RequestBody, ResponseBody};

/// The largest body of a write, as upstream has it.
pub(crate) const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// 413 in upstream's words.
pub(crate) fn too_large(bytes_max: usize) -> ApiError {
    let message = format!("Request entity too large: limit is {bytes_max}");
    ApiError::new(Reason::RequestEntityTooLarge, message)
}

/// Reads a whole body; 413 past the limit.
pub(crate) async fn read_limited(mut body: RequestBody) -> Result<Bytes, ApiError> {
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        drain(body).await;
        return Err(too_large(BODY_BYTES_MAX));
    }
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| ApiError::bad_request(format!("the body could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if collected.len() + data.len() > BODY_BYTES_MAX {
            drop(collected);
            drain(body).await;
            return Err(too_large(BODY_BYTES_MAX));
        }
        if collected.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.freeze())
}

/// Reads on without keeping anything: many clients look at the answer only once they have sent everything. One that
/// sends without end is cut off.
async fn drain(mut body: RequestBody) {
    let mut left = 8 * BODY_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// A body that has to be there in time.
struct Timed {
    body: RequestBody,
    end: Pin<Box<Sleep>>,
    at_most: Duration,
}

/// A request's body that fails when it is not whole within some time.
pub(crate) fn timed(body: RequestBody, at_most: Duration) -> RequestBody {
    if body.is_end_stream() {
        return body;
    }
    Timed { body, end: Box::pin(tokio::time::sleep(at_most)), at_most }.boxed_unsync()
}

impl Body for Timed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let timed = self.get_mut();
        match Pin::new(&mut timed.body).poll_frame(context) {
            Poll::Pending if timed.end.as_mut().poll(context).is_ready() => {
                Poll::Ready(Some(Err(format!("it did not come whole within {:?}", timed.at_most).into())))
            }
            frame => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads the beginning of a text.
pub(crate) async fn read_text(mut body: ResponseBody, bytes_max: usize) -> String {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() >= bytes_max {
            bytes.truncate(bytes_max);
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A body of known bytes.
pub(crate) fn full(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub(crate) fn empty() -> ResponseBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is made while it is sent.
pub(crate) fn stream<S>(stream: S) -> ResponseBody
where
    S: futures::Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
{
    use futures::StreamExt;
    StreamBody::new(stream.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

/// Compresses a body while it is sent; every chunk goes out at once.
pub(crate) struct Gzip {
    inner: ResponseBody,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Gzip {
    /// Wraps a body. Level 1, as upstream: the network is near, the processor is dear.
    pub fn wrap(inner: ResponseBody) -> ResponseBody {
        Self { inner, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) }.boxed_unsync()
    }
}

impl Body for Gzip {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let Some(mut encoder) = self.encoder.take() else { return Poll::Ready(None) };
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Pending => {
                    self.encoder = Some(encoder);
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else {
                        self.encoder = Some(encoder);
                        continue;
                    };
                    if let Err(error) = encoder.write_all(&data) {
                        return Poll::Ready(Some(Err(error.into())));
                    }
                    let ready = std::mem::take(encoder.get_mut());
                    self.encoder = Some(encoder);
                    if !ready.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(ready.into()))));
                    }
                }
                Poll::Ready(None) => {
                    let last = encoder.finish().map(|bytes| Frame::data(bytes.into()));
                    return Poll::Ready(Some(last.map_err(Into::into)));
                }
            }
        }
    }
}
