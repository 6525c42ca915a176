//! Reading packed layers: unpacking on the fly, and digests of what passes.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use sha2::{Digest, Sha256};

/// Unpacks if it is packed, told by the first bytes rather than by a media type that may be wrong.
pub(super) fn unpacked<R: Read + 'static>(source: R) -> io::Result<Box<dyn Read>> {
    let mut source = BufReader::with_capacity(64 * 1024, source);
    let start = source.fill_buf()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(MultiGzDecoder::new(source)))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Ok(Box::new(ZstdFrames { source: Some(source), frame: None }))
    } else {
        Ok(Box::new(source))
    }
}

/// Unpacks zstd, which comes as one frame after the other.
struct ZstdFrames<R: BufRead> {
    /// Between frames.
    source: Option<R>,
    /// Within one.
    frame: Option<StreamingDecoder<R, FrameDecoder>>,
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let count = frame.read(buffer)?;
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
            }
            if let Some(frame) = self.frame.take() {
                self.source = Some(frame.into_inner());
            }
            let Some(mut source) = self.source.take() else { return Ok(0) };
            if source.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.frame = Some(StreamingDecoder::new(source).map_err(io::Error::other)?);
        }
    }
}

/// Computes the digest of everything that is read through it.
pub(super) struct Digesting<R> {
    source: R,
    hasher: Sha256,
}

impl<R: Read> Digesting<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, hasher: Sha256::new() }
    }

    /// Reads what is left and returns the digest of all.
    pub(super) fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(format!("sha256:{}", hex::encode(self.hasher.finalize())))
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &'static [u8]) -> String {
        let mut text = String::new();
        unpacked(bytes).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn packed_streams_should_be_told_by_their_first_bytes() {
        assert_eq!(read(b"plain"), "plain");
        // Two frames of zstd, each with one raw block: "first " and "second".
        let frames = b"\x28\xb5\x2f\xfd\x20\x06\x31\x00\x00first \x28\xb5\x2f\xfd\x20\x06\x31\x00\x00second";
        assert_eq!(read(frames), "first second");
    }
}
